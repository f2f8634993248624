"""Lines waiting on local disk until it is known which split each belongs to."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable
from types import TracebackType

import pyarrow as pa

from htr_ray.corpus.schema import SCHEMA, Line
from htr_ray.errors import UserError

FACTS = pa.schema([field for field in SCHEMA if field.name != "image"])
"""The columns of a line but its image."""


class Spool:
    """Append lines, then read them back in any order: the input is read, and each image decoded, once.

    Takes as much disk in ``TMPDIR`` as the images do, and memory for the texts alone. Raises
    UserError when the disk is full.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="htr-ray-")
        # Read by position, not mapped: mapped pages would count as memory of this process.
        self._images = open(os.path.join(self._folder.name, "images"), "w+b")  # noqa: SIM115
        self._ends = array("q", [0])
        self._batches: list[pa.RecordBatch] = []
        self._facts = pa.table({field.name: pa.array([], field.type) for field in FACTS})

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._images.close()
        self._folder.cleanup()

    def append(self, facts: pa.RecordBatch, images: Iterable[bytes | memoryview]) -> None:
        """Add lines: their columns but the image, and their images."""
        try:
            for image in images:
                self._images.write(image)
                self._ends.append(self._ends[-1] + len(image))
        except OSError as error:
            raise UserError(
                f"{self._folder.name}: cannot keep the lines there ({error}); set TMPDIR to a larger place"
            ) from error
        self._batches.append(facts)

    def close(self) -> None:
        """End of writing; ``__getitem__`` works from here on."""
        try:
            self._images.flush()
        except OSError as error:
            raise UserError(
                f"{self._folder.name}: cannot keep the lines there ({error}); set TMPDIR to a larger place"
            ) from error
        if self._batches:
            self._facts = pa.Table.from_batches(self._batches, FACTS).combine_chunks()
            self._batches.clear()

    def __getitem__(self, number: int) -> Line:
        start, end = self._ends[number], self._ends[number + 1]
        image = os.pread(self._images.fileno(), end - start, start)
        facts = {name: self._facts[name][number].as_py() for name in FACTS.names}
        return Line(image=image, **facts)
