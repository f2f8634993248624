"""Units worked through by processes of this machine: what Ray does on a cluster, without the seconds of its start.

A worker is told a unit on its standard input and answers with frames on its standard output: one letter, the length,
the content. It ends with its input, so none outlives the job. :func:`main` is the worker's side.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO, cast

import pyarrow as pa

from htr_ray.corpus.work import INGESTED, batches_of
from htr_ray.errors import UserError

AHEAD_BYTES = 32 << 20
"""What a worker may put down of its unit before the units in front of it are done with."""
_AHEAD_UNITS = 2
_TRIES = 2
_FRAME = struct.Struct("<cQ")
_BATCH, _END, _USER_ERROR, _FAULT = b"B", b"E", b"U", b"F"
_PIPE_BYTES = 1 << 20
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from htr_ray.corpus.processes import main; main()"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_through(units: Iterable[tuple[str, bytes]], workers: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Have ``units`` (what each is called, and it pickled) worked through by ``workers`` processes.

    Yields pairs in the order of the units: the number of the unit, from 1, and a batch of its lines
    (:data:`INGESTED`). Memory is bounded, whatever the units hold. A unit whose worker dies gets another one, once.
    Raises UserError as the unit does, or if its worker died twice.
    """
    idle: SimpleQueue[_Worker] = SimpleQueue()
    all_workers = [_Worker() for _ in range(workers)]
    for worker in all_workers:
        idle.put(worker)
    source = iter(units)
    waiting: deque[_Result] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        number = 0
        while True:
            while len(waiting) < workers * _AHEAD_UNITS and (unit := next(source, None)) is not None:
                waiting.append(_Result(*unit))
                pool.submit(_fill, waiting[-1], idle)
            if not waiting:
                return
            number += 1
            for batch in waiting[0].batches():
                yield number, batch
            waiting.popleft()
    finally:
        for result in waiting:
            result.abandon()
        for worker in all_workers:
            worker.end()
        pool.shutdown(cancel_futures=True)
        for worker in all_workers:
            worker.close()


class _Died(Exception):
    """A worker ended in the middle of a unit; the argument is its exit status."""


class _Result:
    """What comes of one unit: filled by a thread, emptied by another."""

    def __init__(self, name: str, unit: bytes) -> None:
        self.name, self.unit = name, unit
        self.begun = 0
        """Batches that were put in."""
        self._waiting: deque[pa.RecordBatch] = deque()
        self._bytes = 0
        self._ended = False
        self._error: Exception | None = None
        self._changed = threading.Condition()

    def put(self, batch: pa.RecordBatch) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < AHEAD_BYTES or self._ended)
            self._waiting.append(batch)
            self._bytes += batch.nbytes
            self.begun += 1
            self._changed.notify_all()

    def end(self, error: Exception | None = None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        self.end()

    def batches(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    if self._error is not None:
                        raise self._error
                    return
                batch = self._waiting.popleft()
                self._bytes -= batch.nbytes
                self._changed.notify_all()
            yield batch


def _fill(result: _Result, idle: SimpleQueue[_Worker]) -> None:
    """A thread's task: give a unit to a worker that is idle, take what it says."""
    worker = idle.get()
    try:
        for tries_left in reversed(range(_TRIES)):
            try:
                worker.do(result)
                break
            except _Died as error:
                worker.restart()
                if not tries_left:
                    raise UserError(
                        f"{result.name}: the process that worked on it ended {_TRIES} times ({error.args[0]});"
                        " too little memory, or a file that a decoder cannot stand: take it out of the input"
                    ) from error
        result.end()
    except Exception as error:
        result.end(error)
    finally:
        idle.put(worker)


class _Worker:
    """One process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Decoders grumble there about files that are set aside anyway; faults come as frames.
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        with contextlib.suppress(ImportError, AttributeError, OSError):  # only Linux knows it, and not always grants it
            import fcntl

            fcntl.fcntl(cast("IO[bytes]", process.stdout), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return process

    def do(self, result: _Result) -> None:
        """Send the unit, pass on its batches - not those again that came before its last worker died."""
        skip = result.begun
        try:
            stdin = cast("IO[bytes]", self._process.stdin)
            stdin.write(_FRAME.pack(_BATCH, len(result.unit)))
            stdin.write(result.unit)
            stdin.flush()
        except OSError as error:
            raise _Died(self._status()) from error
        while True:
            kind, content = self._frame()
            if kind == _BATCH:
                if skip:
                    skip -= 1
                else:
                    result.put(pa.ipc.read_record_batch(content, INGESTED))
            elif kind == _END:
                return
            elif kind == _USER_ERROR:
                raise UserError(bytes(content).decode())
            else:
                raise RuntimeError(f"{result.name}: {bytes(content).decode()}")

    def _frame(self) -> tuple[bytes, pa.Buffer]:
        kind, size = _FRAME.unpack(self._read(_FRAME.size))
        return kind, self._read(size)

    def _read(self, size: int) -> pa.Buffer:
        buffer = pa.allocate_buffer(size)
        view, done = memoryview(buffer).cast("B"), 0
        while done < size:
            got = cast("IO[bytes]", self._process.stdout).readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise _Died(self._status())
            done += got
        return buffer

    def _status(self) -> str:
        status = self._process.wait()
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def restart(self) -> None:
        with self._lock:
            if not self._ended:
                self.close()
                self._process = self._start()

    def end(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._ended = True
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", stream).close()


def main() -> None:
    """A worker: units in, frames out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the job's, and the end of the job is ours
    source = sys.stdin.buffer
    # What a library prints must not get among the frames.
    with os.fdopen(os.dup(1), "wb", _PIPE_BYTES) as out, contextlib.suppress(BrokenPipeError):
        os.dup2(2, 1)
        while head := source.read(_FRAME.size):
            unit = source.read(_FRAME.unpack(head)[1])
            try:
                for batch in batches_of(pickle.loads(unit)):
                    _send(out, _BATCH, batch.serialize())
                _send(out, _END, b"")
            except BrokenPipeError:
                raise
            except UserError as error:
                _send(out, _USER_ERROR, str(error).encode())
            except Exception:
                _send(out, _FAULT, traceback.format_exc().encode())


def _send(out: IO[bytes], kind: bytes, content: bytes | pa.Buffer) -> None:
    out.write(_FRAME.pack(kind, len(content)))
    out.write(content)
    out.flush()
