"""Importer ``rimes``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import garbled, harvest, image, plant, reasons, survives

from htr_ray.corpus.importers.rimes import units
from htr_ray.errors import UserError

# --- lines, as Teklia hands them on -----------------------------------------------------------------------


def _teklia(root: Path) -> Path:
    return plant(
        root / "RIMES-2011-Lines",
        {
            "Images/train2011-0_000001.jpg": image(1, "JPEG"),
            "Images/train2011-1_000001.jpg": image(2, "JPEG"),
            "Images/eval2011-0_000001.jpg": image(3, "JPEG"),
            "Images/eval2011-0_000002.jpg": image(4, "JPEG"),
            "Images/eval2011-0_000003.jpg": image(5, "JPEG"),
            "Transcriptions/train2011-0_000001.txt": "Je vous écris\n",
            "Transcriptions/train2011-1_000001.txt": "afin d'obtenir",
            "Transcriptions/eval2011-0_000001.txt": "un numéro",
            "Transcriptions/eval2011-0_000002.txt": "sans liste",
            "Transcriptions/eval2011-0_000004.txt": "sans image",
            "Sets/TrainLines.txt": "train2011-0_000001\ntrain2011-9_000001\n",
            "Sets/ValidationLines.txt": "train2011-1_000001\n",
            "Sets/TestLines.txt": "eval2011-0_000001\r\neval2011-0_000003\neval2011-0_000004",
        },
    ).parent


def test_lines(tmp_path: Path) -> None:
    lines, aside = harvest(units, _teklia(tmp_path))
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "train2011-0_000001": ("Je vous écris", None, "train2011-0", "train"),
        "train2011-1_000001": ("afin d'obtenir", None, "train2011-1", "val"),
        "eval2011-0_000001": ("un numéro", None, "eval2011-0", "test"),
    }
    assert reasons(aside) == {
        "eval2011-0_000002": "in no split list",
        "eval2011-0_000003": "image without transcription",
        "eval2011-0_000004": "text without an image",
        "train2011-9_000001": "in a split list, but not in the data",
    }


# --- pages, as A2iA published them ------------------------------------------------------------------------

TRAIN = """\
<?xml version="1.0" encoding="UTF-8"?>
<DocumentList>
 <SinglePage FileName="images/train2011-0.png" Index="0">
  <Paragraph Value="Après mon déménagement,\\nj'ai"><Line Bottom="20" Left="-10" Right="40" Top="-3" \
Value="Après mon d&apos;éménagement" /><Line Bottom="40" Left="5" Right="999" Top="20" \
Value="¤entendre¤ R&amp;amp;D &amp;lt;60 €" /><Line Bottom="40" Left="5" Right="30" Top="20" Value=" " />\
<Line Bottom="90" Left="70" Right="80" Top="70" Value="ailleurs" /><Line Bottom="x" Left="1" Value="?" /></Paragraph>
 </SinglePage>
 <SinglePage FileName="images\\train2011-1.png"><Paragraph><Line Bottom="9" Left="0" Right="9" Top="0" Value="a"/>\
</Paragraph></SinglePage>
</DocumentList>
"""
EVAL = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<DocumentList><SinglePage FileName="images/eval2011-0.png"><Paragraph>
<Line Bottom="12" Left="0" Right="30" Top="0" Value="né"/></Paragraph></SinglePage></DocumentList>
"""


def _page() -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.arange(60 * 50, dtype=np.uint32).astype(np.uint8).reshape(50, 60)).save(sink, "PNG")
    return sink.getvalue()


def _pages(root: Path) -> Path:
    return plant(
        root,
        {
            "training_2011.xml": TRAIN,
            "eval_2011_annotated.xml": EVAL.encode("latin-1"),
            "images_gray/train2011-0.png": _page(),
            "images_gray/eval2011-0.png": image(7),
            "images_gray/eval2011-1.png": image(8),
        },
    )


def test_pages(tmp_path: Path) -> None:
    lines, aside = harvest(units, _pages(tmp_path))
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "train2011-0-00": ("Après mon d'éménagement", None, "train2011-0", "train"),
        "train2011-0-01": ("entendre R&D <60 €", None, "train2011-0", "train"),
        "eval2011-0-00": ("né", None, "eval2011-0", "test"),
    }
    assert reasons(aside) == {
        "train2011-0-02": "empty text",
        "train2011-0-03": "box outside the page",
        "train2011-0-04": "box that cannot be read",
        "train2011-1-00": "file cannot be read",
        "eval2011-1": "image in no list",
    }
    assert "70,70 to 80,90 on 60x50 pixels" in aside["train2011-0-03"].detail
    page = np.asarray(Image.open(io.BytesIO(_page())))
    cut = [np.asarray(Image.open(io.BytesIO(lines[f"train2011-0-0{n}"].line.image))) for n in (0, 1)]
    np.testing.assert_array_equal(cut[0], page[:20, :40])
    np.testing.assert_array_equal(cut[1], page[20:40, 5:])


def test_pages_scaled(tmp_path: Path) -> None:
    lines, _ = harvest(units, _pages(tmp_path), height=10)
    assert {(item.line.width, item.line.height) for item in lines.values()} == {(20, 10), (28, 10), (25, 10)}


def test_patched_xml_wins(tmp_path: Path) -> None:
    plant(_pages(tmp_path), {"training_2011.patched.xml": TRAIN.replace('Value=" "', 'Value="sincères salutations."')})
    lines, _ = harvest(units, tmp_path)
    assert lines["train2011-0-02"].line.text == "sincères salutations."


def test_damaged_page_image(tmp_path: Path) -> None:
    plant(_pages(tmp_path), {"images_gray/train2011-0.png": _page()[:100]})
    _, aside = harvest(units, tmp_path)
    assert [aside[f"train2011-0-0{n}"].reason for n in range(5)] == ["corrupt image"] * 5


def test_damaged_xml(tmp_path: Path) -> None:
    plant(_pages(tmp_path), {"training_2011.xml": TRAIN[:-30]})
    with pytest.raises(UserError, match=f"^--input {tmp_path}/training_2011.xml: broken XML .*download it again"):
        harvest(units, tmp_path)


# --- words ------------------------------------------------------------------------------------------------

TRAIN_WORDS = "\ufefflot_1/lot_1-1/1.tiff été\r\nlot_1/lot_1-1/2.tiff l'\r\nlot_1/lot_1-1/3.tiff\r\nlot_9/x.tiff ¤y\r\n"


def _words(root: Path) -> Path:
    return plant(
        root,
        {
            "groundtruth_training_icdar2011.txt": TRAIN_WORDS,
            "ground_truth_validation_icdar2011.txt": "lot_1/lot_1-1/1.tiff Objet\n",
            "grount_truth_test_icdar2011.txt": "lot_1/lot_1-1/1.tiff Madame\nlot_1/lot_1-1/2.tiff Monsieur\n",
            "trainingsnippets_icdar/training_WR/lot_1/lot_1-1/1.tiff": image(1, "TIFF"),
            "trainingsnippets_icdar/training_WR/lot_1/lot_1-1/2.TIF": image(2, "TIFF"),
            "trainingsnippets_icdar/training_WR/lot_1/lot_1-1/4.tiff": image(4, "TIFF"),
            "validationsnippets_icdar/testdataset_ICDAR/lot_1/lot_1-1/1.tiff": image(5, "TIFF"),
            "data_test/lot_1/lot_1-1/1.tiff": image(6, "TIFF"),
        },
    )


def _png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_words(tmp_path: Path) -> None:
    from htr_ray.corpus.importers.options import ImportOptions
    from htr_ray.corpus.schema import Imported, SetAside

    found = list(units(str(_words(tmp_path)), ImportOptions(level="words")))
    items = [item for unit in found for item in ([unit] if isinstance(unit, SetAside) else unit.lines())]
    lines = [item for item in items if isinstance(item, Imported)]
    # The same names, in each set for another image.
    assert [(i.line.id, i.line.text, i.split) for i in lines] == [
        ("lot_1/lot_1-1/1", "Objet", "val"),
        ("lot_1/lot_1-1/1", "été", "train"),
        ("lot_1/lot_1-1/2", "l'", "train"),
        ("lot_1/lot_1-1/1", "Madame", "test"),
    ]
    for item, seed in zip(lines, (5, 1, 2, 6), strict=True):
        np.testing.assert_array_equal(_png(item.line.image), _png(image(seed)))
    aside = [(item.id, item.reason) for item in items if isinstance(item, SetAside)]
    assert sorted(aside) == [
        ("lot_1/lot_1-1/2", "file cannot be read"),
        ("lot_1/lot_1-1/3", "row that cannot be read"),
        ("lot_9/x", "file cannot be read"),
        ("trainingsnippets_icdar/training_WR/lot_1/lot_1-1/4.tiff", "image in no list"),
    ]


def test_words_of_the_copy_with_a_validation_folder(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "orig/groundtruth_training_icdar2011.txt": "1.tiff a\n",
            "orig/ground_truth_validation_icdar2011.txt": "1.tiff b\n",
            "orig/ground_truth_test_icdar2011.txt": "1.tiff c\n",
            "orig/training_WR/1.tiff": image(1, "TIFF"),
            "orig/valdataset_ICDAR/1.tiff": image(2, "TIFF", width=31),
            "orig/testdataset_ICDAR/1.tiff": image(3, "TIFF", width=32),
        },
    )
    from htr_ray.corpus.importers.options import ImportOptions

    (unit,) = units(str(tmp_path), ImportOptions(level="words"))
    found = {(i.line.width, i.line.text, i.split) for i in unit.lines()}  # type: ignore[union-attr]
    assert found == {(30, "a", "train"), (31, "b", "val"), (32, "c", "test")}


def test_words_of_which_one_cannot_tell(tmp_path: Path) -> None:
    images: dict[str, bytes | str] = {f"{folder}/lot/1.tiff": image(0, "TIFF") for folder in ("a", "b")}
    plant(tmp_path, {"groundtruth_training_icdar2011.txt": "lot/1.tiff x\n", **images})
    lines, aside = harvest(units, tmp_path, level="words")
    assert not lines and reasons(aside) == {"lot/1": "several images of that name"}


# --- all --------------------------------------------------------------------------------------------------


def test_wrong_level(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are lists of words: use --level words"):
        harvest(units, _words(tmp_path / "words"))
    with pytest.raises(UserError, match="no list of words such as .*--level lines"):
        harvest(units, _pages(tmp_path / "pages"), level="words")
    plant(tmp_path / "other", {"x.png": image()})
    with pytest.raises(UserError, match="neither Transcriptions/.* nor training_2011.xml"):
        harvest(units, tmp_path / "other")


_SOUND = {
    "training_2011.xml": TRAIN.encode(),
    "groundtruth_training_icdar2011.txt": TRAIN_WORDS.encode(),
    "Sets/TrainLines.txt": b"train2011-0_000001\n",
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(_SOUND)).flatmap(lambda name: st.tuples(st.just(name), garbled(_SOUND[name]))))
def test_garbled_files(tmp_path: Path, spoilt: tuple[str, bytes]) -> None:
    name, data = spoilt
    build = {"t": _pages, "g": _words, "S": _teklia}[name[0]]
    root = build(tmp_path / name[0])
    plant(root / "RIMES-2011-Lines" if name[0] == "S" else root, {name: data})
    survives(units, root, level="words" if name[0] == "g" else "lines")
