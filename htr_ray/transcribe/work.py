"""Tasks worked off: in this process when there are few lines, by Ray Data when there are many."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console

from htr_ray import storage
from htr_ray.config import TranscribeSettings
from htr_ray.machine import cores
from htr_ray.model.language import LanguageModel
from htr_ray.train.worker import set_threads
from htr_ray.transcribe.lines import Chunk, Recipe, chunks
from htr_ray.transcribe.model import Bundle
from htr_ray.transcribe.part import Output, Tally
from htr_ray.transcribe.reader import Reader
from htr_ray.transcribe.source import Task

_FEW_LINES, _FEW_SEARCHED = 768, 192
_LONGEST_WAIT = 30.0


@dataclass(frozen=True)
class Work:
    """All that a process needs to know to do its part."""

    bundle: Bundle
    settings: TranscribeSettings
    recipe: Recipe
    output: Output
    language: LanguageModel | None = None

    def reader(self, side_by_side: int = 1) -> Reader:
        set_threads(self.settings.threads, self.settings.cpus_per_actor)
        return Reader(self.bundle, self.settings, self.language, side_by_side)

    @property
    def few_lines(self) -> int:
        """Up to about this many lines are read here before a Ray, its actors and torch in each had started.

        A language model is Python and keeps one core busy, whatever the threads; so is a transformer's beam search.
        """
        searches = (self.settings.beam or self.bundle.settings.beam) > 1 and self.bundle.facts["decoder"] != "ctc"
        return _FEW_SEARCHED if searches or self.language is not None else _FEW_LINES


def work_off(tasks: Sequence[Task], work: Work, console: Console) -> Iterator[tuple[Tally, bool]]:
    """Read and write all tasks; yield the figures of each chunk, and whether it ends its task.

    Raises UserError when a store does not answer for long, or the cluster cannot hold a reader.
    """
    few = sum(task.lines for task in tasks) <= work.few_lines and work.settings.actors is None
    if few and not _ray_is_there():
        yield from _here(tasks, work)
    else:
        from htr_ray.transcribe.on_ray import on_ray

        yield from on_ray(tasks, work, console)


def _ray_is_there() -> bool:
    """Whether this process is connected to a Ray. Who has not imported it, which takes a second, is not."""
    module = sys.modules.get("ray")
    return module is not None and bool(module.is_initialized())


def _here(tasks: Sequence[Task], work: Work) -> Iterator[tuple[Tally, bool]]:
    # torch's own threads wait for each other in every operation: where another process wants a core, two of them
    # read 3 lines/s and two batches side by side 30 (small preset, two busy cores).
    reader = work.reader(side_by_side=cores())
    found = itertools.chain.from_iterable(decoded(task, work) for task in tasks)
    for chunk in _ahead(found):
        yield written(reader.read(chunk), work), chunk.last


def _ahead(found: Iterator[Chunk]) -> Iterator[Chunk]:
    """Decode the next chunk while the last one is read."""
    with ThreadPoolExecutor(1, thread_name_prefix="htr-ray-decode") as pool:
        following = pool.submit(next, found, None)
        while (chunk := following.result()) is not None:
            following = pool.submit(next, found, None)
            yield chunk


def decoded(task: Task, work: Work) -> Iterator[Chunk]:
    """The chunks of a task, each once, though a store may fail in between."""
    given = 0
    for wait in _waits(work.settings.retries):
        try:
            for chunk in chunks(task, work.recipe):
                if chunk.number == given:
                    given += 1
                    yield chunk
            return
        except storage.Unavailable:
            if wait is None:
                raise
            time.sleep(wait)


def written(chunk: Chunk, work: Work) -> Tally:
    for wait in _waits(work.settings.retries):
        try:
            return work.output.write(chunk)
        except storage.Unavailable:
            if wait is None:
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _waits(retries: int) -> Iterator[float | None]:
    """Seconds to wait after each attempt that failed; None after the last."""
    yield from (min(2.0**attempt, _LONGEST_WAIT) for attempt in range(retries))
    yield None
