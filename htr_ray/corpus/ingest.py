"""Units of an input, turned into tables of lines by Ray Data - or right here, when there are few."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from rich.console import Console

from htr_ray.connect import cluster
from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.schema import SCHEMA, Imported, SetAside
from htr_ray.errors import UserError

FEW = 16
"""Up to this many units (some thousand lines) are done before a Ray of our own would have started."""
TASKS_PER_CPU = 16
_BLOCK_LINES = 64
# ``reason`` is null for a line and set for what was set aside; ``digest`` tells the same line twice.
INGESTED = pa.schema(
    [field.with_nullable(True) for field in SCHEMA]
    + [pa.field(name, pa.string()) for name in ("split", "reason", "detail")]
    + [pa.field("digest", pa.binary())]
)


def ingest(units: Iterable[Unit | SetAside]) -> Iterator[tuple[float, pa.RecordBatch]]:
    """Work through ``units``; yield what comes of them, in their order.

    Yields pairs: the share of the units that are begun, 0 to 1, and a batch of :data:`INGESTED`. Few units are
    worked through in this process; many, or any on a cluster that is connected already, by Ray Data
    on all CPUs. Raises UserError when a store does not answer.
    """
    source = iter(units)
    first = list(islice(source, FEW + 1))
    if len(first) <= FEW and not ray.is_initialized():
        for number, unit in enumerate(first, start=1):
            for batch in _batches(unit):
                yield number / len(first), batch
        return
    with cluster(Console(stderr=True, quiet=True)):
        yield from _distributed([*first, *source])


def _distributed(units: list[Unit | SetAside]) -> Iterator[tuple[float, pa.RecordBatch]]:
    context = ray.data.DataContext.get_current()
    # The order of lines decides which of two equal ids gets a number: it must not depend on timing.
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    rows = [{"unit": cloudpickle.dumps(unit), "number": number} for number, unit in enumerate(units, start=1)]
    # A task costs some 70 ms whatever it does: enough of them to keep all CPUs busy to the end, no more.
    tasks = min(len(rows), TASKS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
    lines = ray.data.from_items(rows, override_num_blocks=tasks).map_batches(_work, batch_size=1)
    tables: Iterator[Any] = iter(lines.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
    for table in tables:
        errors = [text for text in table["failure"].to_pylist() if text is not None]
        if errors:
            # Raised here and not in the worker: Ray would wrap it into a stack trace.
            raise UserError(errors[0])
        share = table["number"][-1].as_py() / len(rows)
        for batch in table.select(INGESTED.names).to_batches():
            yield share, batch


def _work(batch: dict[str, Any]) -> Iterator[pa.Table]:
    """Ray Data's function: one unit in, some tables out."""
    for pickled, number in zip(batch["unit"], batch["number"], strict=True):
        try:
            for found in _batches(cloudpickle.loads(pickled)):
                yield _sent(pa.Table.from_batches([found]), number, None)
        except UserError as error:
            nothing = pa.Table.from_arrays([pa.nulls(1, field.type) for field in INGESTED], schema=INGESTED)
            yield _sent(nothing, number, str(error))


def _sent(table: pa.Table, number: int, failure: str | None) -> pa.Table:
    count = table.num_rows
    numbers, failures = pa.array([number] * count, pa.int64()), pa.array([failure] * count, pa.string())
    return table.append_column("number", numbers).append_column("failure", failures)


def _batches(unit: Unit | SetAside) -> Iterator[pa.RecordBatch]:
    source = iter([unit]) if isinstance(unit, SetAside) else unit.lines()
    for chunk in iter(partial(_take, source), []):
        columns = zip(*map(_row, chunk), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, INGESTED, strict=True)]
        yield pa.record_batch(arrays, schema=INGESTED)


def _take(source: Iterator[Imported | SetAside]) -> list[Imported | SetAside]:
    return list(islice(source, _BLOCK_LINES))


def _row(item: Imported | SetAside) -> tuple[Any, ...]:
    if isinstance(item, SetAside):
        return (item.id, None, None, None, None, None, None, None, item.reason, item.detail, None)
    line = item.line
    digest = blake2b(line.image + (line.text or "").encode(), digest_size=8).digest()
    facts = (line.id, line.image, line.width, line.height, line.text, line.writer, line.page)
    return (*facts, item.split, None, None, digest)
