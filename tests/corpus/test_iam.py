"""Importer ``iam``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import garbled, harvest, image, plant, reasons, survives

from htr_ray.corpus.importers.iam import units
from htr_ray.errors import UserError

LINES = """\
#--- lines.txt ---------------------------------------------------------------#
#
# format: a01-000u-00 ok 154 19 408 746 1663 91 A|MOVE|to|stop|Mr.|Gaitskell|from
#
a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to|stop|Mr.|Gaitskell|from
a01-000u-01 err 156 19 395 932 1850 105 nominating|any|more|Labour|life|Peers|.
a01-003-00 ok 182 20 -1 -1 -1 -1 "|Though|they|may|"|&|so
r06-022-03 ok 180 10 1 2 3 4 broken|image
"""
FORMS = """\
#--- forms.txt
# format: a01-000u 000 2 prt 7 5 52 36
a01-000u 000 2 prt 7 5 52 36
a01-003 002 2 all 5 5 45 45
r06-022 551 3 prt 8 7 60 50
"""
WORDS = """\
# format: a01-000u-00-00 ok 154 1 408 768 27 51 AT A
a01-000u-00-00 ok 154 408 768 27 51 AT A
a01-000u-00-01 ok 154 1 507 766 213 48 NN MOVE
a01-000u-01-00 er 156 395 932 441 100 VBG nominating
a01-003-00-00 ok 182 1 2 3 4 " "
a01-117-05-02 err 184 -1 -1 -1 -1 VBZ gone
c04-170-04-06 ok 180 1 2 3 4 NP B B C
"""
XML_000U = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE form SYSTEM "form-metadata.dtd">
<form created="2002-09-26" id="a01-000u" writer-id="000" width="2479" height="3542">
  <machine-printed-part><machine-print-line text="A MOVE to stop"/></machine-printed-part>
  <handwritten-part>
    <line id="a01-000u-00" segmentation="ok" text="A MOVE to stop Mr. Gaitskell from">
      <word id="a01-000u-00-00" tag="AT" text="A"><cmp x="408" y="768" width="27" height="51"/></word>
      <word id="a01-000u-00-01" tag="NN" text="MOVE"/>
    </line>
    <line id="a01-000u-01" segmentation="err" text="nominating any more Labour life Peers.">
      <word id="a01-000u-01-00" tag="VBG" text="nominating"/>
    </line>
  </handwritten-part>
</form>
"""
XML_003 = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<form id="a01-003" writer-id="002"><handwritten-part>
<line id="a01-003-00" segmentation="ok" text="&amp;quot;Though they may&amp;quot; &amp;amp; so"/>
</handwritten-part></form>
"""


def _line_images() -> dict[str, bytes | str]:
    return {
        "lines/a01/a01-000u/a01-000u-00.png": image(1),
        "lines/a01/a01-000u/a01-000u-01.png": image(2),
        "lines/a01/a01-003/a01-003-00.PNG": image(3),
        "lines/r06/r06-022/r06-022-03.png": b"",
    }


def test_lines(tmp_path: Path) -> None:
    plant(tmp_path, {"ascii/lines.txt": LINES, "ascii/forms.txt": FORMS, **_line_images()})
    lines, aside = harvest(units, tmp_path)
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "a01-000u-00": ("A MOVE to stop Mr. Gaitskell from", "000", "a01-000u", None),
        "a01-000u-01": ("nominating any more Labour life Peers .", "000", "a01-000u", None),
        "a01-003-00": ('" Though they may " & so', "002", "a01-003", None),
    }
    assert lines["a01-000u-00"].line.image == image(1)
    assert reasons(aside) == {"r06-022-03": "empty file"}


@pytest.mark.parametrize("place", ["lines.txt", "lines/lines.txt", "unpacked/ascii/LINES.TXT"])
def test_index_elsewhere_with_bom_and_crlf(tmp_path: Path, place: str) -> None:
    plant(tmp_path, {place: "\ufeff" + LINES.replace("\n", "\r\n"), **_line_images()})
    lines, aside = harvest(units, tmp_path)
    assert (len(lines), len(aside)) == (3, 1)
    assert {item.line.writer for item in lines.values()} == {None}


def test_words(tmp_path: Path) -> None:
    ids = ["a01-000u-00-00", "a01-000u-00-01", "a01-000u-01-00", "a01-003-00-00", "c04-170-04-06"]
    images: dict[str, bytes | str] = {
        f"words/{id[:3]}/{id.rsplit('-', 2)[0]}/{id}.png": image(n) for n, id in enumerate(ids)
    }
    images["words/a01/a01-117/a01-117-05-02.png"] = b""
    images["sentences/a01/a01-000u/a01-000u-s00-00.png"] = image()
    plant(tmp_path, {"ascii/words.txt": WORDS, "ascii/forms.txt": FORMS, **images, **_line_images()})
    lines, aside = harvest(units, tmp_path, level="words")
    assert {id: (item.line.text, item.line.writer, item.line.page) for id, item in lines.items()} == {
        "a01-000u-00-00": ("A", "000", "a01-000u"),
        "a01-000u-00-01": ("MOVE", "000", "a01-000u"),
        "a01-000u-01-00": ("nominating", "000", "a01-000u"),
        "a01-003-00-00": ('"', "002", "a01-003"),
        "c04-170-04-06": ("B B C", None, "c04-170"),
    }
    assert reasons(aside) == {"a01-117-05-02": "empty file"}
    lines, aside = harvest(units, tmp_path, level="words", skip_err=True)
    assert len(lines) == 4
    assert reasons(aside) == dict.fromkeys(("a01-000u-01-00", "a01-117-05-02"), "marked as badly segmented")


def test_xml_has_the_natural_spacing(tmp_path: Path) -> None:
    xml: dict[str, bytes | str] = {"xml/a01-000u.xml": XML_000U, "xml/a01-003.xml": XML_003}
    plant(tmp_path, {"ascii/lines.txt": LINES, **xml, **_line_images()})
    lines, aside = harvest(units, tmp_path)
    assert {id: (item.line.text, item.line.writer) for id, item in lines.items()} == {
        "a01-000u-00": ("A MOVE to stop Mr. Gaitskell from", "000"),
        "a01-000u-01": ("nominating any more Labour life Peers.", "000"),
        "a01-003-00": ('"Though they may" & so', "002"),
    }
    # Two ways of writing are not mixed.
    assert reasons(aside) == {"r06-022-03": "form without XML"}
    lines, aside = harvest(units, tmp_path, skip_err=True)
    assert set(lines) == {"a01-000u-00", "a01-003-00"}
    assert aside["a01-000u-01"].reason == "marked as badly segmented"


def test_xml_alone(tmp_path: Path) -> None:
    files = _line_images()
    del files["lines/a01/a01-000u/a01-000u-01.png"]
    plant(tmp_path, {"a01-000u.xml": XML_000U, "a01-003.xml": XML_003[:-40], **files})
    lines, aside = harvest(units, tmp_path)
    assert {id: item.line.text for id, item in lines.items()} == {"a01-000u-00": "A MOVE to stop Mr. Gaitskell from"}
    assert reasons(aside) == {
        "a01-000u-01": "file cannot be read",
        "a01-003-00": "broken XML",
        "r06-022-03": "form without XML",
    }
    plant(tmp_path, {"lines/a01/a01-000u/a01-000u-01.png": image(2)})
    lines, aside = harvest(units, tmp_path, skip_err=True)
    assert set(lines) == {"a01-000u-00"} and aside["a01-000u-01"].reason == "marked as badly segmented"


def test_words_with_xml_for_the_writers(tmp_path: Path) -> None:
    name = "words/a01/a01-000u/a01-000u-00-01.png"
    plant(tmp_path, {"words.txt": WORDS, "xml/a01-000u.xml": XML_000U, name: image()})
    lines, _ = harvest(units, tmp_path, level="words")
    assert {(item.line.text, item.line.writer) for item in lines.values()} == {("MOVE", "000")}
    (tmp_path / "words.txt").unlink()
    lines, aside = harvest(units, tmp_path, level="words")
    assert {(item.line.text, item.line.writer) for item in lines.values()} == {("MOVE", "000")}
    assert reasons(aside) == dict.fromkeys(("a01-000u-00-00", "a01-000u-01-00"), "file cannot be read")


LARGE = {
    "trainset.txt": "a01-000u-00 \n",
    "validationset1.txt": "a01-000u-01\r\n",
    "validationset2.txt": "p01-147-00\n",
    "testset.txt": "a01-003-00",
    "README.txt": "see the paper",
}
AACHEN = {"train.uttlist": "a01-000u\n", "validation.uttlist": "a01-003", "test.uttlist": "p01-147\n"}
LISTS = {"tr.lst": "# ids\na01/a01-000u/a01-000u-00.png\n", "va1.lst": "a01-000u-01", "te.lst": "a01-003"}


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        (LARGE, {"a01-000u-00": "train", "a01-000u-01": "val", "a01-003-00": "test"}),
        (AACHEN, {"a01-000u-00": "train", "a01-000u-01": "train", "a01-003-00": "val"}),
        (LISTS, {"a01-000u-00": "train", "a01-000u-01": "val", "a01-003-00": "test"}),
    ],
)
@pytest.mark.parametrize("with_xml", [False, True])
def test_split_lists(tmp_path: Path, lists: dict[str, bytes | str], splits: dict[str, str], with_xml: bool) -> None:
    plant(tmp_path / "lists", lists)
    plant(tmp_path / "iam", {"ascii/lines.txt": LINES, **_line_images()})
    if with_xml:
        plant(tmp_path / "iam", {"xml/a01-000u.xml": XML_000U, "xml/a01-003.xml": XML_003})
    lines, aside = harvest(units, tmp_path / "iam", split_files=str(tmp_path / "lists"))
    assert {id: item.split for id, item in lines.items()} == splits
    absent = {id: why for id, why in reasons(aside).items() if id.startswith("p01")}
    assert set(absent.values()) <= {"in a split list, but not in the data"}
    assert bool(absent) == any("p01" in text for text in map(str, lists.values()))
    assert aside["r06-022-03"].reason == "in no split list"


def test_split_lists_for_words(tmp_path: Path) -> None:
    plant(tmp_path / "lists", LARGE)
    names = ("a01-000u/a01-000u-00-00", "a01-000u/a01-000u-01-00", "a01-003/a01-003-00-00")
    plant(tmp_path / "iam", {"words.txt": WORDS, **{f"words/a01/{name}.png": image() for name in names}})
    lines, _ = harvest(units, tmp_path / "iam", level="words", split_files=str(tmp_path / "lists"))
    assert {id: item.split for id, item in lines.items()} == {
        "a01-000u-00-00": "train",
        "a01-000u-01-00": "val",
        "a01-003-00-00": "test",
    }


def test_one_file_of_splits(tmp_path: Path) -> None:
    table = plant(tmp_path, {"aachen.csv": "a01-000u,train\na01-003,Test\n"}) / "aachen.csv"
    plant(tmp_path, {"lines.txt": LINES, **_line_images()})
    lines, _ = harvest(units, tmp_path, split_files=str(table))
    assert {item.split for item in lines.values()} == {"train", "test"}
    table = plant(tmp_path, {"testset.txt": "a01-003\n"}) / "testset.txt"
    lines, aside = harvest(units, tmp_path, split_files=str(table))
    assert {id: item.split for id, item in lines.items()} == {"a01-003-00": "test"}
    assert list(reasons(aside).values()).count("in no split list") == 3


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({}, "not found"),
        ({"notes.txt": "x"}, "no list of ids there; expected names such as trainset.txt"),
        ({"train.txt": "a01-000u", "test.txt": "a01-000u"}, "a01-000u is in (train|test) here and in"),
        ({"a/train.txt": "a", "b/train.txt": "b"}, "is a list of train too"),
        ({"train.txt": "\n# nothing\n"}, "no id in it"),
    ],
)
def test_wrong_split_lists(tmp_path: Path, lists: dict[str, bytes | str], message: str) -> None:
    plant(tmp_path / "lists", lists)
    plant(tmp_path / "iam", {"lines.txt": LINES, **_line_images()})
    with pytest.raises(UserError, match=f"^--split-files .*{message}"):
        harvest(units, tmp_path / "iam", split_files=str(tmp_path / "lists"))
    one = plant(tmp_path, {"mine": "a01-000u 1\n"}) / "mine"
    with pytest.raises(UserError, match="mine: neither the name of the file nor its row 'a01-000u 1' says"):
        harvest(units, tmp_path / "iam", split_files=str(one))


def test_what_index_and_images_lack(tmp_path: Path) -> None:
    files = _line_images()
    files["lines/b01/b01-001/b01-001-00.png"] = image()
    files["__MACOSX/lines/a01/._a01-000u-00.png"] = b"junk"
    del files["lines/a01/a01-003/a01-003-00.PNG"]
    plant(tmp_path, {"lines.txt": LINES + "a01-999-00 ok 1 2\n", **files})
    _, aside = harvest(units, tmp_path)
    assert reasons(aside) == {
        "r06-022-03": "empty file",
        "a01-003-00": "file cannot be read",
        "b01-001-00": "image in no list",
        "lines.txt:9": "row that cannot be read",
    }
    assert "lines/a01/a01-003/a01-003-00.png: not found" in aside["a01-003-00"].detail


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"lines/a01/a01-000u/a01-000u-00.png": b"x"}, r"no lines.txt \(looked for ascii/lines.txt, lines.txt, lines/"),
        ({"ascii/lines.txt": LINES}, "no image of lines such as a01-000u-00.png; unpack lines.tgz"),
    ],
)
def test_incomplete(tmp_path: Path, files: dict[str, bytes | str], message: str) -> None:
    with pytest.raises(UserError, match=f"^--input {plant(tmp_path, files)}: {message}"):
        harvest(units, tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^--input .*nowhere: not found"):
        harvest(units, tmp_path / "nowhere")
    plant(tmp_path, {"file": b""})
    with pytest.raises(UserError, match="^--input .*file: is a file; --format iam wants the folder"):
        harvest(units, tmp_path / "file")


def test_many_forms_make_several_units(tmp_path: Path) -> None:
    ids = [f"a{n:02}-{m:03}-{k:02}" for n in range(5) for m in range(10) for k in range(8)]
    rows = "".join(f"{id} ok 1 2 3 4 5 6 text|{id}\n" for id in ids)
    plant(tmp_path, {"lines.txt": rows, **{f"lines/{id}.png": image() for id in ids}})
    plant(tmp_path, {f"{form}.xml": _form(form) for form in {id[:-3] for id in ids}})
    from htr_ray.corpus.importers.options import ImportOptions

    counts = [len(list(unit.lines())) for unit in units(str(tmp_path), ImportOptions())]  # type: ignore[union-attr]
    assert sum(counts) == len(ids) and len(counts) == 2 and max(counts) < 300


def _form(form: str) -> str:
    lines = "".join(f'<line id="{form}-{k:02}" text="t"/>' for k in range(8))
    return f'<form id="{form}" writer-id="1"><handwritten-part>{lines}</handwritten-part></form>'


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["lines.txt", "ascii/forms.txt", "xml/a01-000u.xml", "lists/trainset.txt", "words.txt"]).flatmap(
        lambda name: st.tuples(st.just(name), garbled(_SOUND[name]))
    )
)
def test_garbled_files(tmp_path: Path, spoilt: tuple[str, bytes]) -> None:
    plant(tmp_path, {**_SOUND, **_line_images(), "words/a01-000u-00-00.png": image(), "lists/testset.txt": "a01-003"})
    plant(tmp_path, dict([spoilt]))
    for level in ("lines", "words"):
        survives(units, tmp_path, level=level)
        survives(units, tmp_path, level=level, split_files=str(tmp_path / "lists"))


_SOUND: dict[str, bytes] = {
    "lines.txt": LINES.encode(),
    "words.txt": WORDS.encode(),
    "ascii/forms.txt": FORMS.encode(),
    "xml/a01-000u.xml": XML_000U.encode(),
    "lists/trainset.txt": b"a01-000u-00\na01-000u-01\n",
}
