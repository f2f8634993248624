"""The contact sheet: which lines, and that what it shows is theirs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from htr_ray.corpus import contact_sheet as module
from htr_ray.corpus import fonts
from htr_ray.corpus.contact_sheet import contact_sheet, png
from htr_ray.corpus.fonts import best_font
from htr_ray.corpus.images import encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Line, Split
from htr_ray.corpus.write import CorpusWriter


def write(path: Path, counts: dict[Split, int], *, text: str | None = "Königstraße", width: int = 200) -> Corpus:
    with CorpusWriter(str(path), "c") as writer:
        for split, count in counts.items():
            for i in range(count):
                image = encode_png(np.full((50, width), 100, np.uint8))
                # Few lines of many writers, most of one.
                writer.add(Line(f"{split}{i}", image, width, 50, text, f"{split}-w{max(0, i - count + 4)}"), split)
    return Corpus.open(str(path))


def chosen(corpus: Corpus, lines: int, seed: int = 0) -> list[module._Line]:
    return module._choose(corpus, lines, seed)


def test_all_splits_and_as_many_writers_as_can_be(tmp_path: Path) -> None:
    corpus = write(tmp_path, {"train": 40, "val": 12, "test": 12})
    lines = chosen(corpus, 16)
    assert [line.split for line in lines] == ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    for split in SPLITS:
        assert len({line.writer for line in lines if line.split == split}) == 4
    assert len({line.id for line in lines}) == 16


def test_seeded(tmp_path: Path) -> None:
    corpus = write(tmp_path, {"train": 40, "val": 12, "test": 12})
    first = [line.id for line in chosen(corpus, 12)]
    assert first == [line.id for line in chosen(corpus, 12)]
    assert first != [line.id for line in chosen(corpus, 12, seed=1)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train": 100, "val": 1}, {"train": 23, "val": 1}),
        ({"train": 4, "val": 100, "test": 2}, {"train": 4, "val": 18, "test": 2}),
        ({"train": 2, "val": 1, "test": 1}, {"train": 2, "val": 1, "test": 1}),
    ],
)
def test_small_splits_are_made_up_for(tmp_path: Path, counts: dict[Split, int], expected: dict[Split, int]) -> None:
    lines = chosen(write(tmp_path, counts), 24)
    assert {split: sum(line.split == split for line in lines) for split in expected} == expected


def test_drawn_lines_and_texts(tmp_path: Path) -> None:
    sheet = contact_sheet(write(tmp_path / "a", {"train": 6, "val": 2, "test": 2}), 8)
    assert sheet.mode == "RGB" and np.array_equal(sheet, Image.open(io.BytesIO(png(sheet))))
    grey = (np.asarray(sheet) == 100).all(2)
    # 8 images of 200 x 50, scaled to 56 high.
    assert grey.sum() == pytest.approx(8 * 56 * 224, rel=0.01)
    other = contact_sheet(write(tmp_path / "b", {"train": 6, "val": 2, "test": 2}, text="Ortsstraße"), 8)
    assert other.size == sheet.size and ImageChops.difference(sheet, other).getbbox() is not None


@pytest.mark.parametrize(("width", "cell"), [(100, 309), (3000, 634)])
def test_cells_fit_the_lines(tmp_path: Path, width: int, cell: int) -> None:
    sheet = contact_sheet(write(tmp_path, {"train": 4}, width=width), 4)
    assert sheet.width == 1316
    columns = (np.asarray(sheet) == 100).all(2).any(0)
    assert columns.sum() == (2 * cell if width == 3000 else 4 * 112)


def test_a_damaged_image_says_so(tmp_path: Path) -> None:
    with CorpusWriter(str(tmp_path), "c") as writer:
        writer.add(Line("a", b"junk", 100, 32, None), "train")
    sheet = np.asarray(contact_sheet(Corpus.open(str(tmp_path))))
    assert ((sheet == (255, 228, 225)).all(2)).sum() > 1000  # the pink box of the reason


def test_long_texts_are_wrapped_and_cut() -> None:
    font, _ = best_font("a", 17)
    rows = module._wrap("abc " * 20, font, 200, limit=4)
    assert len(rows) > 1 and "".join(rows) == "abc " * 20
    assert all(font.getlength(row) <= 200 for row in rows)
    cut = module._wrap("abc " * 200, font, 200, limit=2)
    assert len(cut) == 2 and cut[-1].endswith("...")


@pytest.mark.parametrize("text", ["Straße ꝑ ⁊ q̃ œ", "ἴστωρ", "Щука", "שָׁלוֹם", "في سنة ١٩١٤"])
def test_the_font_has_the_script(text: str) -> None:
    font, missing = best_font(text, 17)
    assert missing == set() and font.getlength(text) > 20


def test_what_no_font_has_is_escaped() -> None:
    unassigned = "\U000e1234"
    assert module._shown(f"a{unassigned}b")[0] == "a[U+E1234]b"


def test_without_matplotlib_pillows_own_font_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_own_font", lambda: None)
    monkeypatch.setattr(fonts, "_system_fonts", list)
    font, missing = best_font("Street ש", 17)
    assert missing == {"ש"} and font.getlength("Street") > 20


def test_right_to_left_stands_at_the_right(tmp_path: Path) -> None:
    corpus = write(tmp_path, {"train": 1}, text="שלום")
    line = chosen(corpus, 1)[0]
    for direction, side in (("ltr", 0), ("rtl", 1)):
        cell = np.asarray(module._draw(replace(line, direction=direction), 600))
        text = (cell[-26:] < 128).all(2).any(0)  # columns with ink of the text row
        assert [text[:300].any(), text[300:].any()] == [side == 0, side == 1]
