"""The preview of a pretext task as a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from htr_ray.config import PretextSettings
from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.pretext import PRETEXT, make
from htr_ray.report import preview as module
from htr_ray.report.preview import pretext_preview
from htr_ray.stream.scale import scale_line


def encoded(grey: int, width: int, height: int = 64) -> str:
    return base64.b64encode(encode_png(np.full((height, width), grey, np.uint8))).decode()


def entry(right: float = 1.0, **changed: Any) -> dict[str, Any]:
    found = {"line": encoded(140, 300), "view": encoded(60, 128), "answer": "flip none", "guess": "flip both"}
    return found | {"right": right} | changed


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(2).sum())


def test_each_row_has_line_and_view_at_their_size() -> None:
    image = pixels(pretext_preview([entry(), entry()], "flip"))
    assert count(image, (140,) * 3) == pytest.approx(2 * 300 * 64, abs=200)
    assert count(image, (60,) * 3) == pytest.approx(2 * 128 * 64, abs=200)


def test_wide_lines_and_views_are_reduced_and_kept_apart() -> None:
    image = pixels(pretext_preview([entry(line=encoded(140, 4000), view=encoded(60, 4000)), entry()], "flip"))
    line, view = ((image == grey).all(2).sum(0) > 3 for grey in (140, 60))
    assert not (line & view).any() and line.sum() == 420 and view.sum() == 400


@pytest.mark.parametrize(("right", "colour"), [(1.0, module._RIGHT), (0.0, module._WRONG), (0.4, module._HALF)])
def test_the_answer_is_coloured_by_what_it_is_worth(right: float, colour: tuple[int, int, int]) -> None:
    image = pixels(pretext_preview([entry(right)], "flip"))
    assert count(image, colour) > 20
    assert all(count(image, other) == 0 for other in (module._RIGHT, module._WRONG, module._HALF) if other != colour)


def test_and_by_another_sign() -> None:
    """In grey, with the same words, right and wrong still differ where the sign stands, and only there."""
    right, wrong = (pixels(pretext_preview([entry(value)], "t")) for value in (1.0, 0.0))
    ink = [(image != 255).any(2)[module._HEADING + 5 :] for image in (right, wrong)]
    columns = np.flatnonzero((ink[0] != ink[1]).any(0))
    assert columns.size > 0 and np.ptp(columns) < module._SIGN


def test_accuracy_is_that_of_the_rows() -> None:
    assert module._accuracy([entry(1.0), entry(0.5), entry(0.0), entry(0.0)]).startswith(
        "38 % of the answers to these 4"
    )


def test_long_answers_and_titles_stay_inside() -> None:
    long = entry(0.2, answer="tiles " + "1 2 3 4 5 6 7 8 9 " * 3, guess="turned 270 degrees counter-clockwise")
    image = pixels(pretext_preview([long], "a very long title " * 12))
    assert (image[:, -4:] == 255).all()


def test_without_lines_it_says_so() -> None:
    assert count(pixels(pretext_preview([], "sorting")), module._GREY) > 50


def test_a_damaged_image_does_not_cost_the_others() -> None:
    image = pixels(pretext_preview([entry(view="%%%"), entry(line=base64.b64encode(b"junk").decode()), entry()], "t"))
    assert count(image, (255, 228, 225)) > 5000 and count(image, (140,) * 3) > 2 * 300 * 60


@pytest.mark.parametrize("name", PRETEXT)
def test_views_of_real_lines(name: str, handwriting: Path) -> None:
    rows = next(pq.ParquetFile(handwriting / "lines" / "dhsd.parquet").iter_batches(6)).to_pylist()
    task, rng, shown = make(name, PretextSettings(), 64), np.random.default_rng(0), []
    for row in rows:
        whole = scale_line(decode_grey(row["image"]["bytes"]), 64, 1.0, 2000)
        view, target = task.view(whole, rng)
        told = task.caption(target)
        images = {"line": whole, "view": view}
        images = {key: base64.b64encode(encode_png(image)).decode() for key, image in images.items()}
        shown.append({**images, "answer": told, "guess": told, "right": 1.0})
    image = pixels(pretext_preview(shown, name))
    assert len(image) == module._HEADING + 6 * module._ROW + module._MARGIN
    assert count(image, module._RIGHT) > 6 * 20
