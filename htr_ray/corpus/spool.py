"""Lines waiting on local disk until it is known which split each belongs to."""

from __future__ import annotations

import os
import tempfile
from dataclasses import astuple
from types import TracebackType

import pyarrow as pa

from htr_ray.corpus.schema import SCHEMA, Line
from htr_ray.errors import UserError

_BATCH = 256


class Spool:
    """Append lines, then read them back in any order: the input is read, and each image decoded, once.

    Takes as much disk in ``TMPDIR`` as the images do; raises UserError when it is full.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="htr-ray-")
        self._path = os.path.join(self._folder.name, "lines.arrow")
        self._writer = pa.ipc.new_file(self._path, SCHEMA)
        self._waiting: list[Line] = []
        self._table: pa.Table | None = None

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table = None
        self._folder.cleanup()

    def append(self, line: Line) -> None:
        """Add a line."""
        self._waiting.append(line)
        if len(self._waiting) == _BATCH:
            self._flush()

    def close(self) -> None:
        """End of writing; ``__getitem__`` works from here on."""
        self._flush()
        self._writer.close()
        self._table = pa.ipc.open_file(pa.memory_map(self._path)).read_all()

    def __getitem__(self, number: int) -> Line:
        assert self._table is not None
        return Line(*(column[number].as_py() for column in self._table.columns))

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = zip(*map(astuple, self._waiting), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        try:
            self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
        except OSError as error:
            raise UserError(
                f"{self._folder.name}: cannot keep the lines there ({error}); set TMPDIR to a larger place"
            ) from error
        self._waiting.clear()
