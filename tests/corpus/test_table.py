"""Importer ``table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import garbled, harvest, image, plant, reasons, survives

from htr_ray import storage
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.table import units
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]


def _plant(root: Path, name: str, table: bytes | str) -> Path:
    """A table beside images."""
    images: dict[str, bytes | str] = {f"lines/{n}.png": image(n) for n in range(1, 5)}
    return plant(root, {name: table, **images}) / name


def test_csv(tmp_path: Path) -> None:
    absolute = plant(tmp_path / "elsewhere", {"5.jpg": image(5, "JPEG"), "6.jpg": image(6, "JPEG")}) / "5.jpg"
    table = _plant(
        tmp_path,
        "lines.csv",
        "\ufeffimage,text,writer,page,subset\r\n"
        'lines/1.png,"Paris, le ""2"" mai",anna,p1,train\r\n'
        "lines\\2.png,Ma chère amie,,p1,Validation\r\n"
        f"{absolute},x,bert,p2,test\r\n"
        "\r\n"
        "lines/3.png,,bert,,\r\n"
        " ,no image,,,\r\n"
        "lines/4.png,short\r\n"
        "lines/4.png,a,b,c,d,e\r\n"
        "lines/9.png,missing,,,\r\n"
        f"{absolute.with_name('6.jpg').as_uri()},uri,7,,other\r\n",
    )
    lines, aside = harvest(units, table, split_column="subset")
    assert {id: (i.line.text, i.line.writer, i.line.page, i.split) for id, i in lines.items()} == {
        "lines/1": ('Paris, le "2" mai', "anna", "p1", "train"),
        "lines/2": ("Ma chère amie", None, "p1", "val"),
        "5": ("x", "bert", "p2", "test"),
        "6": ("uri", "7", None, None),
    }
    assert lines["lines/1"].line.image == image(1)
    assert reasons(aside) == {
        "lines/3": "empty text",
        "lines.csv:7": "no image name",
        "lines.csv:8": "wrong number of fields",
        "lines.csv:9": "wrong number of fields",
        "lines/9": "file cannot be read",
    }
    assert aside["lines.csv:8"].detail == "row 8: 2 instead of 5"


def test_semicolons_and_other_columns(tmp_path: Path) -> None:
    table = _plant(tmp_path, "x.CSV", 'id;file_name;gt;hand\n7;lines/1.png;"a; b";w\n8;lines/2.png;c, d;w\n')
    options: dict[str, Any] = {"image_column": "file_name", "text_column": "gt", "writer_column": "hand"}
    lines, _ = harvest(units, table, **options)
    assert {id: (i.line.text, i.line.writer) for id, i in lines.items()} == {"7": ("a; b", "w"), "8": ("c, d", "w")}
    lines, _ = harvest(units, table, **options | {"text_column": "none", "writer_column": "none"})
    assert {(item.line.text, item.line.writer) for item in lines.values()} == {(None, None)}


def test_quotes_that_are_not_closed(tmp_path: Path) -> None:
    """A quotation mark that a row forgets swallows the rows to the next one; they are named, and no more of them."""
    rows = 'lines/1.png,"open\nlines/2.png,"two"\nlines/3.png,a"b\nlines/4.png,"last\n'
    lines, aside = harvest(units, _plant(tmp_path, "x.csv", "image,text\n" + rows))
    assert {id: item.line.text for id, item in lines.items()} == {"lines/3": 'a"b'}
    assert reasons(aside) == dict.fromkeys(("x.csv:2", "x.csv:5"), "row that cannot be read")
    assert "(to row 3)" in aside["x.csv:2"].detail


def test_tsv_with_and_without_quotes(tmp_path: Path) -> None:
    """csv's own reader makes ``Hello he said`` of the second."""
    rows = 'lines/1.png\t"He said ""a"""\nlines/2.png\t"Hello" he said\nlines/3.png\t"\nlines/4.png\ta\tb\n'
    lines, aside = harvest(units, _plant(tmp_path, "x.tsv", "image\ttext\n" + rows))
    assert {id: item.line.text for id, item in lines.items()} == {
        "lines/1": 'He said "a"',
        "lines/2": '"Hello" he said',
        "lines/3": '"',
    }
    assert reasons(aside) == {"x.tsv:5": "wrong number of fields"}


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"file_name": "lines/1.png", "text": "ä", "writer": 3, "page": None},
        {"file_name": "lines/2.png", "text": None},
        {"file_name": "lines/3.png", "text": 1848},
        {"text": "x"},
        {"file_name": ["a"], "text": "x"},
        {"file_name": "lines/4.png", "text": 1.5},
        {"file_name": "lines/4.png", "text": True},
        {"file_name": "lines/\0.png", "text": "x"},
        {"file_name": "lines/4.png", "text": "\ud800", "writer": "\udc80"},
    ]
    table = "\n".join([*map(json.dumps, rows), "[1]", "{", "", "[" * 100_000])
    lines, aside = harvest(units, _plant(tmp_path, "metadata.jsonl", table), image_column="file_name")
    assert {id: (item.line.text, item.line.writer) for id, item in lines.items()} == {
        "lines/1": ("ä", "3"),
        "lines/2": (None, None),
        "lines/3": ("1848", None),
    }
    bad = "row that cannot be read"
    assert reasons(aside) == {
        "metadata.jsonl:4": "no image name",
        **{f"metadata.jsonl:{number}": bad for number in (5, 6, 7, 10, 11, 13)},
        "lines/\ufffd": "file cannot be read",
        "lines/4": "damaged character in text",
    }
    assert aside["metadata.jsonl:6"].detail == "row 6: text is no text: 1.5"


def test_a_table_on_s3(tmp_path: Path, s3: str) -> None:
    _plant(tmp_path, "x.tsv", f"image\ttext\nlines/1.png\trelative\n{s3}/lines/2.png\tabsolute\n")
    storage.upload_dir(tmp_path, s3)
    lines, aside = harvest(units, f"{s3}/x.tsv")
    assert not aside
    assert {id: item.line.text for id, item in lines.items()} == {"lines/1": "relative", "2": "absolute"}


def test_a_large_table_is_read_as_it_is_needed(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are far beyond what the first unit needs."""
    rows = "".join(f"lines/1.png,{'x' * 100}{n}\n" for n in range(20_000)).encode()
    table = _plant(tmp_path, "x.csv", b"image,text\n" + rows + b"\xff\n")
    source = units(str(table), ImportOptions())
    assert len(next(source).refs) == 256  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"x.csv: the table is not UTF-8 \(byte 0xFF after '.*x19999\\n'\); save it"):
        list(source)


@pytest.mark.parametrize(
    ("name", "table", "options", "message"),
    [
        ("x.csv", "img,text\na,b\n", {}, r"no column 'image'; there are: img, text \(choose with --image-column\)"),
        ("x.csv", "image,gt\na,b\n", {}, "no column 'text'.*--text-column"),
        ("x.csv", "image,text\na,b\n", {"writer_column": "w"}, "no column 'w'.*--writer-column"),
        ("x.csv", "image,text\na,b\n", {"page_column": "p"}, "no column 'p'.*--page-column"),
        ("x.csv", "image,text\na,b\n", {"split_column": "s"}, "no column 's'.*--split-column"),
        ("x.csv", "image,text,text\na,b,c\n", {}, "several columns are called 'text'"),
        ("x.csv", '"image\n', {}, "its first row cannot be read"),
        ("x.csv", "image,text\n", {}, "no row with data in it"),
        ("x.jsonl", "", {}, "no row with data in it"),
        (
            "x.csv",
            "image,text\na,Straße\n".encode("latin-1"),
            {},
            r"the table is not UTF-8 \(byte 0xDF after 'image,text\\na,Stra'\)",
        ),
        (
            "x.tsv",
            "image\ttext\na\tb\n".encode("utf-16"),
            {},
            "the table is not UTF-8 .it is UTF-16.; save it as UTF-8",
        ),
        ("x.xlsx", b"PK", {}, "a table is one file that ends in .csv, .tsv, .tab, .jsonl, .ndjson"),
    ],
)
def test_no_table(tmp_path: Path, name: str, table: bytes | str, options: dict[str, Any], message: str) -> None:
    path = _plant(tmp_path, name, table)
    with pytest.raises(UserError, match=f"^--input {path}: {message}"):
        harvest(units, path, **options)


def test_not_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^--input .*nowhere.csv: not found"):
        harvest(units, tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="^--input .*folder.csv: is a folder; --format table wants the table"):
        harvest(units, tmp_path / "folder.csv")


_SOUND = {
    "x.csv": b'image,text,writer\nlines/1.png,"a ""b""",w\nlines/2.png,c,\n',
    "x.tsv": b'image\ttext\nlines/1.png\t"a"\nlines/2.png\tb\n',
    "x.jsonl": b'{"image": "lines/1.png", "text": "a"}\n{"image": "lines/2.png", "text": null, "writer": 3}\n',
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(_SOUND)).flatmap(lambda name: st.tuples(st.just(name), garbled(_SOUND[name]))))
def test_garbled_tables(tmp_path: Path, spoilt: tuple[str, bytes]) -> None:
    survives(units, _plant(tmp_path, *spoilt))
