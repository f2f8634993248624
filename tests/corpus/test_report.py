"""The report: what it counts, what it finds wrong, what it prints."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from htr_ray.corpus.images import encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.report_print import print_report
from htr_ray.corpus.schema import Line, Split
from htr_ray.corpus.write import CorpusWriter


def picture(number: int, width: int = 120, height: int = 32) -> np.ndarray:
    array = np.full((height, width), 240, np.uint8)
    array[8:24, 5 : width - 5] = np.random.default_rng(number).integers(0, 90, (16, width - 10))
    return array


def line(number: int, text: str | None, *, image: bytes | None = None, width: int = 120, **other: Any) -> Line:
    data = encode_png(picture(number, width)) if image is None else image
    values = {"width": width, "height": 32, "text": text, "writer": f"w{number}", **other}
    return Line(id=f"line{number}", image=data, **values)


def corpus(path: Path, *lines: tuple[Line, Split]) -> Corpus:
    with CorpusWriter(str(path), "c") as writer:
        for item, split in lines:
            writer.add(item, split)
    return Corpus.open(str(path))


def printed(report: dict[str, Any]) -> str:
    sink = io.StringIO()
    print_report(report, Console(file=sink, width=120))
    return sink.getvalue()


def test_characters_with_their_counts(tmp_path: Path) -> None:
    made = corpus(
        tmp_path,
        (line(0, "a" * 12 + "e\u0303 b"), "train"),
        (line(1, "ab"), "val"),
        (line(2, "zא"), "test"),
        (line(3, None), "test"),
    )
    report = summarise(made)
    rows = {row["character"]: row for row in report["characters"]}
    assert list(rows) == sorted("abez א\u0303")
    assert rows["a"] == {"character": "a", "train": 12, "val": 1, "test": 0, "rare": False}
    assert rows["b"] == {"character": "b", "train": 1, "val": 1, "test": 0, "rare": True}
    assert rows["z"]["train"] == 0 and rows["z"]["rare"]
    assert report["test_characters_unseen_in_train"] == {"z": 1, "א": 1}
    assert report["splits"]["test"]["labelled"] == 1 and report["splits"]["train"]["characters"] == 5
    json.dumps(report)
    text = printed(report)
    for expected in (
        "a 12/1/0 ",
        "b 1/1/0*",
        "U+0303 combining tilde 1/0/0*",
        "U+0020 space 1/0/0*",
        "rare in train (6 of 7)",
        "z (1) U+05D0 א hebrew letter alef (1)",
    ):
        assert expected in text


def test_histograms_leave_out_what_has_no_text(tmp_path: Path) -> None:
    lines = [line(i, "abc" if i else None, width=100 + 10 * i) for i in range(30)]
    report = summarise(corpus(tmp_path, *((item, "train") for item in lines)))
    assert sum(report["histograms"]["width"]["counts"]) == 30
    assert report["histograms"]["characters"] == {"edges": [3, 3], "counts": [29]}
    text = printed(report)
    assert "width in px" in text and "100-149" in text and "█" in text


def test_same_image_on_two_sides(tmp_path: Path) -> None:
    """Equal files are found always, equal pixels in other files when images are decoded."""
    same, pixels = encode_png(picture(7)), picture(8)
    other = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    assert other != encode_png(pixels)
    made = corpus(
        tmp_path,
        (line(0, "abc", image=same), "train"),
        (line(1, "abd", image=same), "test"),
        (line(2, "abe", image=encode_png(pixels)), "train"),
        (line(3, "abf", image=other), "val"),
        (line(4, "abg"), "train"),
        (line(5, "abh", image=encode_png(picture(4))), "train"),
    )
    report = summarise(made)
    assert report["duplicates"]["images"] == {
        "compared": "files",
        "lines_on_two_sides": 2,
        "on_two_sides": [["train: line0", "test: line1"]],
        "lines_within_a_split": 1,
    }
    assert report["problems"] == []
    assert report["warnings"] == [
        "2 lines have the same image as one on another side, for instance train: line0 = test: line1"
    ]
    decoded = summarise(made, decode=True)["duplicates"]["images"]
    assert decoded["compared"] == "pixels" and decoded["lines_on_two_sides"] == 4
    assert decoded["on_two_sides"] == [["train: line0", "test: line1"], ["train: line2", "val: line3"]]
    assert "train: line2 = val: line3" in printed(summarise(made, decode=True))


def test_the_example_has_a_line_of_each_side(tmp_path: Path) -> None:
    same = encode_png(picture(7))
    sides: list[Split] = ["train", "train", "train", "val", "test", "test"]
    made = corpus(tmp_path, *((line(i, "abc", image=same), side) for i, side in enumerate(sides)))
    report = summarise(made)
    [group] = report["duplicates"]["images"]["on_two_sides"]
    assert [name.split(":")[0] for name in group] == ["train", "val", "test", "train", "train", "test"]
    assert report["duplicates"]["images"]["lines_within_a_split"] == 3
    assert " = val: line3 = test: line" in report["warnings"][0]


def test_same_pixels_in_another_shape_are_another_image(tmp_path: Path) -> None:
    wide, high = np.full((32, 64), 200, np.uint8), np.full((64, 32), 200, np.uint8)
    made = corpus(
        tmp_path,
        (line(0, "a", image=encode_png(wide), width=64), "train"),
        (line(1, "b", image=encode_png(high), width=32, height=64), "test"),
    )
    assert summarise(made, decode=True)["duplicates"]["images"]["lines_on_two_sides"] == 0


def test_same_text_is_counted_and_no_problem(tmp_path: Path) -> None:
    made = corpus(
        tmp_path,
        (line(0, "same", width=100), "train"),
        (line(1, None, width=130), "train"),
        (line(2, "same", width=100), "val"),
        (line(3, "same", width=101), "val"),
        (line(4, None, width=130), "val"),
        (line(5, "new", width=100), "test"),
    )
    report = summarise(made)
    assert report["duplicates"]["texts"] == {
        "val": {"lines": 2, "same_size": 1, "ids": ["line2"]},
        "test": {"lines": 0, "same_size": 0, "ids": []},
    }
    assert report["problems"] == []
    assert "2 lines of val, 1 with the same size too, for instance line2" in printed(report)


def test_text_too_long_for_ctc(tmp_path: Path) -> None:
    """32 px high, as in preset tiny: 40 px make 11 frames there, 16 in small and 21 in paper."""
    made = corpus(
        tmp_path,
        (line(0, "abcdefghijk", width=40), "train"),
        (line(1, "aabcdefghij", width=40), "test"),
        (line(2, "abcdefghijklmnop" * 2, width=40), "val"),
        (line(3, None, width=40), "train"),
    )
    report = summarise(made)
    assert report["too_long_for_ctc"] == {
        "paper": {"lines": 1, "ids": ["line2"]},
        "small": {"lines": 1, "ids": ["line2"]},
        "tiny": {"lines": 2, "ids": ["line2", "line1"]},
    }
    assert "paper 1, small 1, tiny 2, for instance line2, line1" in printed(report)


def test_images_are_looked_at(tmp_path: Path) -> None:
    made = corpus(
        tmp_path,
        (line(0, "a", image=b"junk"), "train"),
        (line(1, "b", image=encode_png(np.full((32, 120), 250, np.uint8))), "val"),
        (line(2, "c", width=120, image=encode_png(picture(2, 130))), "test"),
    )
    assert summarise(made)["problems"] == []
    report = summarise(made, decode=True)
    assert report["nearly_blank"] == ["line1"]
    assert report["problems"] == [
        "train: image of line0: not an image",
        "test: image of line2 is 130x32, not 120x32 as said",
    ]


def test_a_damaged_part_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    made = corpus(tmp_path, *((line(i, "abc"), "train") for i in range(40)))
    part = Path(made.files("train")[0])
    data = bytearray(part.read_bytes())
    start = data.index(b"\x89PNG") - 60  # the header of the page of images
    data[start : start + 50] = bytes(50)
    part.write_bytes(data)
    [problem] = summarise(made, decode=True)["problems"]
    assert "damaged" in problem and part.name in problem


def test_direction_that_the_texts_belie(tmp_path: Path) -> None:
    made = corpus(tmp_path, (line(0, "שלום abc"), "train"))
    direction = getattr(made.info, "direction", "ltr")
    report = summarise(made)
    assert report["direction"] == direction and f"Text {direction}" in printed(report)
    warned = any("most letters run rtl, but corpus.json says ltr" in warning for warning in report["warnings"])
    assert warned == (direction == "ltr")


def test_rare_characters_beyond_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htr_ray.corpus.report_print._MOST_CHARACTERS", 2)
    text = printed(summarise(corpus(tmp_path, (line(0, "aaabbcdd"), "train"))))
    assert "a 3/0/0*" in text and "c 1/0/0*" not in text and "... and 2 rarer ones" in text
