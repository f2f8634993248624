"""Lines waiting on local disk until it is known which split each belongs to."""

from __future__ import annotations

import os
import tempfile
from types import TracebackType

import numpy as np
import pyarrow as pa

from htr_ray.corpus.schema import SCHEMA
from htr_ray.errors import UserError

FACTS = pa.schema([field for field in SCHEMA if field.name != "image"])
"""The columns of a line but its image."""
_LARGEST = (1 << 31) - 1


class Spool:
    """Append lines, then read them back in any order: the input is read, and each image decoded, once.

    Takes as much disk in ``TMPDIR`` as the images do, and memory for the texts alone. Raises
    UserError when the disk is full.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="htr-ray-")
        # Read by position, not mapped: mapped pages would count as memory of this process.
        self._images = open(os.path.join(self._folder.name, "images"), "w+b")  # noqa: SIM115
        self._sizes: list[np.ndarray] = [np.zeros(1, np.int64)]
        self._starts = np.zeros(1, np.int64)
        self._batches: list[pa.RecordBatch] = []
        self.facts = FACTS.empty_table()
        """All lines but their images, in the order that they came; complete after ``close``."""

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._images.close()
        self._folder.cleanup()

    def append(self, facts: pa.RecordBatch, images: pa.BinaryArray) -> None:
        """Add lines: their columns but the image, and their images (no nulls)."""
        _, offsets, data = images.buffers()
        ends = np.frombuffer(offsets, np.int32)[images.offset : images.offset + len(images) + 1]
        self._sizes.append(np.diff(ends).astype(np.int64))
        if data is not None:
            self._to_disk(memoryview(data)[ends[0] : ends[-1]])
        self._batches.append(facts)

    def close(self) -> None:
        """End of writing; ``take`` works from here on."""
        self._to_disk(None)
        self._starts = np.cumsum(np.concatenate(self._sizes))
        self._sizes.clear()
        self.facts = pa.Table.from_batches(self._batches, FACTS).combine_chunks()
        self._batches.clear()

    def take(self, lines: np.ndarray) -> pa.Table:
        """Lines by number (int [n], from 0 in the order that they came), as a table of a corpus. Any thread may ask."""
        starts = self._starts[lines]
        sizes = self._starts[lines + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        if offsets[-1] > _LARGEST:
            raise UserError(f"{len(lines)} lines of {offsets[-1] >> 20} MB do not fit a row group; make them smaller")
        file, places = self._images.fileno(), zip(sizes.tolist(), starts.tolist(), strict=True)
        data = b"".join([os.pread(file, size, start) for size, start in places])
        if len(data) != offsets[-1]:
            raise UserError(f"{self._folder.name}: the lines kept there are gone; was it cleaned up meanwhile?")
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
        images = pa.BinaryArray.from_buffers(pa.binary(), len(lines), buffers)
        facts = self.facts.take(pa.array(lines))
        return facts.add_column(SCHEMA.get_field_index("image"), SCHEMA.field("image"), images)

    def _to_disk(self, data: memoryview | None) -> None:
        """Write, or with None: have the system take all that was written."""
        try:
            self._images.flush() if data is None else self._images.write(data)
        except OSError as error:
            raise UserError(
                f"{self._folder.name}: cannot keep the lines there ({error}); set TMPDIR to a larger place"
            ) from error
