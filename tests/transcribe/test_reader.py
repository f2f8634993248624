"""What becomes of lines that are too many for the memory of a GPU."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import torch

from htr_ray.config import TranscribeSettings
from htr_ray.model.recognizer import Reading
from htr_ray.transcribe.lines import Chunk, Line
from htr_ray.transcribe.reader import Reader


class Maps:
    """The feature maps of a batch."""


class SmallCard(Reader):
    """Has room for so many columns of pixels."""

    def __init__(self, columns: int) -> None:
        super().__init__(SimpleNamespace(load=lambda device: None), TranscribeSettings())  # type: ignore[arg-type]
        self.columns = columns
        self.held: list[weakref.ref[Maps]] = []
        self.alive: list[int] = []

    def _readings(self, images: np.ndarray, widths: np.ndarray) -> list[Reading]:
        self.alive.append(sum(reference() is not None for reference in self.held))
        maps = Maps()
        self.held.append(weakref.ref(maps))
        if len(images) * images.shape[-1] > self.columns:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [Reading(str(width), 1.0, [1.0]) for width in widths]


def line(width: int) -> Line:
    return Line(id=str(width), image=np.zeros((32, width), np.uint8))


def test_batches_are_halved_until_they_fit_and_what_did_not_fit_is_let_go_first() -> None:
    card = SmallCard(columns=300)
    lines = [line(width) for width in (100, 90, 80, 110, 100, 900)]
    card.read(Chunk("task", 0, lines=lines))
    assert [one.reading and one.reading.text for one in lines[:5]] == ["100", "90", "80", "110", "100"]
    assert lines[5].reading is None and lines[5].reason == "not enough memory to read it"
    assert lines[5].detail is not None and lines[5].detail.endswith("pixels wide")
    assert all(one.image is None for one in lines)
    assert len(card.alive) > 5 and not any(card.alive)
