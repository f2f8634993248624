"""The stream: Ray Data reads, decodes and packs lines on CPU workers while the trainer learns.

Its rows are finished batches in a fixed order. The next Ray Data execution starts while
the trainer still uses the last one, across epochs, so there is no pause between epochs.
Training lines that fit are read, decoded and scaled once and kept in Ray's object store;
if only the encoded files fit, those are kept; a larger corpus is read row group by row
group in every epoch.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from pyarrow import fs
from ray.data import DataContext, ExecutionOptions, TaskPoolStrategy
from ray.exceptions import RaySystemError

from htr_ray import storage
from htr_ray.config import StreamSettings
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Split
from htr_ray.errors import UserError
from htr_ray.stream.batch import Batch, BatchMaker, Recipe, to_table, unpack
from htr_ray.stream.lines import Lines, Piece, gather
from htr_ray.stream.plan import Plan, laps_for, parts_for
from htr_ray.stream.scale import scaled_width

logger = logging.getLogger(__name__)

COLUMNS = ["id", "image", "text"]
# Chunks in one Ray Data execution at the most.
MAX_CHUNKS = 64
# Batches travel in blocks of about this size: large enough to be cheap (each costs Ray Data's loop a turn or two, in
# the trainer's process), small enough to arrive early.
BLOCK_BYTES = 4 * 2**20
# Scaled lines made in one go, at the least (3,000 lines of 48x200 are 28 MiB): to start an execution costs up to a
# second, which half of the last one has to hide.
AHEAD_BYTES = 64 * 2**20
# And at the most: they lie in the object store.
MOST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Source:
    """The lines of one split that a stage uses, as planned; shared by all tasks of a stream.

    ``cached`` is set where the lines are kept in the object store: references to their pieces
    (:class:`Piece`), in order; Ray hands on references in a container, not what they refer to.
    ``scaling`` is set where those are scaled already: to what (:attr:`Recipe.scaling`).
    """

    corpus: Corpus
    plan: Plan
    files: list[str]
    file: np.ndarray
    row_group: np.ndarray
    row: np.ndarray
    height: int
    cached: tuple[Any, ...] | None = None
    scaling: tuple[int, float, int] | None = None

    @property
    def lines(self) -> int:
        return self.plan.lines

    def reach(self, lines: np.ndarray) -> tuple[Lines, np.ndarray]:
        """What holds the given line numbers, and the number of each in there."""
        if self.cached is not None:
            return _kept(self.cached, self.height), lines
        order = np.argsort(lines, kind="stable")
        wanted = lines[order]
        pieces = gather(self.read, np.split(wanted, np.flatnonzero(np.diff(self.plan.unit[wanted])) + 1))
        assert pieces is not None
        return Lines(pieces, self.height), np.argsort(order, kind="stable")

    def read(self, lines: np.ndarray) -> Piece:
        """The encoded lines of these numbers, all of one row group, from storage."""
        at = lines[0]
        table = self.corpus.read_row_group(self.files[self.file[at]], int(self.row_group[at]), COLUMNS)
        return Piece.of(table.take(self.row[lines]))


# One of each: what a process keeps stays in the store, and processes outlive streams. Where trials take turns in a
# process, to map lines anew costs 0.5 ms for 5,000 of them, 40 ms for 200,000.
@functools.lru_cache(maxsize=1)
def _fetch(reference: Any) -> Any:
    """An object of the store; kept per process, so that a task does not map it anew."""
    return ray.get(reference)


@functools.lru_cache(maxsize=1)
def _kept(references: tuple[Any, ...], height: int) -> Lines:
    """Lines of the store, likewise."""
    return Lines(ray.get(list(references)), height)


@functools.lru_cache(maxsize=4)
def _maker(recipe_key: str, reference: Any) -> BatchMaker:
    return BatchMaker(ray.get(reference))


def open_source(
    corpus: Corpus,
    split: Split,
    recipe: Recipe,
    settings: StreamSettings,
    *,
    batch_size: int,
    seed: int,
    only: set[str] | None = None,
    labelled: bool = False,
    min_steps: int = 1,
    max_steps: int | None = None,
    workers: int = 1,
) -> Source:
    """Plan the lines of a split.

    ``only`` keeps the lines with these ids; ``labelled`` keeps lines with a text. Raises
    UserError when no line is left, or fewer than there are training workers, or batches
    are too small to be shared by them.
    """
    if workers > 1 and batch_size < 2 * workers:  # batches may be half full, see Plan.batches
        raise UserError(
            f"batch_size = {batch_size}: too small for {workers} training workers; at least {2 * workers}, "
            "or lower 'workers'"
        )
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
    source = Source(corpus, plan, corpus.files(split), file, group, row, recipe.height)
    source = _cache(source, recipe, split, lines / len(keep), settings.cache_mb * 2**20)
    # Once it is known what a unit is.
    return replace(source, plan=replace(source.plan, parts=parts_for(source.plan, max_steps)))


def _cache(source: Source, recipe: Recipe, split: Split, share: float, limit: int) -> Source:
    """Read a corpus once that fits into ``limit`` bytes; then every line is a unit and epochs shuffle freely.

    ``share`` of the split's lines are those of ``source``.
    """
    if limit == 0:
        return source
    # OpenCV's own threads would only fight with those that read.
    cv2.setNumThreads(0)
    bounds = source.plan._bounds()
    units = np.split(np.arange(source.lines), bounds[1:-1])
    pieces = scaling = None
    # Of the other splits, the trainer keeps the finished batches: their lines pass here once.
    if split == "train" and recipe.height * int(source.plan.widths.sum(dtype=np.int64)) <= limit:
        pieces, scaling = (
            gather(lambda part: source.read(part).scale(recipe.scaled), units, limit, ray.put),
            recipe.scaling,
        )
    if pieces is None and share * _file_bytes(source.corpus, split) <= limit:
        pieces, scaling = gather(source.read, units, limit, ray.put), None
    if pieces is None:
        return source
    plan = replace(source.plan, unit=np.arange(source.lines, dtype=np.int32))
    return replace(source, plan=plan, cached=tuple(pieces), scaling=scaling)


def _file_bytes(corpus: Corpus, split: Split) -> int:
    """Size of the part files of a split: nearly all of it encoded images. One request, nothing is read."""
    uris = corpus.files(split)
    filesystem, folder = storage.filesystem(storage.join(corpus.uri, split))
    with storage.user_errors(corpus.uri):
        found = filesystem.get_file_info(fs.FileSelector(folder))
    names = {uri.rsplit("/", 1)[-1] for uri in uris}
    return sum(info.size for info in found if info.base_name in names)


def _make_batches(
    item: pa.Table, *, shared: list[Any], recipe: list[Any], recipe_key: str, rank: int, world: int
) -> Iterator[pa.Table]:
    """The task: one chunk of one pass -> its batches (the slice of this training worker)."""
    source: Source = _fetch(shared[0])
    make = _maker(recipe_key, recipe[0])
    lap, chunk, epoch, ends_epoch = (item[name][0].as_py() for name in ("lap", "chunk", "epoch", "ends"))
    batches = source.plan.batches(lap, chunk, source.plan.chunks(lap)[chunk])
    lines, numbers = source.reach(np.concatenate(batches))
    ends = np.cumsum([len(batch) for batch in batches])
    ready: list[Batch] = []
    size = 0
    for number, batch in enumerate(np.split(numbers, ends[:-1])):
        ready.append(
            make.batch(
                lines.columns(batch[rank::world]),
                lap=lap,
                epoch=epoch,
                total=len(batch),
                last=ends_epoch and number == len(batches) - 1,
            )
        )
        size += ready[-1].images.nbytes
        if size >= BLOCK_BYTES:
            yield to_table(ready)
            ready, size = [], 0
    if ready:
        yield to_table(ready)


def stream(
    source: Source,
    recipe: Recipe,
    settings: StreamSettings,
    *,
    first_epoch: int = 0,
    epochs: int | None = None,
    rank: int = 0,
    world: int = 1,
    placement: Any = "SPREAD",
) -> Generator[Batch, None, None]:
    """Yield this worker's batches, epoch after epoch, in a fixed order.

    ``placement`` is Ray's scheduling strategy for the CPU workers. Without ``epochs`` the
    stream does not end; stop iterating and close the generator. The union of all ranks'
    batches at a step is the same for any ``world``. Raises ValueError where the lines are kept
    as another recipe wants them.
    """
    if source.scaling not in (None, recipe.scaling):
        raise ValueError(f"the lines were opened for height, width_scale, max_width {source.scaling}: {recipe.scaling}")
    shared, recipe_ref = [ray.put(source)], [ray.put(recipe)]
    make = functools.partial(
        _make_batches, shared=shared, recipe=recipe_ref, recipe_key=repr(recipe), rank=rank, world=world
    )
    line_bytes = recipe.height * int(source.plan.widths.mean() + 1)
    prefetch = -(-settings.prefetch_batches * source.plan.batch_size * line_bytes // BLOCK_BYTES)
    start = functools.partial(_start, make=make, settings=settings, placement=placement, prefetch=prefetch)
    rounds = _rounds(source.plan, line_bytes, settings, first_epoch, epochs, world)
    with ThreadPoolExecutor(1, thread_name_prefix="htr-ray-stream") as background:
        following = background.submit(start, next(rounds, None))
        try:
            while (batches := following.result()) is not None:
                current, size = batches
                try:
                    for number, table in enumerate(current):
                        if number == size // 2:
                            following = background.submit(start, next(rounds, None))
                        yield unpack(table)
                finally:
                    current.close()
        finally:
            if (rest := following.result()) is not None:
                rest[0].close()


def _rounds(
    plan: Plan, line_bytes: int, settings: StreamSettings, first_epoch: int, epochs: int | None, world: int
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Chunks of which one of ``world`` workers' shares is made in one Ray Data execution, and their number of batches.

    A round is finite and unthrottled: Ray Data's loop spins, and takes the trainer's
    interpreter lock, while it holds finished output back (measured: 19 instead of 60
    lines/s). The next round starts when half of this one is used, so the stream is at
    most one and a half rounds ahead.
    """
    items: list[dict[str, Any]] = []
    steps = size = 0
    for epoch in itertools.count(first_epoch):
        if epochs is not None and epoch >= first_epoch + epochs:
            break
        chunks = plan.epoch(epoch)
        for place, (lap, number, lines) in enumerate(chunks, 1):
            items.append({"lap": lap, "chunk": number, "epoch": epoch, "ends": place == len(chunks)})
            steps += -(-lines // plan.batch_size)
            size += lines * line_bytes // world
            # Enough chunks that every CPU worker has one in hand and one to come, if they are not too large for that.
            enough = size >= AHEAD_BYTES and len(items) >= min(2 * settings.workers, MAX_CHUNKS)
            if enough or size >= MOST_BYTES:
                yield items, steps
                items, steps, size = [], 0, 0
    if items:
        yield items, steps


def _start(
    work: tuple[list[dict[str, Any]], int] | None, *, make: Any, settings: StreamSettings, placement: Any, prefetch: int
) -> tuple[Generator[pa.Table, None, None], int] | None:
    """Start a round; returns its rows, one per batch, and their number, or None at the end.

    ``prefetch`` blocks are brought to this node ahead of need.
    """
    if work is None:
        return None
    items, steps = work
    context = DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options = ExecutionOptions(preserve_order=True)
    # Ray Data's own budget is zero until a second after an execution's start, and in a job's first one until an actor
    # of its own has started: until then one task runs at a time. Ours is settings.workers; rounds bound what is ahead.
    context.op_resource_reservation_enabled = False
    with DataContext.current(context):
        # Whole blocks: to cut them into rows costs Ray Data more than it costs us.
        blocks = iter(
            ray.data.from_items(items, override_num_blocks=len(items))
            .map_batches(
                make,
                batch_size=1,
                batch_format="pyarrow",
                zero_copy_batch=True,
                num_cpus=settings.cpus_per_worker,
                compute=TaskPoolStrategy(size=settings.workers),
                ray_remote_args_fn=lambda: {
                    "max_retries": settings.read_retries,
                    "retry_exceptions": [storage.Unavailable, RaySystemError],  # the second is Ray Data's own
                    "scheduling_strategy": placement,
                },
            )
            .iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=prefetch)
        )
        # The first block sets the execution going; the rest is made while the trainer is busy elsewhere.
        first = next(blocks)

    def all_rows() -> Generator[pa.Table, None, None]:
        for block in itertools.chain([cast(pa.Table, first)], cast(Iterator[pa.Table], blocks)):
            for row in range(block.num_rows):
                yield block.slice(row, 1)

    return all_rows(), steps
