"""What becomes of lines that are too many for the memory of a GPU."""

from __future__ import annotations

import weakref
from pathlib import Path

import cv2
import numpy as np
import torch
from transcribe_helpers import draw, save_small

from htr_ray.config import TranscribeSettings
from htr_ray.model.recognizer import Reading
from htr_ray.stream.scale import scale_line
from htr_ray.transcribe.lines import Chunk, Line
from htr_ray.transcribe.model import Bundle, fetch
from htr_ray.transcribe.reader import Reader

FLOAT32 = TranscribeSettings(precision="float32")


class Maps:
    """The feature maps of a batch."""


class SmallCard(Reader):
    """Has room for so many columns of pixels."""

    def __init__(self, bundle: Bundle, columns: int) -> None:
        super().__init__(bundle, FLOAT32)
        self.columns = columns
        self.held: list[weakref.ref[Maps]] = []
        self.alive: list[int] = []

    def _readings(self, images: np.ndarray, widths: np.ndarray) -> list[Reading]:
        self.alive.append(sum(reference() is not None for reference in self.held))
        maps = Maps()
        self.held.append(weakref.ref(maps))
        if len(images) * images.shape[-1] > self.columns:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._readings(images, widths)


def lines(widths: list[int]) -> list[Line]:
    images = [cv2.imdecode(np.frombuffer(draw(f"line {width}", width), np.uint8), 0) for width in widths]
    return [Line(id=str(image.shape[1]), image=scale_line(image, 32, 1.0, 1024)) for image in images]


def test_batches_are_halved_until_they_fit_and_what_did_not_fit_is_let_go_first(tmp_path: Path) -> None:
    bundle, widths = fetch(save_small(tmp_path)), [150, 135, 120, 165, 150, 1350]
    expected = Reader(bundle, FLOAT32).read(Chunk("task", 0, lines=lines(widths))).lines
    card = SmallCard(bundle, columns=300)
    found = card.read(Chunk("task", 0, lines=lines(widths))).lines
    assert [one.reading and one.reading.text for one in found[:5]] == [
        one.reading and one.reading.text for one in expected[:5]
    ]
    assert all(one.reading and one.reading.text for one in found[:5])
    assert found[5].reading is None and found[5].reason == "not enough memory to read it"
    assert found[5].detail is not None and found[5].detail.endswith("pixels wide")
    assert all(one.image is None for one in found)
    assert len(card.alive) > 5 and not any(card.alive)
