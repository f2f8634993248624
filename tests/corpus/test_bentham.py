"""Importer ``bentham``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from trees import garbled, harvest, image, plant, reasons, survives

from htr_ray.corpus.importers.bentham import units
from htr_ray.errors import UserError

GT = "BenthamDatasetR0-GT"
PARTITIONS: dict[str, bytes | str] = {
    f"{GT}/Partitions/TrainLines.lst": "002_080_001_01_01\n002_080_001_02_01\n",
    f"{GT}/Partitions/ValidationLines.lst": "116_649_001_03_24\n",
    f"{GT}/Partitions/TestLines.lst": "071_001_001_01_01\n071_001_001_01_09\n",
    f"{GT}/Partitions/Train.lst": "002_080_001\n",
    f"{GT}/Partitions/Validation.lst": "116_649_001\n",
    f"{GT}/Partitions/Test.lst": "071_001_001\n",
}
TEXTS = {
    "002_080_001_01_01": "Of the <gap/> & Evidence \n\n",
    "002_080_001_02_01": "36",
    "116_649_001_03_24": "£ 5 .",
    "071_001_001_01_01": "consigned",
    "099_001_001_01_01": "in no list",
    "002_080_001_05_05": "no image",
}


def _lines(root: Path) -> Path:
    images = [id for id in TEXTS if id != "002_080_001_05_05"] + ["071_001_001_01_09"]
    return plant(
        root,
        {
            **PARTITIONS,
            **{f"{GT}/Transcriptions/{id}.txt": text for id, text in TEXTS.items()},
            **{f"{GT}/Images/Lines/{id}.png": image(n) for n, id in enumerate(images)},
            f"{GT}/PAGE/002_080_001.xml": b"",
        },
    )


@pytest.mark.parametrize("inside", [False, True])
def test_lines(tmp_path: Path, inside: bool) -> None:
    _lines(tmp_path)
    lines, aside = harvest(units, tmp_path / GT if inside else tmp_path)
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "002_080_001_01_01": ("Of the <gap/> & Evidence", None, "002_080_001", "train"),
        "002_080_001_02_01": ("36", None, "002_080_001", "train"),
        "116_649_001_03_24": ("£ 5 .", None, "116_649_001", "val"),
        "071_001_001_01_01": ("consigned", None, "071_001_001", "test"),
    }
    assert reasons(aside) == {
        "071_001_001_01_09": "image without transcription",
        "099_001_001_01_01": "in no split list",
        "002_080_001_05_05": "in no split list",
    }


def test_lists_elsewhere(tmp_path: Path) -> None:
    _lines(tmp_path / "data")
    plant(tmp_path / "lists", {"TrainLines.lst": "002_080_001\n", "Train.lst": "116_649_001", "TestLines.lst": "071"})
    lines, aside = harvest(units, tmp_path / "data", split_files=str(tmp_path / "lists"))
    assert {id: item.split for id, item in lines.items()} == {
        "002_080_001_01_01": "train",
        "002_080_001_02_01": "train",
        "071_001_001_01_01": "test",
    }
    assert aside["002_080_001_05_05"].reason == "text without an image"


def test_without_lists(tmp_path: Path) -> None:
    for path in _lines(tmp_path).glob(f"{GT}/Partitions/*"):
        path.unlink()
    lines, aside = harvest(units, tmp_path)
    assert len(lines) == 5 and {item.split for item in lines.values()} == {None}
    assert reasons(aside)["002_080_001_05_05"] == "text without an image"


def _xml(image: str, text: str) -> str:
    """PAGE 2010, with its points as elements, and words within the lines."""

    def coords(*box: int) -> str:
        left, top, right, bottom = box
        points = ((left, top), (right, top), (right, bottom), (left, bottom))
        return "<Coords>" + "".join(f'<Point x="{x}" y="{y}"/>' for x, y in points) + "</Coords>"

    return f"""<?xml version='1.0'?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2010-03-19"><Metadata><Creator/></Metadata>
<Page imageWidth="200" imageFilename="{image}.tif" imageHeight="100">
<TextRegion type="paragraph" id="r1">{coords(5, 5, 190, 60)}
<TextLine id="r203">{coords(10, 10, 180, 40)}
<Word id="r1000">{coords(10, 10, 60, 40)}<TextEquiv><PlainText></PlainText><Unicode>word</Unicode></TextEquiv></Word>
<TextEquiv><PlainText></PlainText><Unicode>{text}</Unicode></TextEquiv></TextLine>
</TextRegion></Page></PcGts>"""


def _pages(root: Path) -> Path:
    pages = ("002_080_001", "116_649_001", "071_001_001", "099_001_001", "071_002_001")
    return plant(
        root,
        {
            **PARTITIONS,
            f"{GT}/Partitions/TestLines.lst": "071_001_001_01_01\n071_001_001_01_09\n071_002_001_01_01\n",
            **{f"{GT}/PAGE/{page}.xml": _xml(page, f"Text of {page}") for page in pages},
            **{
                f"BenthamDatasetR0-Images/Images/Pages/{page}.jpg": image(n, "JPEG", 200, 100)
                for n, page in enumerate(pages[:-1])
            },
        },
    )


@pytest.mark.parametrize("elsewhere", [False, True])
def test_pages(tmp_path: Path, elsewhere: bool) -> None:
    _pages(tmp_path)
    images = str(tmp_path / "BenthamDatasetR0-Images")
    lines, aside = harvest(units, tmp_path / GT, images=images) if elsewhere else harvest(units, tmp_path)
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "002_080_001/r203": ("Text of 002_080_001", None, "002_080_001", "train"),
        "116_649_001/r203": ("Text of 116_649_001", None, "116_649_001", "val"),
        "071_001_001/r203": ("Text of 071_001_001", None, "071_001_001", "test"),
    }
    assert reasons(aside) == {"099_001_001": "in no split list", "071_002_001": "file cannot be read"}


def test_page_lists(tmp_path: Path) -> None:
    _pages(tmp_path)
    for path in tmp_path.glob(f"{GT}/Partitions/*Lines.lst"):
        path.unlink()
    lines, _ = harvest(units, tmp_path)
    assert sorted(item.split or "" for item in lines.values()) == ["test", "train", "val"]


def test_nothing_there(tmp_path: Path) -> None:
    plant(tmp_path, {"Images/Lines/x.png": image()})
    with pytest.raises(UserError, match=r"^--input .*: neither line images with their texts .* nor pages \(PAGE/"):
        harvest(units, tmp_path)
    _pages(tmp_path)
    with pytest.raises(UserError, match="^--images .*nowhere: no such folder"):
        harvest(units, tmp_path, images=str(tmp_path / "nowhere"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbled(b"002_080_001_01_01\n002_080_001_02_01\n"))
def test_garbled_lists(tmp_path: Path, spoilt: bytes) -> None:
    for build in (_lines, _pages):
        plant(build(tmp_path / build.__name__), {f"{GT}/Partitions/TrainLines.lst": spoilt})
        survives(units, tmp_path / build.__name__)
