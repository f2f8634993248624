"""Importer ``parquet``: tables with an image column, the layout of image datasets on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper

from htr_ray import storage
from htr_ray.corpus.importers.check import RawLine, check_line
from htr_ray.corpus.importers.names import is_hidden
from htr_ray.corpus.importers.options import NO_COLUMN, ImportOptions
from htr_ray.corpus.importers.splits import split_named
from htr_ray.corpus.schema import Imported, SetAside, Split
from htr_ray.errors import UserError

LAYOUT = """\
parquet: Parquet files with one row per line; the layout of image datasets on the Hugging Face hub.
  --input is a file, a folder (all *.parquet below it) or a pattern such as s3://bucket/lines/*.parquet

    column   type                          example
    image    struct<bytes, path> or bytes  {bytes: <JPEG>, path: "page7_line3.jpg"}
    text     string, null if unlabelled    "Königshain-Wiederau"
    writer   string or integer, optional   "writer1"
    page     string or integer, optional   "page7"

  Columns of other names are chosen by --image-column, --text-column (none: no labels), --writer-column
  and --page-column. A column "id", or else the image's path, names the line. Splits are taken from
  --split-column, or from names such as data/train-00000-of-00002.parquet, if there are several.
"""
_BATCH_ROWS = 256


@dataclass(frozen=True)
class RowGroup:
    """One row group of one file."""

    uri: str
    row_group: int
    first_row: int
    """Number of its first row in the file; names lines that have no name."""
    options: ImportOptions
    split: Split | None

    def lines(self) -> Iterator[Imported | SetAside]:
        # No threads: the bytes are here already, and small images decode faster than threads change hands.
        for row in self.rows():
            yield check_line(row, self.options.normalisation)

    def rows(self) -> Iterator[RawLine]:
        """Its lines, unchecked. Raises UserError when the file is damaged."""
        stem = PurePosixPath(self.uri.split("?")[0]).stem
        row = self.first_row
        with _parquet(self.uri) as part:
            columns = _Columns(part.schema_arrow, self.options, self.uri)
            batches = part.iter_batches(
                _BATCH_ROWS, row_groups=[self.row_group], columns=columns.names, use_threads=False
            )
            for batch in batches:
                images = batch.column(columns.image)
                # flatten, unlike field, knows that the children of a null struct are null.
                struct = images if columns.in_struct else pa.array([], pa.struct([]))
                fields = dict(zip((field.name for field in struct.type), struct.flatten(), strict=True))
                names = (columns.writer, columns.page, columns.id, columns.split)
                rows = zip(
                    _objects(fields.get("bytes", images)),
                    _bytes(fields.get("path")),
                    *(_bytes(batch.column(name) if name else None) for name in (columns.text, *names)),
                    strict=False,
                )
                for image, path, text, writer, page, id_, split in rows:
                    yield RawLine(
                        id=_label(id_) or PurePosixPath(_label(path) or "").stem or f"{stem}-{row:07d}",
                        image=image,
                        text=text,
                        writer=_label(writer),
                        page=_label(page),
                        split=split_named(_label(split) or "") if columns.split else self.split,
                    )
                    row += 1


def units(uri: str, options: ImportOptions) -> Iterator[RowGroup]:
    """Yield the row groups of all Parquet files at ``uri``, in a stable order.

    Raises UserError when there are none, a file is not Parquet, or a column is missing or of a wrong type.
    """
    files = _find(uri)
    splits = _splits_of(files)
    # All headers first: a wrong column shows at once, not after an hour.
    sizes: dict[str, list[int]] = {}
    for file in files:
        with _parquet(file) as part:
            _Columns(part.schema_arrow, options, file)
            sizes[file] = [part.metadata.row_group(i).num_rows for i in range(part.metadata.num_row_groups)]
    for file in files:
        first = 0
        for number, rows in enumerate(sizes[file]):
            yield RowGroup(file, number, first, options, splits[file])
            first += rows


def _splits_of(files: list[str]) -> dict[str, Split | None]:
    """The hub's splits, by file or folder name; none where all files are of one split, as in a sample."""
    found = {file: _first_split(_name_parts(file)) for file in files}
    nothing: dict[str, Split | None] = dict.fromkeys(files)
    return found if len(set(found.values())) > 1 else nothing


def _first_split(names: list[str]) -> Split | None:
    return next((split for name in names if (split := split_named(name))), None)


def _name_parts(file: str) -> list[str]:
    """File name and folders, nearest first, cut at ``-``, ``_`` and ``.``: train-00000-of-00002.parquet."""
    return [part for name in reversed(PurePosixPath(file).parts[-3:]) for part in re.split(r"[-_.]", name)]


def _find(uri: str) -> list[str]:
    filesystem, path = storage.filesystem(uri)
    if any(character in path for character in "*?[") and not storage.exists(uri):
        matches = ArrowFSWrapper(filesystem).glob(path)
        prefix = "" if storage.is_local(uri) else uri.split("://")[0] + "://"
        files = [prefix + match for match in sorted(matches)]
    elif not storage.exists(uri):
        raise UserError(f"--input {uri}: not found; check the spelling")
    elif storage.is_dir(uri):
        names = [name for name in storage.walk(uri) if name.endswith(".parquet")]
        files = [storage.join(uri, name) for name in names if not is_hidden(name) and not _set_aside(name)]
    else:
        files = [uri]
    if not files:
        raise UserError(f"--input {uri}: no Parquet file (*.parquet) there; see --help for the formats")
    return files


def _set_aside(name: str) -> bool:
    """The details beside a corpus, which can be an input like any other."""
    return PurePosixPath(name).name.startswith("set_aside-")


class _parquet:
    """An open Parquet file; says so when it is none."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._input = storage.open_input(uri)

    def __enter__(self) -> pq.ParquetFile:
        stream = self._input.__enter__()
        try:
            return pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            self._input.__exit__(None, None, None)
            raise UserError(f"--input {self._uri}: not a Parquet file, or cut short ({error})") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._input.__exit__(kind, error, trace)  # type: ignore[arg-type]
        if isinstance(error, pa.ArrowException):
            raise UserError(f"--input {self._uri}: damaged Parquet file ({error})") from error


class _Columns:
    """The columns of one file that make a line; None: not there."""

    def __init__(self, schema: pa.Schema, options: ImportOptions, uri: str) -> None:
        self._schema = schema
        self._uri = uri
        self.image = self._require(options.image_column, "--image-column")
        kind = schema.field(self.image).type
        self.in_struct = pa.types.is_struct(kind)
        has_bytes = self.in_struct and kind.get_field_index("bytes") >= 0
        payload = kind.field("bytes").type if has_bytes else kind
        if not (pa.types.is_binary(payload) or pa.types.is_large_binary(payload)):
            raise UserError(
                f"--input {uri}: column '{self.image}' has type {kind}; expected bytes or"
                " struct<bytes, path>; choose another with --image-column"
            )
        self.text: str | None = None
        if options.text_column != NO_COLUMN:
            self.text = self._require(options.text_column, "--text-column", "; none: unlabelled lines")
            kind = self._value_type(self.text)
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
                raise UserError(f"--input {uri}: column '{self.text}' has type {kind}; expected string")
        self.writer = self._optional(options.writer_column, "writer", "--writer-column")
        self.page = self._optional(options.page_column, "page", "--page-column")
        split = options.split_column
        self.split = self._optional(split, "", "--split-column") if split else None
        self.id = "id" if "id" in schema.names and self._is_label("id") else None

    @property
    def names(self) -> list[str]:
        found = (self.image, self.text, self.writer, self.page, self.id, self.split)
        return list(dict.fromkeys(name for name in found if name is not None))

    def _require(self, name: str, option: str, hint: str = "") -> str:
        if name not in self._schema.names:
            raise UserError(
                f"--input {self._uri}: no column '{name}'; there are: {', '.join(self._schema.names)}"
                f" (choose with {option}{hint})"
            )
        return name

    def _optional(self, name: str | None, default: str, option: str) -> str | None:
        if name == NO_COLUMN or (name is None and default not in self._schema.names):
            return None
        found = self._require(name or default, option)
        if not self._is_label(found):
            kind = self._schema.field(found).type
            raise UserError(
                f"--input {self._uri}: column '{found}' has type {kind}; expected string or integer"
                f" (choose with {option}, none: leave out)"
            )
        return found

    def _value_type(self, name: str) -> pa.DataType:
        kind = self._schema.field(name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def _is_label(self, name: str) -> bool:
        kind = self._value_type(name)
        checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
        return any(check(kind) for check in checks)


def _objects(column: pa.Array) -> list[Any]:
    """As ``to_pylist``, for strings and bytes, in a fifth of the time."""
    return column.to_numpy(zero_copy_only=False).tolist()


def _bytes(column: pa.Array | None) -> Iterable[bytes | None]:
    """Values as UTF-8 bytes: reading damaged strings as ``str`` would stop the whole file."""
    if column is None:
        return repeat(None)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    target = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    return _objects(column.cast(target))


def _label(value: bytes | None) -> str | None:
    """A name of a writer, page or line; blank counts as none."""
    return None if value is None else value.decode("utf-8", "replace").strip() or None
