"""Importers against well-made and odd input."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from htr_ray import storage
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.importers.check import TextError, clean_text
from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.schema import Line, SetAside
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]


def _image(kind: str = "JPEG", mode: str = "L", width: int = 60) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (20, width), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(sink, kind)
    return sink.getvalue()


def _read(format: str, uri: str | Path, **options: Any) -> tuple[dict[str, Line], dict[str, SetAside]]:
    units = IMPORTERS[format].units(str(uri), ImportOptions(**options))
    items = [item for unit in units for item in ([unit] if isinstance(unit, SetAside) else unit.lines())]
    lines = {item.line.id: item.line for item in items if not isinstance(item, SetAside)}
    aside = {item.id: item for item in items if isinstance(item, SetAside)}
    assert len(lines) + len(aside) == len(items)
    return lines, aside


def _hub(rows: list[dict[str, Any]], path: Path, **types: pa.DataType) -> Path:
    """A file as the Hugging Face hub's image datasets are laid out."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = list(rows[0])
    fields = [(name, types.get(name, image if name == "image" else pa.string())) for name in names]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
    return path


# --- text -------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufffd")))
def test_clean_text_is_stable_nfc(text: str) -> None:
    try:
        clean = clean_text(text.encode())
    except TextError as error:
        assert error.args[0] == "empty text"
        return
    assert clean and clean == clean.strip()
    assert unicodedata.is_normalized("NFC", clean)
    assert clean_text(clean.encode()) == clean


def _slowly(text: str) -> str:
    """The rule for texts, without its short cuts."""
    text = unicodedata.normalize("NFC", "".join(c for c in text if c not in "\ufeff\u200b").strip()).strip()
    if not text:
        raise TextError("empty text", "")
    if len(text.splitlines()) > 1:
        raise TextError("text has several lines", f"{len(text.splitlines())} lines")
    text = re.sub(r"\s+", " ", text)
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character == "\ufffd":
            raise TextError("damaged character in text", f"U+{ord(character):04X} in {text!r}")
    return text


@given(st.text(st.characters() | st.sampled_from(" \t\n\x85\u00a0\u2028\ufeff\u200b\ufffd\u0308aB"), max_size=12))
def test_short_cuts_change_no_text(text: str) -> None:
    def of(function: Callable[[str], str]) -> object:
        try:
            return function(text)
        except TextError as error:
            return error.args

    assert of(clean_text) == of(_slowly)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfabc\n", "abc"),
        ("a\u0308 \t\u00a0b\r\n".encode(), "ä b"),
        ("ſtraße\u200b".encode(), "ſtraße"),
    ],
)
def test_clean_text(data: bytes, text: str) -> None:
    assert clean_text(data) == text


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty text", ""),
        (b" \n\t ", "empty text", ""),
        ("Straße".encode("latin-1"), "text is not UTF-8", "byte 0xDF at 4"),
        ("Straße".encode("utf-16"), "text is not UTF-8", "it is UTF-16"),
        (b"one\ntwo\n", "text has several lines", "2 lines"),
        (b"a\x00b", "damaged character in text", "U+0000"),
        ("a\ufffdb".encode(), "damaged character in text", "U+FFFD"),
    ],
)
def test_bad_text(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(TextError) as caught:
        clean_text(data)
    assert caught.value.args[0] == reason and detail in caught.value.args[1]


# --- parquet ----------------------------------------------------------------------------------------------


def test_parquet_hub_layout(tmp_path: Path) -> None:
    jpeg = _image()
    rows = [
        {"image": {"bytes": jpeg, "path": "a/b.jpg"}, "text": "a\u0308", "writer": "w", "page": "p"},
        {"image": {"bytes": _image("PNG", "RGB"), "path": None}, "text": None, "writer": " ", "page": None},
    ]
    lines, aside = _read("parquet", _hub(rows, tmp_path / "x.parquet"))
    assert not aside
    assert lines["b"] == Line("b", jpeg, 60, 20, "ä", "w", "p")
    other = lines["x-0000001"]
    assert other.image.startswith(b"\x89PNG") and (other.text, other.writer, other.page) == (None, None, None)


def test_parquet_sets_bad_rows_aside(tmp_path: Path) -> None:
    def row(name: str, image: bytes | None, text: str | None = "x") -> dict[str, Any]:
        return {"image": {"bytes": image, "path": f"{name}.jpg"}, "text": text}

    good = _image()
    rows = [
        row("good", good), row("cut", good[:-300]), row("junk", b"junk"), row("none", None),
        row("empty", b""),
        row("blank", good, "  "), row("unlabelled", good, None), {"image": None, "text": "x"},
    ]  # fmt: skip
    path = _hub(rows, tmp_path / "x.parquet")
    table = pq.read_table(path)
    broken = pa.array([b"ok", b"\xff\xfe", *[b"ok"] * 3, b" ", None, b"ok"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, "text", broken), path)
    lines, aside = _read("parquet", path)
    assert set(lines) == {"good", "unlabelled"}
    assert {id_: item.reason for id_, item in aside.items()} == {
        "cut": "corrupt image",
        "junk": "not an image",
        "none": "no image data",
        "empty": "empty file",
        "blank": "empty text",
        "x-0000007": "no image data",
    }


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    """Some writers put Latin-1 into string columns; reading them as str would stop the whole file."""
    table = pa.table(
        {
            "image": pa.array([_image(), _image()], pa.binary()),
            "text": pa.array([b"Stra\xdfe", "Straße".encode()], pa.binary()).view(pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    lines, aside = _read("parquet", tmp_path / "x.parquet")
    assert [line.text for line in lines.values()] == ["Straße"]
    assert [item.reason for item in aside.values()] == ["text is not UTF-8"]


def test_parquet_other_columns_and_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([7, 8]),
            "img": pa.array([_image(), _image()], pa.large_binary()),
            "gt": pa.array(["a", "b"]).dictionary_encode(),
            "author": pa.array([3, 4], pa.int64()),
            "writer": pa.array([[1], [2]]),
            "page": pa.array(["x", "y"], pa.large_string()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    options = {"image_column": "img", "text_column": "gt", "writer_column": "author"}
    lines, aside = _read("parquet", tmp_path / "x.parquet", **options)
    assert not aside
    assert [(n.id, n.text, n.writer, n.page) for n in lines.values()] == [
        ("7", "a", "3", "x"),
        ("8", "b", "4", "y"),
    ]
    options = {"image_column": "img"} | dict.fromkeys(("text_column", "writer_column", "page_column"), "none")
    lines, _ = _read("parquet", tmp_path / "x.parquet", **options)
    assert [(n.text, n.writer, n.page) for n in lines.values()] == [(None, None, None)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "img"}, r"no column 'img'; there are: image, text, n, l \(choose with --image"),
        ({"text_column": "gt"}, "no column 'gt'.*--text-column; none: unlabelled"),
        ({"writer_column": "who"}, "no column 'who'.*--writer-column"),
        ({"page_column": "p"}, "no column 'p'.*--page-column"),
        ({"image_column": "text"}, "'text' has type string; expected bytes"),
        ({"text_column": "n"}, "'n' has type int64; expected string"),
        ({"writer_column": "l"}, "'l' has type list.*expected string or integer"),
    ],
)
def test_parquet_wrong_columns(tmp_path: Path, options: dict[str, str], message: str) -> None:
    rows = [{"image": {"bytes": _image(), "path": "a"}, "text": "x", "n": 1, "l": [1]}]
    path = _hub(rows, tmp_path / "x.parquet", n=pa.int64(), l=pa.list_(pa.int64()))
    with pytest.raises(UserError, match=message) as caught:
        _read("parquet", path, **options)
    assert "x.parquet" in str(caught.value)


def test_parquet_file_folder_and_pattern(tmp_path: Path, s3: str) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a1", "a2", "deep/b", ".hidden"):
        row = {"image": {"bytes": _image(), "path": f"{name}.jpg"}, "text": name}
        _hub([row], tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("not a table")
    remote = storage.join(s3, "raw")
    storage.upload_dir(tmp_path, remote)
    for root in (str(tmp_path), remote, tmp_path.as_uri()):
        assert {n.text for n in _read("parquet", root)[0].values()} == {"a1", "a2", "deep/b"}
        assert {n.text for n in _read("parquet", f"{root}/a*.parquet")[0].values()} == {"a1", "a2"}
        assert {n.text for n in _read("parquet", f"{root}/**/b.parquet")[0].values()} == {"deep/b"}
        assert {n.text for n in _read("parquet", f"{root}/a1.parquet")[0].values()} == {"a1"}
        with pytest.raises(UserError, match="no Parquet file"):
            _read("parquet", f"{root}/z*.parquet")
        with pytest.raises(UserError, match="nothing.parquet: not found"):
            _read("parquet", f"{root}/nothing.parquet")


def test_parquet_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [{"image": {"bytes": _image(), "path": str(i)}, "text": "x"} for i in range(50)]
    whole = _hub(rows, path).read_bytes()
    for content in (b"hello", b"", whole[:-9]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="x.parquet: not a Parquet file, or cut short"):
            _read("parquet", path)
    path.write_bytes(whole[:8] + b"\xff" * 400 + whole[408:])
    with pytest.raises(UserError, match="x.parquet"):
        _read("parquet", path)


def test_parquet_a_corpus_is_an_input_too(tmp_path: Path) -> None:
    from htr_ray.corpus.write import CorpusWriter

    line = Line("the id", _image(), 60, 20, "x", "w", "p")
    with CorpusWriter(str(tmp_path), "c") as writer:
        writer.add(line, "train")
        writer.set_aside("bad", "other")
    assert _read("parquet", tmp_path) == ({"the id": line}, {})


def test_real_lines(handwriting: Path) -> None:
    lines, aside = _read("parquet", handwriting / "lines" / "htromance_ita.parquet")
    assert (len(lines), len(aside)) == (2779, 0)
    assert len({line.writer for line in lines.values()}) == 11
    assert {line.height for line in lines.values()} == {64}


# --- pairs ------------------------------------------------------------------------------------------------


def test_pairs(tmp_path: Path) -> None:
    for folder in ("anna", "bert", ".thumbnails"):
        (tmp_path / folder).mkdir()
    jpeg = _image()
    files: dict[str, bytes] = {
        "anna/1.jpg": jpeg, "anna/1.gt.txt": b"wins\n", "anna/1.txt": b"loses\n",
        "anna/2.PNG": _image("PNG"), "anna/2.txt": "a\u0308".encode(),
        "anna/3.bin.png": _image("PNG"), "anna/3.gt.txt": b"three",
        "bert/1.tif": _image("TIFF"),
        "root.v2.png": _image("PNG"), "root.v2.gt.txt": b"dots",
        "bert/cut.jpg": jpeg[:-300], "bert/cut.txt": b"x",
        "bert/latin.jpg": jpeg, "bert/latin.txt": "ß".encode("latin-1"),
        "bert/empty.jpg": jpeg, "bert/empty.txt": b"",
        "bert/zero.jpg": b"",
        "bert/orphan.gt.txt": b"no image",
        "notes.md": b"ignored", ".thumbnails/1.jpg": jpeg,
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    lines, aside = _read("pairs", tmp_path)
    assert {(n.id, n.text, n.writer) for n in lines.values()} == {
        ("anna/1", "wins", "anna"),
        ("anna/2", "ä", "anna"),
        ("anna/3.bin", "three", "anna"),
        ("bert/1", None, "bert"),
        ("root.v2", "dots", None),
    }
    assert lines["anna/1"].image == jpeg
    assert {id_: item.reason for id_, item in aside.items()} == {
        "bert/cut": "corrupt image",
        "bert/latin": "text is not UTF-8",
        "bert/empty": "empty text",
        "bert/zero": "empty file",
        "bert/orphan.gt.txt": "text without an image",
    }
    lines, _ = _read("pairs", tmp_path, writer_from="none")
    assert {line.writer for line in lines.values()} == {None}


def test_pairs_on_s3(tmp_path: Path, s3: str) -> None:
    (tmp_path / "w").mkdir()
    for i in range(20):
        (tmp_path / "w" / f"{i}.jpg").write_bytes(_image())
        (tmp_path / "w" / f"{i}.txt").write_text(f"line {i}")
    storage.upload_dir(tmp_path, f"{s3}/lines")
    lines, aside = _read("pairs", f"{s3}/lines")
    assert not aside
    assert {(n.text, n.writer) for n in lines.values()} == {(f"line {i}", "w") for i in range(20)}


def test_pairs_file_that_cannot_be_read(tmp_path: Path) -> None:
    """One that vanishes between the listing and the reading, for root can read all others."""
    for i in range(300):
        (tmp_path / f"{i:03}.jpg").write_bytes(_image())
    first, second = IMPORTERS["pairs"].units(str(tmp_path), ImportOptions())
    (tmp_path / "299.jpg").unlink()
    assert isinstance(first, Unit) and not any(isinstance(item, SetAside) for item in first.lines())
    assert isinstance(second, Unit)
    last = list(second.lines())[-1]
    assert isinstance(last, SetAside)
    assert (last.id, last.reason) == ("299", "file cannot be read") and "299.jpg: not found" in last.detail


@pytest.mark.parametrize(("name", "message"), [("nowhere", "not found"), ("file", "is a file"), ("empty", "is empty")])
def test_pairs_wrong_folder(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        _read("pairs", tmp_path / name)


def test_pairs_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"")
    with pytest.raises(UserError, match=r"no image there \(only .xml\); images end in"):
        _read("pairs", tmp_path)


def test_every_format_explains_itself() -> None:
    for name, importer in IMPORTERS.items():
        assert importer.layout.startswith(f"{name}: ") and "--input" in importer.layout
