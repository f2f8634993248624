"""The sheet as a picture: every mark drawn, nothing outside, whatever the text."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from htr_ray.corpus.images import encode_png
from htr_ray.report import picture as module
from htr_ray.report.alignment import align, letters
from htr_ray.report.picture import reading_picture


def line(truth: str, reading: str, name: str = "a") -> dict[str, Any]:
    return {"id": name, "truth": truth, "reading": reading, "confidence": 0.5, "edits": 0}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def draw(truth: str, reading: str, images: dict[str, bytes] | None = None) -> np.ndarray:
    return pixels(reading_picture([line(truth, reading)], images or {}, "t"))


def below_heading(image: np.ndarray) -> np.ndarray:
    """Without the legend, which has all the marks."""
    return image[100:]


def tinted(image: np.ndarray, kind: Any) -> int:
    return int((image == module._COLOURS[kind][1]).all(2).sum())


@pytest.mark.parametrize(
    ("truth", "reading", "kinds"),
    [("abc", "abc", []), ("abc", "axc", ["wrong"]), ("abc", "ac", ["missed"]), ("ac", "abc", ["added"])],
)
def test_each_error_has_its_mark(truth: str, reading: str, kinds: list[str]) -> None:
    image = below_heading(draw(truth, reading))
    assert [kind for kind in module._COLOURS if tinted(image, kind) > 20] == kinds


def test_marks_differ_without_colour() -> None:
    """The same letter in the same place: a line below, a line through, a frame."""
    grounds = []
    for kind in ("wrong", "missed", "added"):
        image = Image.new("RGB", (60, 40), "white")
        module._mark(module.ImageDraw.Draw(image), (10, 5), 30, "n", kind, 20)
        grounds.append(np.asarray(image.convert("L")) < 128)
    for i in range(3):
        for j in range(i):
            assert (grounds[i] != grounds[j]).sum() > 25


def test_letters_stand_below_each_other() -> None:
    """After a missed letter, the last one of truth and reading begins in the same column."""
    image = draw("WWiWH", "WWWH")
    rows = [i for i in range(len(image)) if (image[i, module._TEXT_LEFT :] == 17).all(1).any()]
    rows = [i for i in rows if i > 140]
    middle = (rows[0] + rows[-1]) // 2
    ends = [np.flatnonzero((part == 17).all(2).any(0)).max() for part in (image[140:middle], image[middle:])]
    assert ends[0] == ends[1]


def test_long_lines_are_wrapped_and_stay_inside() -> None:
    short, long = draw("word " * 5, "ward " * 5), draw("word " * 100, "ward " * 100)
    assert len(long) > len(short) + 4 * 2 * module._ROW
    assert (long[:, -module._MARGIN + 2 :] == 255).all()
    unbroken = draw("m" * 400, "m" * 400)
    assert (unbroken[:, -module._MARGIN + 2 :] == 255).all() and len(unbroken) > len(short)


@given(st.text(alphabet="ab שם\u0301\n", max_size=40), st.text(alphabet="ab שם\u0301\n", max_size=40))
@settings(max_examples=60)
def test_pieces_spell_both_texts(truth: str, reading: str) -> None:
    pieces = list(module._pieces(letters(align(truth, reading))))
    assert "".join(t for t, _ in pieces) == truth and "".join(r for _, r in pieces) == reading


@given(st.text(max_size=12), st.text(max_size=12))
@settings(max_examples=25)
def test_any_text_can_be_drawn(truth: str, reading: str) -> None:
    assert draw(truth, reading).shape[1] == module._WIDTH


def test_right_to_left_stands_at_the_right_with_its_errors_in_a_list() -> None:
    right, wrong = (below_heading(draw("שלום", reading)) for reading in ("שלום", "שלם"))
    ink = (wrong == module._BLACK).all(2).any(0)
    assert ink[-200:].any() and not ink[600:-200].any()
    assert len(wrong) > len(right)
    listed = wrong[len(right) - module._MARGIN :].astype(int)
    # What was read is brown; it stands behind the truth and the arrow, whatever the direction of the letters.
    brown = np.flatnonzero((listed[..., 0] - listed[..., 2] > 40).any(0))
    assert brown.size and brown.min() >= module._TEXT_LEFT + 60


def test_long_right_to_left_lines_are_wrapped() -> None:
    grey = encode_png(np.full((96, 400), 140, np.uint8))
    image = draw("שלום עולם " * 40, "שלום עולם " * 40, {"a": grey})
    assert len(image) > len(draw("שלום", "שלום")) + 4 * module._ROW
    assert (image[150:, : module._MARGIN - 2] == 255).all()
    names = (image[150:, : module._TEXT_LEFT - 20] == module._BLACK).all(2)
    assert not names.any()  # no text has run into the names of the rows


def test_images_are_drawn_and_their_lack_is_said() -> None:
    grey = encode_png(np.full((96, 400), 140, np.uint8))
    assert ((draw("a", "a", {"a": grey}) == 140).all(2)).sum() == pytest.approx(48 * 200, abs=300)
    for images in ({}, {"a": b"junk"}):
        assert ((draw("a", "a", images) == (255, 228, 225)).all(2)).sum() > 3000


def test_as_many_lines_as_asked_for() -> None:
    readings = [line("abcdef", "abcdef"[: i % 7], str(i)) for i in range(40)]
    few, many = (pixels(reading_picture(readings, {}, "t", lines=lines)) for lines in (6, 24))
    boxes = [(image == (255, 228, 225)).all(2)[:, module._MARGIN + 1].astype(int) for image in (few, many)]
    assert [int((np.diff(box) == 1).sum()) for box in boxes] == [6, 24]


def test_no_lines_at_all() -> None:
    assert pixels(reading_picture([], {}, "t")).shape[1] == module._WIDTH
