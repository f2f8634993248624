"""Units worked through by processes of this machine: what Ray does on a cluster, without the seconds of its start."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import pyarrow as pa

from htr_ray.corpus.work import batches_of
from htr_ray.errors import UserError

_AHEAD = 2
"""Units per worker that are begun or wait, done, for those in front of them; what they hold bounds memory."""
_TRIES = 2


def work_through(units: Iterable[tuple[str, bytes]], workers: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Have ``units`` (what each is called, and it pickled) worked through by ``workers`` processes.

    Yields pairs in the order of the units: the number of the unit, from 1, and a batch of its lines
    (``work.INGESTED``). In memory are the lines of two units per worker at most. Where a worker dies, what was in
    flight is done again, one unit by one. Raises what the unit raises, or UserError if it killed two workers.
    """
    source = iter(units)
    waiting: deque[tuple[str, bytes, Future[list[pa.RecordBatch]] | None]] = deque()
    pool = _pool(workers)
    number = tries = 0
    try:
        while True:
            for name, unit in islice(source, workers * _AHEAD - len(waiting)):
                waiting.append((name, unit, _submitted(pool, unit)))
            if not waiting:
                return
            name, unit, future = waiting.popleft()
            alone = all(other is None or _if_done(other) is not None for _, _, other in waiting)
            try:
                found = (future or pool.submit(_work, unit)).result()
            except BrokenProcessPool as error:
                # Which of the units in flight it was is not known, unless there was only one.
                tries += alone
                if tries == _TRIES:
                    raise UserError(
                        f"{name}: the process that worked on it ended {_TRIES} times; too little memory, or a file"
                        " that a decoder cannot stand: take it out of the input"
                    ) from error
                pool.shutdown()
                pool = _pool(workers)
                waiting = deque((*item[:2], _if_done(item[2])) for item in [(name, unit, None), *waiting])
                continue
            number, tries = number + 1, 0
            for batch in found:
                yield number, batch
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not forked: a fork copies locks of threads that exist only here (Arrow's, boto3's).
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)


def _submitted(pool: ProcessPoolExecutor, unit: bytes) -> Future[list[pa.RecordBatch]] | None:
    """The unit in flight, or None where a worker has just died: it is tried when its turn comes."""
    try:
        return pool.submit(_work, unit)
    except BrokenProcessPool:
        return None


def _if_done(future: Future[list[pa.RecordBatch]] | None) -> Future[list[pa.RecordBatch]] | None:
    return future if future is not None and future.done() and future.exception() is None else None


def _begin() -> None:
    """A worker's first task: be quiet, leave Ctrl-C to the job, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoders grumble about files that are set aside anyway.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    threading.Thread(target=_end_with_the_job, daemon=True).start()


def _end_with_the_job() -> None:
    job = multiprocessing.parent_process()
    if job is not None:
        job.join()
        os._exit(1)


def _work(unit: bytes) -> list[pa.RecordBatch]:
    return list(batches_of(pickle.loads(unit)))
