"""Pretext tasks: one file each. A new task is its file and its line in ``PRETEXT``."""

from __future__ import annotations

from htr_ray.config import PretextSettings
from htr_ray.pretext.base import Pretext
from htr_ray.pretext.flip import Flip
from htr_ray.pretext.jigsaw import Jigsaw
from htr_ray.pretext.rotation import Rotation
from htr_ray.pretext.sorting import Sorting

PRETEXT: dict[str, type[Pretext]] = {
    "rotation": Rotation,
    "flip": Flip,
    "jigsaw": Jigsaw,
    "sorting": Sorting,
}


def make(name: str, settings: PretextSettings, height: int) -> Pretext:
    """The task of that name for lines ``height`` pixels high. Raises ValueError for unknown names."""
    try:
        task = PRETEXT[name]
    except KeyError:
        raise ValueError(f"unknown pretext task '{name}'; known: {', '.join(PRETEXT)}") from None
    return task(settings, height)


__all__ = ["PRETEXT", "Pretext", "make"]
