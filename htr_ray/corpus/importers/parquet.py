"""Importer ``parquet``: tables with an image column, the layout of image datasets on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.arrow import ArrowFSWrapper

from htr_ray import storage
from htr_ray.corpus.importers.check import RawLine, check_line, in_parallel
from htr_ray.corpus.importers.options import NO_COLUMN, ImportOptions
from htr_ray.corpus.schema import Line, SetAside
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
  and --page-column. A column "id", or else the image's path, names the line.
"""
_BATCH_ROWS = 256


def read(uri: str, options: ImportOptions) -> Iterator[Line | SetAside]:
    """Yield the lines of all Parquet files at ``uri``, in a stable order.

    Raises UserError when there are none, a file is not Parquet, or a column is missing or of a wrong type.
    """
    files = _find(uri)
    # All headers first: a wrong column shows at once, not after an hour.
    for file in files:
        with _parquet(file) as part:
            _Columns(part.schema_arrow, options, file)
    yield from in_parallel(check_line, (row for file in files for row in _rows(file, options)))


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
        files = [storage.join(uri, name) for name in names if not _hidden(name) and not _set_aside(name)]
    else:
        files = [uri]
    if not files:
        raise UserError(f"--input {uri}: no Parquet file (*.parquet) there; see --help for the formats")
    return files


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


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
        self.has_path = self.in_struct and kind.get_field_index("path") >= 0
        self.text: str | None = None
        if options.text_column != NO_COLUMN:
            self.text = self._require(options.text_column, "--text-column", "; none: unlabelled lines")
            kind = self._value_type(self.text)
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
                raise UserError(f"--input {uri}: column '{self.text}' has type {kind}; expected string")
        self.writer = self._optional(options.writer_column, "writer", "--writer-column")
        self.page = self._optional(options.page_column, "page", "--page-column")
        self.id = "id" if "id" in schema.names and self._is_label("id") else None

    @property
    def names(self) -> list[str]:
        found = (self.image, self.text, self.writer, self.page, self.id)
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


def _rows(uri: str, options: ImportOptions) -> Iterator[RawLine]:
    stem = PurePosixPath(uri.split("?")[0]).stem
    row = 0
    with _parquet(uri) as part:
        columns = _Columns(part.schema_arrow, options, uri)
        for batch in part.iter_batches(_BATCH_ROWS, columns=columns.names, use_threads=False):
            images = batch.column(columns.image)
            payloads = images.field("bytes") if columns.in_struct else images
            paths = images.field("path") if columns.has_path else None
            texts = _bytes(batch, columns.text)
            writers, pages, ids = (_bytes(batch, name) for name in (columns.writer, columns.page, columns.id))
            for i in range(batch.num_rows):
                path = paths[i].as_py() if paths is not None else None
                yield RawLine(
                    id=_label(ids[i]) or (PurePosixPath(path).stem if path else "") or f"{stem}-{row:07d}",
                    # A null struct hides its children's values only when they are read through it.
                    image=payloads[i].as_py() if images[i].is_valid else None,
                    text=texts[i],
                    writer=_label(writers[i]),
                    page=_label(pages[i]),
                )
                row += 1


def _bytes(batch: pa.RecordBatch, name: str | None) -> list[bytes | None]:
    """A column's values as UTF-8 bytes: reading damaged strings as ``str`` would stop the whole file."""
    if name is None:
        return [None] * batch.num_rows
    column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    target = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    return column.cast(target).to_pylist()


def _label(value: bytes | None) -> str | None:
    """A name of a writer, page or line; blank counts as none."""
    return None if value is None else value.decode("utf-8", "replace").strip() or None
