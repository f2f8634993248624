"""Importers ``washington`` and ``saint-gall``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import garbled, harvest, image, plant, reasons, survives

from htr_ray.corpus.importers.histdb import units_saint_gall, units_washington
from htr_ray.errors import UserError

TRANSCRIPTION = """\
270-01 s_2-s_7-s_0-s_pt|L-e-t-t-e-r-s-s_cm|O-r-d-e-r-s|a-n-d|I-n-s_s-t-r-u-c-t-i-o-n-s-s_pt|D-e-c-e-m-b-e-r|1-s_7th
270-02 r-e-m-a-i-s_mi
271-01 s_GW|s_et|s_lb-s_5|s_1st|s_bl-H-e-s_qt-s-s_br-s_sq|s-o-s_qo
271-02 s_xy-a
272-01 n-o-t|h-e-r-e
273-01
"""
LABELS = "270-01-01 s_2-s_7-s_0-s_pt\n270-01-02 L-e-t-t-e-r-s\n271-01-04 s_1st\n"


def _washington(root: Path) -> Path:
    lines = ("270-01", "270-02", "271-01", "271-02", "273-01", "274-01")
    words = ("270-01-01", "270-01-02", "271-01-04")
    return plant(
        root / "washingtondb-v1.0",
        {
            "ground_truth/transcription.txt": TRANSCRIPTION,
            "ground_truth/word_labels.txt": LABELS,
            **{f"data/line_images_normalized/{id}.png": image(n) for n, id in enumerate(lines)},
            **{f"data/word_images_normalized/{id}.png": image(n) for n, id in enumerate(words)},
            "sets/cv1/train.txt": "270-01\n271-02\n",
            "sets/cv1/valid.txt": "270-02\n",
            "sets/cv1/test.txt": "271-01\n272-01\n273-01\n",
            "sets/cv1/keywords.txt": "O-r-d-e-r-s\n",
            "sets/cv2/train.txt": "271-01\n",
            "sets/cv2/valid.txt": "270-01\n",
            "sets/cv2/test.txt": "270-02\n999-01\n",
        },
    ).parent


def test_washington_lines(tmp_path: Path) -> None:
    lines, aside = harvest(units_washington, _washington(tmp_path))
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "270-01": ("270. Letters, Orders and Inſtructions. December 17th", None, "270", "train"),
        "270-02": ("remai-", None, "270", "val"),
        "271-01": ("G.W. & £5 1st (He's); so:", None, "271", "test"),
    }
    assert reasons(aside) == {
        "271-02": "unknown character code",
        "272-01": "file cannot be read",
        "273-01": "row that cannot be read",
        "274-01": "image in no list",
    }
    assert "'s_xy'" in aside["271-02"].detail


def test_washington_long_s_can_be_undone(tmp_path: Path) -> None:
    lines, _ = harvest(units_washington, _washington(tmp_path), normalisation="NFKC")
    assert "Instructions" in (lines["270-01"].line.text or "")


def test_washington_fold(tmp_path: Path) -> None:
    lines, aside = harvest(units_washington, _washington(tmp_path), fold="cv2")
    assert {id: item.split for id, item in lines.items()} == {"271-01": "train", "270-01": "val", "270-02": "test"}
    assert aside["272-01"].reason == "in no split list"
    assert aside["999-01"].reason == "in a split list, but not in the data"
    with pytest.raises(UserError, match="^--input .*no sets/cv9/train.txt; there are sets/cv1, sets/cv2 .*--fold"):
        harvest(units_washington, tmp_path, fold="cv9")


def test_washington_words(tmp_path: Path) -> None:
    """Lists of lines hold for their words."""
    lines, aside = harvest(units_washington, _washington(tmp_path), level="words")
    assert {id: (item.line.text, item.line.page, item.split) for id, item in lines.items()} == {
        "270-01-01": ("270.", "270", "train"),
        "270-01-02": ("Letters", "270", "train"),
        "271-01-04": ("1st", "271", "test"),
    }
    assert set(reasons(aside).values()) == {"in a split list, but not in the data"}


LATIN = """\
csg562-003-01 s-a-n-c-t-i|g-a-l-l-i|et|h-a-b-e-r-e-t-u-r-pt sancti|galli|et|haberetur
csg562-003-02 p-et|s_pt x
csg562-004-01 a-m-e-n-pt amen
csg562-005-01 a-b ab
"""


def _saint_gall(root: Path, name: str = "saintgalldb-v1.0") -> Path:
    ids = ("csg562-003-01", "csg562-003-02", "csg562-004-01", "csg562-005-01")
    return plant(
        root / name,
        {
            "ground_truth/transcription.txt": LATIN.replace("\n", "\r\n"),
            "ground_truth/line_location/csg562-003.svg": "<svg/>",
            **{f"data/line_images_normalized/{id}.png": image(n) for n, id in enumerate(ids)},
            **{f"data/line_images/{id}.png": image(n) for n, id in enumerate(ids)},
            "data/page_images/csg562-003.jpg": image(0, "JPEG"),
            "sets/train.txt": "csg562-003\n",
            "sets/valid.txt": "csg562-004\n",
            "sets/test.txt": "csg562-006\n",
        },
    ).parent


def test_saint_gall(tmp_path: Path) -> None:
    lines, aside = harvest(units_saint_gall, _saint_gall(tmp_path))
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "csg562-003-01": ("sancti galli & haberetur.", None, "csg562-003", "train"),
        "csg562-004-01": ("amen.", None, "csg562-004", "val"),
    }
    assert reasons(aside) == {
        "csg562-003-02": "unknown character code",
        "csg562-005-01": "in no split list",
        "csg562-006": "in a split list, but not in the data",
    }


def test_saint_gall_without_sets(tmp_path: Path) -> None:
    root = _saint_gall(tmp_path)
    for name in ("train", "valid", "test"):
        (root / "saintgalldb-v1.0" / "sets" / f"{name}.txt").unlink()
    lines, _ = harvest(units_saint_gall, root)
    assert {item.split for item in lines.values()} == {None} and len(lines) == 3


def test_incomplete(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ground_truth/word_labels.txt there, which --level words needs"):
        harvest(units_saint_gall, _saint_gall(tmp_path / "a"), level="words")
    plant(tmp_path / "b", {"ground_truth/transcription.txt": LATIN})
    with pytest.raises(UserError, match="no image in data/line_images_normalized"):
        harvest(units_saint_gall, tmp_path / "b")


_SOUND = {"ground_truth/transcription.txt": TRANSCRIPTION.encode(), "sets/cv1/train.txt": b"270-01\n271-02\n"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(_SOUND)).flatmap(lambda name: st.tuples(st.just(name), garbled(_SOUND[name]))))
def test_garbled_files(tmp_path: Path, spoilt: tuple[str, bytes]) -> None:
    plant(_washington(tmp_path) / "washingtondb-v1.0", dict([spoilt]))
    survives(units_washington, tmp_path)
