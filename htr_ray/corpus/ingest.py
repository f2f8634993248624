"""Units of an input, turned into tables of lines: right here, by processes of this machine, or by Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from rich.console import Console

from htr_ray import connect
from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.processes import work_through
from htr_ray.corpus.schema import SetAside
from htr_ray.corpus.work import INGESTED, batches_of
from htr_ray.errors import UserError
from htr_ray.machine import cores

FEW = 4
"""Up to this many units (some hundred lines) are done before a worker would have started."""
TASKS_PER_CPU = 16


def ingest(units: Iterable[Unit | SetAside]) -> Iterator[tuple[float, pa.RecordBatch]]:
    """Work through ``units``; yield what comes of them, in their order.

    Yields pairs: the share of the units that are begun, 0 to 1, and a batch of :data:`INGESTED`. On a Ray cluster
    that is connected, named by RAY_ADDRESS or running here (``ray start``), Ray Data works through them on all its
    CPUs. Without one, few units are done in this process, more by processes of this machine: a Ray for this job
    alone would take longer to start than some ten thousand lines take. The lines and their order are the same.
    Raises UserError when a store does not answer.
    """
    if _has_cluster():
        with connect.cluster(Console(stderr=True, quiet=True)):
            yield from _by_ray(list(units))
        return
    source = iter(units)
    first = list(islice(source, FEW + 1))
    if len(first) <= FEW:
        for number, unit in enumerate(first, start=1):
            for batch in batches_of(unit):
                yield number / len(first), batch
        return
    # All of them at once: how many there are is needed for the share, and they are small.
    everything = [*first, *source]
    pickled = ((_name(unit), cloudpickle.dumps(unit)) for unit in everything)
    for number, batch in work_through(pickled, min(cores(), len(everything))):
        yield number / len(everything), batch


def _has_cluster() -> bool:
    """RAY_ADDRESS=local asks for a Ray of this job's own."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS")) or connect.started_here() is not None


def _name(unit: Unit | SetAside) -> str:
    return repr(unit)[:200]


def _by_ray(units: list[Unit | SetAside]) -> Iterator[tuple[float, pa.RecordBatch]]:
    if not units:
        return
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
        errors = [text for text in table["failure"].unique().to_pylist() if text is not None]
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
            for found in batches_of(cloudpickle.loads(pickled)):
                yield _sent(pa.Table.from_batches([found]), number, None)
        except UserError as error:
            nothing = pa.Table.from_arrays([pa.nulls(1, field.type) for field in INGESTED], schema=INGESTED)
            yield _sent(nothing, number, str(error))


def _sent(table: pa.Table, number: int, failure: str | None) -> pa.Table:
    count = table.num_rows
    numbers, failures = pa.array([number] * count, pa.int64()), pa.array([failure] * count, pa.string())
    return table.append_column("number", numbers).append_column("failure", failures)
