"""Reading a corpus: what it holds, where each line lies, and the lines by row group."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from htr_ray import storage
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.schema import INFO_FILE, SCHEMA, SCHEMA_VERSION, SPLITS, CorpusInfo, Split
from htr_ray.errors import UserError


def corpus_name(uri: str) -> str:
    """Last part of a corpus URI, without its query (``?region=...``)."""
    path = storage.without_query(uri)
    return posixpath.basename(path.rstrip("/")) or path


@dataclass(frozen=True)
class Corpus:
    """A committed corpus. Cheap to send to other processes: it holds no open file."""

    uri: str
    """Absolute: another process on the same storage finds it."""
    info: CorpusInfo

    @classmethod
    def open(cls, uri: str) -> Corpus:
        """Open the corpus at ``uri``. Raises UserError when there is none, or one of a later schema."""
        uri = storage.normalise(uri)
        info_uri = storage.join(uri, INFO_FILE)
        if not storage.exists(info_uri):
            raise UserError(
                f"{uri}: no corpus here ({INFO_FILE} is missing: wrong URI, or writing it was interrupted);"
                " make one with: python jobs/prepare_data.py --format FORMAT --input URI --output URI"
                " --name NAME"
            )
        raw = storage.read_json(info_uri)
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(f"{info_uri}: schema version {version} is too new; update htr-ray")
        try:
            return cls(uri, CorpusInfo.model_validate(raw))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "content"
            raise UserError(f"{info_uri}: {place}: {first['msg']}; is this a corpus of htr-ray?") from error

    @property
    def alphabet(self) -> Alphabet:
        """The characters of train and val, in the direction of the corpus."""
        return Alphabet(self.info.alphabet, self.info.direction)

    def files(self, split: Split) -> list[str]:
        """URIs of the part files of a split, in the order that ``index`` numbers them."""
        if split not in SPLITS:
            raise UserError(f"split '{split}': use one of {', '.join(SPLITS)}")
        return [storage.join(self.uri, split, name) for name in self.info.files.get(split, [])]

    def index(self, split: Split, columns: Sequence[str] = ("id", "width", "text", "writer")) -> pa.Table:
        """Return ``columns`` of all lines of a split, and where each lies.

        Extra columns, int32: ``file`` (index into ``files(split)``), ``row_group`` and ``row`` (within the
        row group). Only the columns asked for are read, so leave ``image`` out. Raises UserError for an
        unknown column or a part that is missing or damaged.
        """
        unknown = set(columns) - set(SCHEMA.names)
        if unknown:
            raise UserError(f"columns: no {sorted(unknown)}; a corpus has {', '.join(SCHEMA.names)}")
        place = [pa.field(name, pa.int32()) for name in ("file", "row_group", "row")]
        schema = pa.schema([SCHEMA.field(name) for name in columns] + place)
        tables = [schema.empty_table()]
        for number, uri in enumerate(self.files(split)):
            with _part_errors(uri), storage.open_input(uri) as stream:
                part = pq.ParquetFile(stream, pre_buffer=True)
                sizes = [part.metadata.row_group(i).num_rows for i in range(part.metadata.num_row_groups)]
                table = part.read(columns=list(columns), use_threads=False).select(list(columns))
            row_group = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
            row = np.concatenate([np.arange(n, dtype=np.int32) for n in sizes] or [np.empty(0, np.int32)])
            file = np.full(len(row), number, np.int32)
            for values, field in zip((file, row_group, row), place, strict=True):
                table = table.append_column(field, pa.array(values))
            tables.append(table.cast(schema))
        return pa.concat_tables(tables).combine_chunks()

    def read_row_group(self, file_uri: str, row_group: int, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Read one row group (about 256 lines) of a part file."""
        with _part_errors(file_uri), storage.open_input(file_uri) as stream:
            part = pq.ParquetFile(stream, pre_buffer=True)
            return part.read_row_group(row_group, columns=list(columns), use_threads=False)

    def set_aside(self) -> pa.Table:
        """The lines that were left out: columns ``id``, ``reason``, ``detail``."""
        if self.info.set_aside_file is None:
            return pa.table({name: pa.array([], pa.string()) for name in ("id", "reason", "detail")})
        uri = storage.join(self.uri, self.info.set_aside_file)
        with _part_errors(uri), storage.open_input(uri) as stream:
            return pq.read_table(stream)


class _part_errors:
    """Turns errors of a part file into a UserError that says what to do; passes a retryable one on."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError) and not isinstance(error, storage.Unavailable):
            raise UserError(
                f"{error}; the corpus was rewritten while it was read (start again), or the file was deleted"
                " (prepare the corpus again)"
            ) from error
        if isinstance(error, pa.ArrowException | IndexError):
            raise UserError(f"{self._uri}: damaged ({error}); prepare the corpus again") from error
