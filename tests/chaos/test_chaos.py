"""Faults at random moments of a real grid: it ends as if nothing had been. The long run is ``make chaos``."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from chaos_faults import BY_PLACE, EVERYWHERE, Arena
from chaos_grid import Grid, InS3, OnDisk, Place
from chaos_world import S3, Cluster, Disk, Server, mlflow_server

LONG = int(os.environ.get("HTR_RAY_CHAOS", "50"))
SEED = int(os.environ.get("HTR_RAY_CHAOS_SEED", "1"))
AWAY = 30.0 if "HTR_RAY_CHAOS" in os.environ else 3.0
MOST = 11  # faults of one grid


@dataclass
class World:
    """Everything around the grids, and what an undisturbed one leaves."""

    root: Path
    corpus: str
    cluster: Cluster
    s3: S3
    mlflow: Server
    tracking: str
    fractions: str = "[1.0]"
    epochs: int = 5
    outcome: dict[str, Any] = field(default_factory=dict)

    def grid(self, name: str, place: Place) -> Grid:
        return Grid(
            name,
            place,
            corpus=self.corpus,
            address=self.cluster.address,
            tracking=self.tracking,
            logs=self.root,
            settings=[
                *(f"label_fractions={self.fractions}", "finetune.retries=8", "pretrain.retries=8"),
                *(f"pretrain.max_epochs={self.epochs}", f"finetune.max_epochs={self.epochs}"),
            ],
        )

    def undisturbed(self) -> None:
        with self.grid(f"undisturbed-{self.epochs}", OnDisk(self.root / "undisturbed")) as grid:
            assert grid.finish() == 0, grid.driver.said()
        self.outcome = grid.outcome()
        assert grid.audit(self.outcome) == [] and self.cluster.ask("leaks") == []

    def strike(self, grid: Grid, kinds: list[str], rng: random.Random, struck: list[str]) -> list[str]:
        """Let the grid meet these faults one after the other; what is wrong then. Adds those to ``struck`` that did."""
        faults = {**EVERYWHERE, **BY_PLACE[grid.place.kind]}
        arena = Arena(grid, self.cluster, self.mlflow, rng, AWAY)
        with grid, arena:
            arena.find(lambda: ": started" in grid.driver.said(), 300.0)
            for kind in kinds:
                moment = rng.uniform(0.0, 4.0)
                time.sleep(moment)
                grid.go_on()
                told = faults[kind](arena) if grid.driver.alive else None
                print(f"{grid.name}: after {moment:.1f} s: {kind}: {told or 'came too late'}", flush=True)
                if told is not None:
                    struck.append(kind)
            arena.calm()
            again = grid.finish()
        print(f"{grid.name}: the driver was started {grid.driver.starts} times, {again} of them after the last fault")
        return grid.audit(self.outcome) + [f"leaked: {what}" for what in self.cluster.ask("leaks")]


@pytest.fixture(scope="module")
def world(sample_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("chaos")
    with ExitStack() as stack:
        store = S3(root, SEED)
        stack.callback(store.stop)
        store.start()
        # Workers have the environment of the process that started their node, keys of the store included.
        cluster = Cluster(root / "cluster.log", nodes=2, environment=store.environment)
        stack.callback(cluster.stop)
        server, tracking = mlflow_server(root)
        stack.callback(server.kill)
        yield World(root, sample_corpus, cluster, store, server, tracking)


def test_a_grid_survives_what_clusters_do(world: World, tmp_path: Path) -> None:
    """The selection: S3 errors, a killed worker, a damaged checkpoint and (with it) a killed driver, in one grid."""
    # Without a server of MLflow, one process less to wait for.
    world = replace(world, tracking=f"sqlite:///{tmp_path}/mlflow.db")
    world.undisturbed()
    grid = world.grid("short", InS3(world.s3))
    kinds = ["newest checkpoint damaged", "S3 answers 500", "training worker killed"]
    struck: list[str] = []
    assert world.strike(grid, kinds, random.Random(SEED), struck) == []
    assert struck == kinds


@pytest.mark.chaos
def test_fifty_random_faults(world: World, tmp_path: Path) -> None:
    """``HTR_RAY_CHAOS`` faults that struck, of all kinds, at moments drawn from ``HTR_RAY_CHAOS_SEED``."""
    world = replace(world, fractions="[0.5,1.0]", epochs=12)
    world.mlflow.start()
    world.undisturbed()
    places: list[Place] = [InS3(world.s3)]
    with ExitStack() as stack:
        if Disk.possible():
            disk = Disk(tmp_path / "disk")
            stack.callback(disk.stop)
            places.insert(0, OnDisk(disk.folder, disk))
        decks: dict[str, list[str]] = {place.kind: [] for place in places}
        struck, survived = Counter[str](), Counter[str]()
        wrong: list[str] = []
        number = 0
        while struck.total() < LONG:
            place = places[number % len(places)]
            rng = random.Random(SEED * 1000 + number)
            kinds = _draw(decks[place.kind], list({**EVERYWHERE, **BY_PLACE[place.kind]}), rng)
            grid = world.grid(f"chaos-{SEED}-{number}", place)
            number += 1
            hit: list[str] = []
            try:
                faulty = world.strike(grid, kinds, rng, hit)
            except Exception as error:  # what goes wrong with one grid is counted and does not end the run
                faulty = [f"{type(error).__name__}: {error}"]
            struck.update(hit)
            survived.update(() if faulty else hit)
            wrong += [f"{grid.name}: {what}" for what in faulty]
            print(json.dumps({"struck": struck, "survived": survived, "grids": number, "wrong": faulty}), flush=True)
            place.delete(grid.name)
    assert wrong == []


def _draw(deck: list[str], kinds: list[str], rng: random.Random) -> list[str]:
    """The next faults of a shuffled deck that holds every kind once and is made anew when it is empty."""
    if len(deck) < MOST:
        fresh = kinds[:]
        rng.shuffle(fresh)
        deck += fresh
    drawn, deck[:] = deck[:MOST], deck[MOST:]
    return drawn
