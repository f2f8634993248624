"""The stream: Ray Data reads, decodes and packs lines on CPU workers while the trainer learns.

One Ray Data execution spans many epochs, so there is no pause (and no start-up) between
epochs; its rows are finished batches in a fixed order. A corpus small enough is read once
and kept, still encoded, in Ray's object store; a larger one is read row group by row group
in every epoch.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import DataContext, ExecutionOptions, ExecutionResources, TaskPoolStrategy
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from htr_ray.config import StreamSettings
from htr_ray.corpus.read import Corpus
from htr_ray.errors import UserError
from htr_ray.stream.batch import Batch, BatchMaker, Recipe, unpack
from htr_ray.stream.plan import Plan, laps_for
from htr_ray.stream.scale import scaled_width

logger = logging.getLogger(__name__)

COLUMNS = ["id", "image", "text"]
# Chunks handed to one Ray Data execution; bounds the driver's bookkeeping, not the epochs.
SPAN = 256
# Batches travel in blocks of about this size: large enough to be cheap, small enough to arrive early.
BLOCK_BYTES = 2**20
# How far the stream may run ahead of the trainer, at the least (measured: 3,000 lines of 48x200).
AHEAD_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Source:
    """The lines of one split that a stage uses, as planned; shared by all tasks of a stream.

    ``cached`` is set where the encoded lines are kept in the object store: a one-element
    list, so that Ray hands on the reference and not the lines.
    """

    corpus: Corpus
    plan: Plan
    files: list[str]
    file: np.ndarray
    row_group: np.ndarray
    row: np.ndarray
    cached: list[Any] | None = None

    @property
    def lines(self) -> int:
        return self.plan.lines

    def read(self, lines: np.ndarray) -> pa.Table:
        """Columns ``id``, ``image`` and ``text`` of the given line numbers, in that order."""
        if self.cached is not None:
            return _fetch(self.cached[0]).take(lines)
        order = np.argsort(lines, kind="stable")
        wanted = lines[order]
        parts = []
        start = 0
        groups = np.flatnonzero(np.diff(self.plan.unit[wanted])) + 1
        for stop in [*groups.tolist(), len(wanted)]:
            part = wanted[start:stop]
            table = self.corpus.read_row_group(
                self.files[self.file[part[0]]], int(self.row_group[part[0]]), COLUMNS
            )
            parts.append(table.take(self.row[part]))
            start = stop
        return pa.concat_tables(parts).take(np.argsort(order, kind="stable"))


@functools.lru_cache(maxsize=4)
def _fetch(reference: Any) -> Any:
    """An object of the store; kept per process, so that a task does not map it anew."""
    return ray.get(reference)


@functools.lru_cache(maxsize=4)
def _maker(recipe_key: str, reference: Any) -> BatchMaker:
    return BatchMaker(ray.get(reference))


def open_source(
    corpus: Corpus,
    split: str,
    recipe: Recipe,
    settings: StreamSettings,
    *,
    batch_size: int,
    seed: int,
    only: set[str] | None = None,
    labelled: bool = False,
    min_steps: int = 1,
    workers: int = 1,
) -> Source:
    """Plan the lines of a split.

    ``only`` keeps the lines with these ids; ``labelled`` keeps lines with a text. Raises
    UserError when no line is left, or fewer than there are training workers.
    """
    index = corpus.index(split, columns=("id", "width", "height", "text"))
    keep = np.ones(index.num_rows, dtype=bool)
    if labelled:
        keep &= index["text"].is_valid().to_numpy()
    if only is not None:
        keep &= pc.is_in(index["id"], value_set=pa.array(sorted(only), pa.string())).to_numpy()
    index = index.filter(pa.array(keep))
    lines = index.num_rows
    if lines < max(1, workers):
        raise UserError(
            f"{corpus.uri}: split '{split}' has {lines} {'labelled ' if labelled else ''}lines, "
            f"fewer than needed for {workers} training worker(s); prepare a larger corpus, raise the label "
            "fraction or lower 'workers'"
        )
    widths = np.array(
        [
            scaled_width(w, h, recipe.height, recipe.width_scale, recipe.max_width)
            for w, h in zip(index["width"].to_pylist(), index["height"].to_pylist(), strict=True)
        ],
        dtype=np.int32,
    )
    file, group, row = (index[name].to_numpy() for name in ("file", "row_group", "row"))
    unit = np.cumsum(np.concatenate([[0], (np.diff(file) != 0) | (np.diff(group) != 0)])).astype(np.int32)
    plan = Plan(
        widths=widths,
        unit=unit,
        batch_size=batch_size,
        shuffle_lines=settings.shuffle_lines,
        seed=seed,
        laps=laps_for(lines, batch_size, min_steps),
    )
    source = Source(corpus, plan, corpus.files(split), file, group, row)
    return _cache(source, settings)


def _cache(source: Source, settings: StreamSettings) -> Source:
    """Read a small corpus once; then every line is a unit of its own and epochs shuffle freely."""
    if settings.cache_mb == 0:
        return source
    table = None
    limit = settings.cache_mb * 2**20
    bounds = source.plan._bounds()
    parts, size = [], 0
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        part = source.read(np.arange(start, stop))
        size += part.nbytes
        if size > limit:
            return source
        parts.append(part)
    table = pa.concat_tables(parts).combine_chunks()
    plan = replace(source.plan, unit=np.arange(source.lines, dtype=np.int32))
    return replace(source, plan=plan, cached=[ray.put(table)])


def _make_batches(
    item: pa.Table, *, shared: list[Any], recipe: list[Any], recipe_key: str, rank: int, world: int
) -> Iterator[pa.Table]:
    """The task: one chunk of one pass -> its batches (the slice of this training worker)."""
    source: Source = _fetch(shared[0])
    make = _maker(recipe_key, recipe[0])
    lap, chunk = item["lap"][0].as_py(), item["chunk"][0].as_py()
    chunks = source.plan.chunks(lap)
    batches = source.plan.batches(lap, chunk, chunks[chunk])
    ends_epoch = chunk == len(chunks) - 1 and (lap + 1) % source.plan.laps == 0
    lines = source.read(np.concatenate(batches))
    offset = 0
    for number, batch in enumerate(batches):
        part = lines.slice(offset, len(batch)).take(np.arange(rank, len(batch), world)).to_pydict()
        offset += len(batch)
        yield make(
            part,
            lap=lap,
            epoch=lap // source.plan.laps,
            total=len(batch),
            last=ends_epoch and number == len(batches) - 1,
        )


def stream(
    source: Source,
    recipe: Recipe,
    settings: StreamSettings,
    *,
    first_epoch: int = 0,
    epochs: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    """Yield this worker's batches, epoch after epoch, in a fixed order.

    Without ``epochs`` the stream does not end; stop iterating and close the generator.
    The union of all ranks' batches at a step is the same for any ``world``.
    """
    shared, recipe_ref = [ray.put(source)], [ray.put(recipe)]
    run = functools.partial(
        _make_batches, shared=shared, recipe=recipe_ref, recipe_key=repr(recipe), rank=rank, world=world
    )
    batch_bytes = source.plan.batch_size * recipe.height * int(source.plan.widths.max()) // world
    lap = first_epoch * source.plan.laps
    end = None if epochs is None else (first_epoch + epochs) * source.plan.laps
    while end is None or lap < end:
        items: list[dict[str, int]] = []
        while len(items) < SPAN and (end is None or lap < end):
            items += [{"lap": lap, "chunk": chunk} for chunk in range(len(source.plan.chunks(lap)))]
            lap += 1
        yield from _execute(items, run, settings, max(AHEAD_BYTES, 2 * settings.prefetch_batches * batch_bytes))


def _strategy() -> Any:
    """Inside a Tune trial: the CPUs that its placement group reserves for the stream. Elsewhere: any node."""
    group = ray.util.get_current_placement_group()
    return "SPREAD" if group is None else PlacementGroupSchedulingStrategy(group)


def _execute(
    items: list[dict[str, int]], run: Any, settings: StreamSettings, ahead_bytes: int
) -> Iterator[Batch]:
    context = DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options = ExecutionOptions(
        preserve_order=True,
        # Without a limit the stream would run many epochs ahead of the trainer.
        resource_limits=ExecutionResources.for_limits(object_store_memory=ahead_bytes),
    )
    strategy = _strategy()
    with DataContext.current(context):
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            run,
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=settings.cpus_per_worker,
            compute=TaskPoolStrategy(size=settings.workers),
            ray_remote_args_fn=lambda: {
                "max_retries": settings.read_retries,
                "scheduling_strategy": strategy,
            },
        )
        for table in dataset.iter_batches(
            batch_size=1, batch_format="pyarrow", prefetch_batches=settings.prefetch_batches
        ):
            yield unpack(table)
