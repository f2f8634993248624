"""Worker processes: the order of the units, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray import cloudpickle

from htr_ray import storage
from htr_ray.corpus.importers.check import RawLine, check_line
from htr_ray.corpus.processes import work_through
from htr_ray.corpus.schema import Imported, SetAside
from htr_ray.errors import UserError

LINES = 150


@dataclass(frozen=True)
class Slow:
    """A unit of 150 lines that takes ``seconds`` before its first."""

    number: int
    seconds: float = 0.0

    def lines(self) -> Iterator[Imported | SetAside]:
        time.sleep(self.seconds)
        print("a library that talks on standard output")
        for line in range(LINES):
            yield check_line(RawLine(f"{self.number}-{line}", np.full((9, 30), 200, np.uint8), "text"))


@dataclass(frozen=True)
class Deadly:
    """Kills its worker after 100 lines, ``times`` times."""

    number: int
    folder: str
    times: int
    seconds: float = 0.0

    def lines(self) -> Iterator[Imported | SetAside]:
        for line, item in enumerate(Slow(self.number, self.seconds).lines()):
            if line == 100 and len(os.listdir(self.folder)) < self.times:
                Path(self.folder, str(len(os.listdir(self.folder)))).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


@dataclass(frozen=True)
class Broken:
    """A unit with a fault of ours, or of the store."""

    error: Exception

    def lines(self) -> Iterator[Imported | SetAside]:
        raise self.error


@dataclass(frozen=True)
class Begun:
    """Says in a folder that somebody has begun with it."""

    number: int
    folder: str

    def lines(self) -> Iterator[Imported | SetAside]:
        Path(self.folder, str(self.number)).touch()
        yield from Slow(self.number).lines()


@pytest.fixture(autouse=True, scope="module")
def by_value() -> Iterator[None]:
    """Workers do not find the modules of tests."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def pickled(units: list[object]) -> list[tuple[str, bytes]]:
    return [(f"unit {number}", cloudpickle.dumps(unit)) for number, unit in enumerate(units, start=1)]


def ids(units: list[object]) -> list[tuple[int, str]]:
    return [(number, id_) for number, batch in work_through(pickled(units), 2) for id_ in batch["id"].to_pylist()]


def expected(count: int) -> list[tuple[int, str]]:
    return [(number, f"{number}-{line}") for number in range(1, count + 1) for line in range(LINES)]


def test_the_order_is_that_of_the_units() -> None:
    """The first takes longest, and there are more than may be ahead of it."""
    assert ids([Slow(1, 0.5), *(Slow(number) for number in range(2, 12))]) == expected(11)


def test_a_worker_that_dies_is_replaced_and_no_line_comes_twice(tmp_path: Path) -> None:
    assert ids([Slow(1), Deadly(2, str(tmp_path), 1), Slow(3), Slow(4)]) == expected(4)
    assert os.listdir(tmp_path) == ["0"]


def test_a_unit_that_always_kills_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^unit 2: the process that worked on it ended 2 times; too little memory"):
        ids([Slow(1), Deadly(2, str(tmp_path), 9), Slow(3)])


def test_a_unit_that_always_kills_is_named_beside_one_that_is_done(tmp_path: Path) -> None:
    """What is done behind it is no other suspect: it was tried again without end."""
    with pytest.raises(UserError, match=r"^unit 1: the process that worked on it ended 2 times"):
        ids([Deadly(1, str(tmp_path), 99, seconds=0.5), *(Slow(number) for number in range(2, 7))])


def test_a_worker_that_dies_while_nobody_asks_is_replaced(tmp_path: Path) -> None:
    units = pickled([Slow(1), Deadly(2, str(tmp_path), 1), *(Slow(number) for number in range(3, 9))])
    found = []
    for number, batch in work_through(units, 2):
        found += [(number, id_) for id_ in batch["id"].to_pylist()]
        while not os.listdir(tmp_path):
            time.sleep(0.05)
        time.sleep(0.2 if number == 1 else 0.0)
    assert found == expected(8)


def test_errors_come_as_they_are() -> None:
    with pytest.raises(UserError, match=r"^s3://bucket: does not answer$"):
        ids([Slow(1), Broken(storage.Unavailable("s3://bucket: does not answer")), Slow(3)])
    with pytest.raises(ZeroDivisionError, match="a fault"):
        ids([Slow(1), Broken(ZeroDivisionError("a fault"))])


def test_few_units_are_ahead_and_nothing_outlives_it(tmp_path: Path) -> None:
    """While the first is not taken, no more are begun than may wait; and all ends when nobody asks for more."""
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    batches = work_through(pickled([Begun(number, str(tmp_path)) for number in range(30)]), 2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert {"0"} <= set(os.listdir(tmp_path)) <= {str(number) for number in range(4)}
    # Python keeps one process of its own to look after what processes share.
    left = [child for child in me.children(recursive=True) if child.pid not in before]
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in left)


JOB = """
import os, sys
sys.path[:0] = {path!r}
from ray import cloudpickle
import test_processes
cloudpickle.register_pickle_by_value(test_processes)
if __name__ == "__main__":
    units = test_processes.pickled([test_processes.Slow(1), *(test_processes.Slow(n, 600) for n in range(2, 5))])
    for number, _ in test_processes.work_through(units, 2):
        print(number, flush=True)
"""


def test_workers_end_with_a_job_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(JOB.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[2])]))
    job = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert job.stdout is not None and job.stdout.readline() == b"1\n"
    workers = [child for child in psutil.Process(job.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert workers
    job.kill()
    job.wait()
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert not alive
