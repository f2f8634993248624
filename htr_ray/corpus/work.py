"""A unit, turned into tables of lines: what every worker does, whoever started it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any

import pyarrow as pa

from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.schema import SCHEMA, Imported, SetAside

_BATCH_LINES = 64
_DIGEST_BYTES = 8
# ``reason`` is null for a line and set for what was set aside. ``digest`` is one of the image and one of the text,
# 8 bytes each: equal for the same line, and in its first half for the same image.
INGESTED = pa.schema(
    [field.with_nullable(True) for field in SCHEMA]
    + [pa.field(name, pa.string()) for name in ("split", "reason", "detail")]
    + [pa.field("digest", pa.binary(2 * _DIGEST_BYTES))]
)


def image_digest(image: bytes) -> bytes:
    """8 bytes that are the same for the same file."""
    return blake2b(image, digest_size=_DIGEST_BYTES).digest()


def batches_of(unit: Unit | SetAside) -> Iterator[pa.RecordBatch]:
    """Work through a unit; yield batches of :data:`INGESTED`, 64 lines each."""
    source = iter([unit]) if isinstance(unit, SetAside) else unit.lines()
    for chunk in iter(partial(_take, source), []):
        columns = zip(*map(_row, chunk), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, INGESTED, strict=True)]
        yield pa.record_batch(arrays, schema=INGESTED)


def _take(source: Iterator[Imported | SetAside]) -> list[Imported | SetAside]:
    return list(islice(source, _BATCH_LINES))


def _row(item: Imported | SetAside) -> tuple[Any, ...]:
    if isinstance(item, SetAside):
        return (item.id, None, None, None, None, None, None, None, item.reason, item.detail, None)
    line = item.line
    digest = image_digest(line.image) + blake2b((line.text or "").encode(), digest_size=_DIGEST_BYTES).digest()
    facts = (line.id, line.image, line.width, line.height, line.text, line.writer, line.page)
    return (*facts, item.split, None, None, digest)
