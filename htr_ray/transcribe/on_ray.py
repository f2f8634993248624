"""Tasks worked off by Ray Data: many lines, on many cores, machines and GPUs.

Apart from ``work.py``, since importing Ray takes a second, and few lines are read without it.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from rich.console import Console

from htr_ray.config import TranscribeSettings
from htr_ray.connect import cluster
from htr_ray.errors import UserError
from htr_ray.machine import cores
from htr_ray.transcribe.lines import Chunk
from htr_ray.transcribe.part import Tally
from htr_ray.transcribe.source import Task
from htr_ray.transcribe.work import Work, decoded, written

logger = logging.getLogger(__name__)

_MAX_BLOCKS = 4096
_DECODERS_PER_GPU = 4
# What goes from stage to stage: a chunk, or the message that ends the run.
_STAGED = pa.schema([("chunk", pa.large_binary()), ("failure", pa.string())])
_TOLD = pa.schema([("tally", pa.string()), ("ends", pa.bool_()), ("failure", pa.string())])


def on_ray(tasks: Sequence[Task], work: Work, console: Console) -> Iterator[tuple[Tally, bool]]:
    """Read and write all tasks on the cluster there is, or else on a local one; yields as ``work_off``.

    Raises UserError when a store does not answer for long, a process fails, or the cluster cannot hold a reader.
    """
    # Ray Data's pools of actors make Ray print an error that is none (github.com/ray-project/ray/issues/53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with cluster(console):
        try:
            yield from _on_ray(tasks, work)
        except ray.exceptions.RayError as error:
            logger.debug("a worker failed", exc_info=True)
            cause = str(error).strip().splitlines()
            raise UserError(
                f"a process that reads lines failed ({cause[-1] if cause else type(error).__name__}); what is finished"
                " is kept: run the same command again to go on"
            ) from error


@dataclass(frozen=True)
class _Pool:
    """How many processes of which size read."""

    actors: int
    cpus: float
    gpus: float
    decoders: int


def _pool(settings: TranscribeSettings, tasks: int) -> _Pool:
    """Fit the settings to the cluster. Raises UserError when not even one actor can start."""
    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    gpus_each = settings.gpus_per_actor
    if gpus_each is None:
        gpus_each = 1.0 if gpus >= 1 else 0.0
    if settings.cpus_per_actor > cpus or gpus_each > gpus:
        raise UserError(
            f"one actor needs {settings.cpus_per_actor:g} CPUs and {gpus_each:g} GPUs, the cluster has {cpus:g} and"
            f" {gpus:g}; lower cpus_per_actor or gpus_per_actor"
        )
    decoders = settings.decoders
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1 and gpus_each == 0:
        # A local Ray may count each core twice (see htr_ray.connect); reading keeps a core busy.
        cpus = min(cpus, max(cores(), settings.cpus_per_actor))
    room = cpus - (1 if decoders or (decoders is None and gpus_each) else 0)
    fitting = [room / settings.cpus_per_actor] + ([gpus / gpus_each] if gpus_each else [])
    actors = max(1, min(settings.actors or tasks, int(min(fitting) + 1e-9), tasks))
    if decoders is None:
        decoders = _DECODERS_PER_GPU * actors if gpus_each else 0
    return _Pool(actors, settings.cpus_per_actor, gpus_each, decoders)


def _on_ray(tasks: Sequence[Task], work: Work) -> Iterator[tuple[Tally, bool]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # It warns that there is no bar of its own.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    pool = _pool(work.settings, len(tasks))
    # A list: Ray hands on the reference in it, and the model goes to each node once.
    shared = [ray.put(work)]
    rows = [{"task": cloudpickle.dumps(task)} for task in tasks]
    data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
    actors: dict[str, Any] = {
        "batch_size": 1,
        "compute": ActorPoolStrategy(size=pool.actors),
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus or None,
        "fn_constructor_args": (shared,),
    }
    if pool.decoders:
        images = data.map_batches(
            partial(_decode, shared=shared), batch_size=1, compute=TaskPoolStrategy(size=pool.decoders)
        )
        read = images.map_batches(_Reads, batch_format="pyarrow", **actors)
        told = read.map_batches(partial(_write, shared=shared), batch_size=1, batch_format="pyarrow")
    else:
        told = data.map_batches(_DoesItAll, **actors)
    tables: Iterator[Any] = iter(told.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2))
    for table in tables:
        for row in table.to_pylist():
            if row["failure"] is not None:
                # Raised here and not in the worker: Ray would wrap it into a stack trace.
                raise UserError(row["failure"])
            yield Tally.from_json(row["tally"]), row["ends"]


class _DoesItAll:
    """An actor for CPUs: decodes, reads and writes; sending pixels to another process would cost more."""

    def __init__(self, shared: list[Any]) -> None:
        self._work: Work = ray.get(shared[0])
        self._reader = self._work.reader()

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        for pickled in batch["task"]:
            try:
                for chunk in decoded(cloudpickle.loads(pickled), self._work):
                    yield _told(written(self._reader.read(chunk), self._work), chunk.last)
            except UserError as error:
                yield _told(None, True, str(error))


def _decode(batch: dict[str, Any], shared: list[Any]) -> Iterator[pa.Table]:
    """Stage 1 of 3, on CPUs: a task to its chunks."""
    work: Work = ray.get(shared[0])
    for pickled in batch["task"]:
        try:
            for chunk in decoded(cloudpickle.loads(pickled), work):
                yield _staged(chunk)
        except UserError as error:
            yield _staged(None, str(error))


class _Reads:
    """Stage 2 of 3, an actor on a GPU: images to readings."""

    def __init__(self, shared: list[Any]) -> None:
        work: Work = ray.get(shared[0])
        self._reader = work.reader()

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            chunk = None if row["chunk"] is None else self._reader.read(pickle.loads(row["chunk"]))
            yield _staged(chunk, row["failure"])


def _write(batch: pa.Table, shared: list[Any]) -> Iterator[pa.Table]:
    """Stage 3 of 3, on CPUs: part files and pages."""
    work: Work = ray.get(shared[0])
    for row in batch.to_pylist():
        if row["chunk"] is None:
            yield _told(None, True, row["failure"])
            continue
        chunk: Chunk = pickle.loads(row["chunk"])
        try:
            yield _told(written(chunk, work), chunk.last)
        except UserError as error:
            yield _told(None, True, str(error))


def _staged(chunk: Chunk | None, failure: str | None = None) -> pa.Table:
    data = None if chunk is None else pickle.dumps(chunk, protocol=5)
    return pa.Table.from_pylist([{"chunk": data, "failure": failure}], schema=_STAGED)


def _told(tally: Tally | None, ends: bool, failure: str | None = None) -> pa.Table:
    row = {"tally": None if tally is None else tally.to_json(), "ends": ends, "failure": failure}
    return pa.Table.from_pylist([row], schema=_TOLD)
