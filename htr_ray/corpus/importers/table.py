"""Importer ``table``: a table of image names and transcriptions (CSV, TSV or JSON lines)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from htr_ray import storage
from htr_ray.corpus.importers.options import NO_COLUMN, ImportOptions
from htr_ray.corpus.importers.splits import split_named
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, image_units
from htr_ray.corpus.schema import SetAside
from htr_ray.errors import UserError

LAYOUT = """\
table: a table that names line images and says what is written on them.
  --input is the table, UTF-8: .csv (comma, or semicolon), .tsv or .tab, .jsonl or .ndjson (an object a row)

    image,text,writer,page            the first row names the columns
    lines/0001.png,"Paris, le 2 mai",anna,p1
    /scans/0002.jpg,Ma chère amie,bert,p2
    s3://bucket/0003.png,,,           no text: set aside; --text-column none reads images without texts

  Names of images are relative to the folder of the table, absolute, or URIs. Columns are chosen by
  --image-column (file_name for metadata.csv and metadata.jsonl of the Hugging Face hub), --text-column,
  --writer-column, --page-column and --split-column; a column "id" names the lines, or else the image does.
  In JSON lines, a text of null is an unlabelled line.
"""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUFFER = 1 << 20
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is none."""

    reason: str
    detail: str


_Reader = Callable[[Iterator[str]], Iterator[tuple[int, Row | BadRow]]]


def units(uri: str, options: ImportOptions) -> Iterator[ImageFiles | SetAside]:
    """Yield the rows of a table as it is read, for it need not fit into memory.

    Raises UserError when the table is missing, lacks a column, or is not UTF-8.
    """
    read = _reader(uri)
    if not storage.exists(uri):
        raise UserError(f"--input {uri}: not found; check the spelling")
    if storage.is_dir(uri):
        raise UserError(f"--input {uri}: is a folder; --format table wants the table")
    yield from image_units(_items(uri, options, read), options.normalisation)


def _items(uri: str, options: ImportOptions, read: _Reader) -> Iterator[ImageRef | SetAside]:
    folder, name = _split_uri(uri)
    columns = None
    for number, row in _decoded(uri, read):
        if isinstance(row, BadRow):
            item: ImageRef | BadRow = row
        else:
            columns = columns or _Columns(row, options, uri, folder)
            item = columns.ref(row)
        if isinstance(item, BadRow):
            yield SetAside(f"{name}:{number}", item.reason, f"row {number}: {item.detail}")
        else:
            yield item
    if columns is None:
        raise UserError(f"--input {uri}: no row with data in it")


def _split_uri(uri: str) -> tuple[str, str]:
    """Folder and name of a file; a query stays with the folder."""
    whole = storage.normalise(uri)
    path, mark, query = whole.partition("?") if _SCHEME.match(whole) else (whole, "", "")
    folder, _, name = path.rpartition("/")
    return f"{folder or '/'}{mark}{query}", name


def _reader(uri: str) -> _Reader:
    suffix = PurePosixPath(_split_uri(uri)[1]).suffix.lower()
    if suffix not in _READERS:
        raise UserError(f"--input {uri}: a table is one file that ends in {', '.join(_READERS)}")
    return _READERS[suffix]


def _decoded(uri: str, read: _Reader) -> Iterator[tuple[int, Row | BadRow]]:
    """The rows with their numbers, the first row of the file being 1."""
    with storage.open_input(uri) as stream:
        # A store is asked for a megabyte at a time.
        text = io.TextIOWrapper(io.BufferedReader(stream, _BUFFER), encoding="utf-8-sig", newline="")
        try:
            yield from read(text)
        except UnicodeDecodeError as error:
            raise UserError(f"--input {uri}: the table is not UTF-8 ({_where(error)}); save it as UTF-8") from None
        except _NoTable as error:
            raise UserError(f"--input {uri}: {error}") from None
        finally:
            text.detach().detach()


def _where(error: UnicodeDecodeError) -> str:
    if error.object[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it is UTF-16"
    before = error.object[max(0, error.start - 30) : error.start].decode("utf-8", "ignore")
    return f"byte 0x{error.object[error.start]:02X} after {before!r}"


class _NoTable(ValueError):
    """The file as a whole is no table."""


def _read_csv(text: Iterator[str]) -> Iterator[tuple[int, Row | BadRow]]:
    first = next(text, "")
    delimiter = ";" if ";" in first and "," not in first else ","
    # strict: a quotation mark in the wrong place is not dropped in silence.
    yield from _fields(csv.reader(chain([first], text), delimiter=delimiter, strict=True), lambda field: field)


def _read_tsv(text: Iterator[str]) -> Iterator[tuple[int, Row | BadRow]]:
    # Some programs put texts with quotation marks into quotes, others do not: csv would lose the marks of the latter.
    yield from _fields(csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE), _unquoted)


def _fields(reader: Any, unquote: Callable[[str], str]) -> Iterator[tuple[int, Row | BadRow]]:
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            fields = [unquote(field) for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            if header is None:
                raise _NoTable(f"its first row cannot be read ({error})") from None
            yield number, BadRow("row that cannot be read", f"{error} (to row {reader.line_num})")
            continue
        if not fields:
            continue
        if header is None:
            header = [field.strip() for field in fields]
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise _NoTable(f"several columns are called {', '.join(map(repr, twice))}")
        elif len(fields) != len(header):
            yield number, BadRow("wrong number of fields", f"{len(fields)} instead of {len(header)}")
        else:
            yield number, dict(zip(header, fields, strict=True))


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else field


def _read_json_lines(text: Iterator[str]) -> Iterator[tuple[int, Row | BadRow]]:
    for number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow("row that cannot be read", f"no JSON ({error})")
            continue
        yield number, row if isinstance(row, dict) else BadRow("row that cannot be read", "no JSON object")


_READERS: dict[str, _Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".tab": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


class _Columns:
    """Where in a row things are."""

    def __init__(self, row: Row, options: ImportOptions, uri: str, folder: str) -> None:
        """``row``: the first one. Raises UserError when it lacks a column."""
        self._folder = folder
        there = ", ".join(row)

        def require(name: str, option: str) -> str:
            if name not in row:
                raise UserError(f"--input {uri}: no column '{name}'; there are: {there} (choose with {option})")
            return name

        self._image = require(options.image_column, "--image-column")
        self._text = None if options.text_column == NO_COLUMN else require(options.text_column, "--text-column")
        writer, page, split = options.writer_column, options.page_column, options.split_column
        self._writer = require(writer, "--writer-column") if writer and writer != NO_COLUMN else writer or "writer"
        self._page = require(page, "--page-column") if page and page != NO_COLUMN else page or "page"
        self._split = require(split, "--split-column") if split and split != NO_COLUMN else None

    def ref(self, row: Row) -> ImageRef | BadRow:
        """The image and its text."""
        wanted = (self._image, self._text, self._writer, self._page, self._split, "id")
        image, text, writer, page, split, id = (
            None if name is None or name == NO_COLUMN else row.get(name) for name in wanted
        )
        for name, value in zip(wanted, (image, text, writer, page, split, id), strict=True):
            # bool is an int to Python.
            if not isinstance(value, str | int | None) or isinstance(value, bool):
                return BadRow("row that cannot be read", f"{name} is no text: {json.dumps(value)[:50]}")
        name = _label(image)
        if name is None:
            return BadRow("no image name", f"the column {self._image} is empty")
        if not _SCHEME.match(name):
            name = name.replace("\\", "/")
        return ImageRef(
            id=_label(id) or re.sub(r"\.[^./]*$", "", name.rpartition("/")[2] if _is_absolute(name) else name),
            image=name if _is_absolute(name) else storage.join(self._folder, name),
            text=None if text is None else str(text),
            writer=_label(writer),
            page=_label(page),
            split=split_named(_label(split) or ""),
        )


def _label(value: str | int | None) -> str | None:
    """A name; blank counts as none. What no file system and no table can hold is replaced."""
    if value is None:
        return None
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\ufffd").strip() or None


def _is_absolute(name: str) -> bool:
    return name.startswith("/") or _SCHEME.match(name) is not None
