"""Importer ``cvl``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import garbled, harvest, image, plant, reasons, survives

from htr_ray.corpus.importers.cvl import mend, units
from htr_ray.errors import UserError

_SPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2010-03-19"


def _xml(words: dict[str, str], declared: str = "UTF-8", written: str = "utf-8") -> bytes:
    regions = "".join(f'<AttrRegion attrType="1" id="{id}" text="{text}"/>' for id, text in words.items())
    text = (
        f'<?xml version="1.0" encoding="{declared}"?>\n<PcGts xmlns="{_SPACE}"><Page imageFilename="0001-6.tif">'
        f'<AttrRegion attrType="3" id="0001-6"><AttrRegion attrType="2" id="0001-6-0">{regions}</AttrRegion>'
        '<AttrRegion attrType="1" id="odd" text="x"/><AttrRegion attrType="1" id="0001-6-0-9"/></AttrRegion>'
        "</Page></PcGts>"
    )
    return text.encode(written)


def _tree(root: Path) -> Path:
    words = ("0001-6-0-0-Werd", "0001-6-0-1-für", "0001-6-0-10-Mail-Box", "0001-6-0-2-Zeit", "0001-6-1-0-")
    return plant(
        root / "cvl-database-1-1",
        {
            "readme.txt": b"\xfc",
            **{f"trainset/words/0001/{name}.tif": image(n, "TIFF") for n, name in enumerate(words)},
            "testset/words/0052/0052-1-0-0-Imagine.TIF": image(9, "TIFF"),
            "testset/words/0052/Thumbs.png": image(),
            "trainset/lines/0001/0001-6-0.tif": image(11, "TIFF"),
            "trainset/lines/0001/0001-6-7.tif": image(12, "TIFF"),
            "testset/lines/0052/0052-1-0.tif": image(13, "TIFF"),
            "trainset/pages/0001-6.tif": image(14, "TIFF"),
        },
    ).parent


def test_words(tmp_path: Path) -> None:
    lines, aside = harvest(units, _tree(tmp_path), level="words")
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "0001-6-0-0": ("Werd", "0001", "0001-6", "train"),
        "0001-6-0-1": ("für", "0001", "0001-6", "train"),
        "0001-6-0-2": ("Zeit", "0001", "0001-6", "train"),
        "0001-6-0-10": ("Mail-Box", "0001", "0001-6", "train"),
        "0052-1-0-0": ("Imagine", "0052", "0052-1", "test"),
    }
    name = "cvl-database-1-1/testset/words/0052/Thumbs.png"
    assert reasons(aside) == {"0001-6-1-0": "empty text", name: "file name that cannot be read"}


def test_lines_from_the_names_of_words(tmp_path: Path) -> None:
    lines, aside = harvest(units, _tree(tmp_path))
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "0001-6-0": ("Werd für Zeit Mail-Box", "0001", "0001-6", "train"),
        "0052-1-0": ("Imagine", "0052", "0052-1", "test"),
    }
    assert reasons(aside) == {"0001-6-7": "image without transcription"}


@pytest.mark.parametrize(
    ("declared", "written"),
    [("UTF-8", "utf-8"), ("UTF-16", "utf-16"), ("UTF-16", "latin-1"), ("UTF-16", "utf-8"), ("UTF-8", "latin-1")],
)
@pytest.mark.parametrize("text", ["für", "fr"])
def test_lines_from_xml(tmp_path: Path, declared: str, written: str, text: str) -> None:
    """The XML has words that have no image, but not always their umlauts."""
    words = {"0001-6-0-0": "Werd", "0001-6-0-1": text, "0001-6-0-2": "eine", "0001-6-0-11": "Übel"}
    xml = _xml(words, declared, written)
    plant(_tree(tmp_path) / "cvl-database-1-1", {"trainset/xml/0001-6_attributes.xml": xml})
    lines, _ = harvest(units, tmp_path)
    assert lines["0001-6-0"].line.text == "Werd für eine Übel"
    assert lines["0052-1-0"].line.text == "Imagine"


def test_broken_xml(tmp_path: Path) -> None:
    """Words fill in; what has neither is set aside with the reason."""
    plant(_tree(tmp_path), {"cvl-database-1-1/trainset/xml/0001-6_attributes.xml": _xml({})[:200]})
    lines, aside = harvest(units, tmp_path)
    assert lines["0001-6-0"].line.text == "Werd für Zeit Mail-Box"
    assert reasons(aside) == {"0001-6-7": "broken XML"}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp850"])
@pytest.mark.parametrize("level", ["words", "lines"])
def test_names_as_archivers_left_them(tmp_path: Path, encoding: str, level: str) -> None:
    """On Linux, a name is any bytes."""
    folder = _tree(tmp_path) / "cvl-database-1-1" / "trainset" / "words" / "0001"
    for text in ("schön", "Maß"):
        name = f"0001-7-0-{len(text)}-{text}.tif".encode(encoding)
        try:
            (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(image(5, "TIFF"))
        except OSError:
            pytest.skip("this file system has names in UTF-8 only")
    plant(folder.parent.parent, {"lines/0001/0001-7-0.tif": image(6, "TIFF")})
    lines, _ = harvest(units, tmp_path, level=level)
    if level == "lines":
        assert lines["0001-7-0"].line.text == "Maß schön"
    else:
        assert {lines[f"0001-7-0-{n}"].line.text for n in (3, 5)} == {"Maß", "schön"}
        assert lines["0001-6-0-0"].line.text == "Werd"


@given(st.from_regex(r"([äöüßÄÖÜ]?[A-Za-z]+)*", fullmatch=True), st.sampled_from(["utf-8", "cp1252", "cp850"]))
def test_mend_what_was_german(text: str, encoding: str) -> None:
    """Never two umlauts in a row: in bytes, a few such are UTF-8 of something else."""
    as_listed = text.encode(encoding).decode("utf-8", "surrogateescape")
    assert mend(as_listed) == text


@given(st.text("AabzäöüßÄÖÜ"))
def test_mend_utf8_taken_for_windows(text: str) -> None:
    assert mend(text.encode().decode("cp1252")) == text


@pytest.mark.parametrize(("level", "example"), [("lines", "trainset/lines"), ("words", "0-Imagine.tif")])
def test_nothing_there(tmp_path: Path, level: str, example: str) -> None:
    plant(tmp_path, {"trainset/pages/0001-1.tif": image(0, "TIFF")})
    with pytest.raises(UserError, match=f"^--input {tmp_path}: no image of {level} such as .*{example}"):
        harvest(units, tmp_path, level=level)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbled(_xml({"0001-6-0-0": "Werd", "0001-6-0-1": "für"})))
def test_garbled_xml(tmp_path: Path, spoilt: bytes) -> None:
    plant(_tree(tmp_path), {"cvl-database-1-1/trainset/xml/0001-6_attributes.xml": spoilt})
    survives(units, tmp_path)
