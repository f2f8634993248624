"""The faults: each strikes a running grid at a random moment, and says whether it really struck."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
from chaos_grid import Grid, InS3, OnDisk
from chaos_world import Cluster, Server

TRAINER = "ray::ImplicitFunc.train"
STREAM = "ray::MapBatches"
NOTICE = 120.0
"""Seconds to wait for somebody to run into a fault."""


@dataclass
class Arena:
    """What a fault may strike."""

    grid: Grid
    cluster: Cluster
    mlflow: Server
    rng: random.Random
    away: float
    """Seconds that a server stays away."""
    meanwhile: list[threading.Timer] = field(default_factory=list)
    """Faults that end later."""

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *_: object) -> None:
        self.calm()

    def calm(self) -> None:
        """Wait for the end of the faults that go on."""
        for timer in self.meanwhile:
            timer.join()
        self.meanwhile.clear()

    def find(self, ready: Callable[[], object], seconds: float = NOTICE) -> bool:
        """Wait until ``ready()`` while the driver lives; whether it came to that."""
        deadline = time.monotonic() + seconds
        while self.grid.driver.alive and time.monotonic() < deadline:
            if ready():
                return True
            time.sleep(0.3)  # looking through the processes takes as long as a training step
        return False


def training_worker(arena: Arena) -> str | None:
    """``kill -9`` of a process that trains."""
    return _kill(arena, TRAINER)


def stream_worker(arena: Arena) -> str | None:
    """``kill -9`` of a process that makes batches."""
    return _kill(arena, STREAM)


def _kill(arena: Arena, title: str) -> str | None:
    processes: list[psutil.Process] = []

    def there() -> bool:
        processes[:] = arena.cluster.workers(title)
        return bool(processes)

    if not arena.find(there):
        return None
    victim = arena.rng.choice(processes)
    try:
        victim.kill()
    except psutil.Error:  # it ended at the same moment
        return None
    return f"process {victim.pid}"


def node(arena: Arena) -> str | None:
    """A node with all that runs on it, a trial at least; it comes back later."""
    used: list[int] = []

    def busy() -> bool:
        raylets = arena.cluster.ask("raylets")
        with suppress(psutil.Error):  # one of them ends at this moment
            parents = {process.ppid() for process in arena.cluster.workers(TRAINER)}
            used[:] = [number for number, raylet in enumerate(raylets) if raylet in parents]
        return bool(used)

    if not arena.find(busy):
        return None
    name = arena.cluster.ask("remove", arena.rng.choice(used))
    time.sleep(arena.rng.uniform(0.5, 8.0))
    arena.cluster.ask("restore")
    return f"node {name[:8]}"


def driver(arena: Arena) -> str | None:
    """``kill -9`` of the driver, and the same command again."""
    if not arena.grid.driver.alive:
        return None
    arena.grid.driver.kill()
    time.sleep(arena.rng.uniform(0.0, 2.0))
    arena.grid.driver.start()
    return "the same command again"


def mlflow(arena: Arena) -> str | None:
    """The MLflow server is away for a while, and other faults happen meanwhile."""
    if arena.meanwhile or not arena.find(lambda: arena.cluster.workers(TRAINER)):
        return None
    arena.mlflow.kill()
    back = threading.Timer(arena.away, arena.mlflow.start)
    back.start()
    arena.meanwhile.append(back)
    # No driver ends before it has logged, so it meets this.
    return f"for {arena.away:.0f} s and its start"


def checkpoint(arena: Arena) -> str | None:
    """The driver is killed, the newest checkpoint of a trial damaged meanwhile, then the same command again."""
    grid, rng = arena.grid, arena.rng
    if not arena.find(grid.checkpoints):
        return None
    arena.calm()  # the driver that is to tell about it must start
    if not grid.driver.alive:
        return None
    grid.driver.kill()
    deadline = time.monotonic() + NOTICE
    while arena.cluster.workers("ray::ImplicitFunc") and time.monotonic() < deadline:
        time.sleep(0.1)
    damaged = grid.checkpoints()
    told = None
    if damaged:
        folder = rng.choice(sorted(damaged))
        path = rng.choice(damaged[folder])
        content = bytearray(grid.place.read(path))
        if rng.random() < 0.5:
            content = content[: rng.randrange(len(content))]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        grid.place.write(path, bytes(content))
        told = f"{path}, {len(content)} bytes now"
    grid.driver.start()
    if told is None:
        return None
    name = folder.rpartition("/")[2]
    # The proof that it struck is that the user is told so.
    assert arena.find(lambda: f"{name}: damaged checkpoint" in grid.driver.said(), 300.0), f"{folder}: not told"
    return told


def disk_full(arena: Arena) -> str | None:
    """The disk of the grid's storage is full until somebody has noticed, and a little longer."""
    assert isinstance(arena.grid.place, OnDisk) and arena.grid.place.disk is not None
    disk, said = arena.grid.place.disk, arena.grid.driver.said
    if not arena.find(lambda: arena.cluster.workers(TRAINER)):
        return None
    before = said().count("is full")
    disk.fill()
    try:
        struck = arena.find(lambda: said().count("is full") > before)
        time.sleep(arena.rng.uniform(0.0, 5.0))
    finally:
        disk.free()
    return "noticed" if struck else None


def parquet(arena: Arena) -> str | None:
    """A part of the corpus is truncated until a trial has failed for it, then as it was."""
    grid = arena.grid
    path = arena.rng.choice([path for path in grid.place.files(grid.corpus) if "/train/" in path])
    content = grid.place.read(path)
    before = grid.driver.said().count("FAILED")
    grid.place.write(path, content[: arena.rng.randrange(len(content))])
    try:
        struck = arena.find(lambda: grid.driver.said().count("FAILED") > before)
    finally:
        grid.place.write(path, content)
    return path if struck else None


def s3(mode: str) -> Callable[[Arena], str | None]:
    """S3 misbehaves towards a random share of the requests, until a random number of them has met it."""

    def fault(arena: Arena) -> str | None:
        assert isinstance(arena.grid.place, InS3)
        store, share, many = arena.grid.place.s3, arena.rng.uniform(0.2, 0.8), arena.rng.randrange(1, 12)
        if not arena.find(lambda: arena.cluster.workers("ray::ImplicitFunc")):
            return None
        before = store.strike(mode, share)
        try:
            arena.find(lambda: store.strike(mode, share) >= before + many)
        finally:
            struck = store.strike("well", 0.0) - before
        return f"{struck} requests ({share:.0%})" if struck else None

    return fault


EVERYWHERE = {
    "training worker killed": training_worker,
    "stream worker killed": stream_worker,
    "node lost": node,
    "driver killed": driver,
    "MLflow away": mlflow,
    "newest checkpoint damaged": checkpoint,
    "Parquet file truncated": parquet,
}
BY_PLACE = {
    "disk": {"disk full": disk_full},
    "s3": {
        "S3 answers 500": s3("error"),
        "S3 slow": s3("slow"),
        "S3 resets connections": s3("reset"),
        "S3 away": s3("away"),
    },
}
