"""For the tests of importers: trees of files with tiny images, and what comes out of them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.schema import Imported, SetAside
from htr_ray.errors import UserError

Units = Callable[[str, ImportOptions], Iterator[Unit | SetAside]]


def image(seed: int = 0, kind: str = "PNG", width: int = 30, height: int = 12) -> bytes:
    """A small image of noise."""
    sink = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(noise).save(sink, kind)
    return sink.getvalue()


def plant(root: Path, files: dict[str, bytes | str]) -> Path:
    """Write files; texts as UTF-8."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def harvest(units: Units, uri: str | Path, **options: Any) -> tuple[dict[str, Imported], dict[str, SetAside]]:
    """All lines and all that was set aside, by id; units travel as they do to other machines."""
    items: list[Imported | SetAside] = []
    for unit in units(str(uri), ImportOptions(**options)):
        items += [unit] if isinstance(unit, SetAside) else pickle.loads(pickle.dumps(unit)).lines()
    lines = {item.line.id: item for item in items if isinstance(item, Imported)}
    aside = {item.id: item for item in items if isinstance(item, SetAside)}
    assert len(lines) + len(aside) == len(items), "an id occurs twice"
    return lines, aside


def reasons(aside: dict[str, SetAside]) -> dict[str, str]:
    """Why each was set aside."""
    return {id: item.reason for id, item in aside.items()}


@st.composite
def garbled(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` cut short, with some bytes replaced and some thrown in."""
    spoilt = bytearray(data[: draw(st.integers(0, len(data)))])
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, 255)), max_size=8)):
        if place < len(spoilt):
            spoilt[place] = byte
    at = draw(st.integers(0, len(spoilt)))
    spoilt[at:at] = draw(st.binary(max_size=12))
    return bytes(spoilt)


def survives(units: Units, uri: str | Path, **options: Any) -> None:
    """Whatever is wrong with the input: a UserError, or lines and things set aside that tables can hold."""
    try:
        for unit in units(str(uri), ImportOptions(**options)):
            for item in [unit] if isinstance(unit, SetAside) else unit.lines():
                assert isinstance(item, Imported | SetAside)
                strings = (item.id, item.reason, item.detail) if isinstance(item, SetAside) else (
                    item.line.id, item.line.text or "", item.line.writer or "", item.line.page or "",
                )  # fmt: skip
                for string in strings:
                    string.encode()
    except UserError as error:
        assert str(error).startswith("--")
