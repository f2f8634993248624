"""Where a grid is, by its name or its folder. Apart from the rest, so that looking at a grid starts at once."""

from __future__ import annotations

from htr_ray import storage
from htr_ray.errors import UserError

GRID_FILE = "grid.json"


def find_grid(name_or_uri: str, storage_uri: str) -> str:
    """URI of the folder of a grid, by its name below ``storage_uri`` or by that URI itself.

    Raises UserError that names the grids that are there.
    """
    place = storage.normalise(storage_uri)
    candidates = [storage.normalise(name_or_uri)]
    if "/" not in name_or_uri:
        candidates.insert(0, storage.join(place, name_or_uri))
    for folder in candidates:
        if storage.exists(storage.join(folder, GRID_FILE)):
            return folder
    there = _grids(place) if "/" not in name_or_uri else []
    known = f"; grids there: {', '.join(there)}" if there else ""
    raise UserError(
        f"{name_or_uri}: no grid of that name ({storage.join(candidates[0], GRID_FILE)} is missing){known}; "
        "check the name and storage=URI, or give the URI of the grid's folder"
    )


def _grids(place: str) -> list[str]:
    """Names of the grids in a storage; none where it cannot be listed."""
    try:
        return [name for name in storage.listdir(place) if storage.exists(storage.join(place, name, GRID_FILE))][:20]
    except UserError:
        return []
