"""A unit, turned into tables of lines: what every worker does, whoever started it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.schema import SCHEMA, Imported, SetAside

# A batch costs the one who collects it a millisecond; its images are in memory a few times.
_BATCH_LINES, _BATCH_BYTES = 256, 8 << 20
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
    """Work through a unit; yield batches of :data:`INGESTED`: 256 lines or 8 MB, whatever comes first."""
    source = iter([unit]) if isinstance(unit, SetAside) else unit.lines()
    for chunk in iter(partial(_take, source), []):
        columns = zip(*map(_row, chunk), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, INGESTED, strict=True)]
        yield pa.record_batch(arrays, schema=INGESTED)


def _take(source: Iterator[Imported | SetAside]) -> list[Imported | SetAside]:
    taken: list[Imported | SetAside] = []
    size = 0
    for item in source:
        taken.append(item)
        size += len(item.line.image) if isinstance(item, Imported) else 0
        if len(taken) == _BATCH_LINES or size >= _BATCH_BYTES:
            break
    return taken


def _row(item: Imported | SetAside) -> tuple[Any, ...]:
    if isinstance(item, SetAside):
        return (item.id, None, None, None, None, None, None, None, item.reason, item.detail, None)
    line = item.line
    digest = image_digest(line.image) + blake2b((line.text or "").encode(), digest_size=_DIGEST_BYTES).digest()
    facts = (line.id, line.image, line.width, line.height, line.text, line.writer, line.page)
    return (*facts, item.split, None, None, digest)
