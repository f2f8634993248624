"""A few hundred cells through the real Tune on a simulated cluster, where nodes leave and actors die."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from simulated_cluster import HOUR, Machines, Stuck, Work, World
from simulated_tune import run_simulated

from htr_ray.config import GridSettings, load
from htr_ray.sweep.cells import Trial
from htr_ray.sweep.searcher import GridSearcher

pytestmark = pytest.mark.usefixtures("ray_local")

GRID = ["name=scale", "corpora=[a,b]", "label_fractions=[0.1,1.0]", "seeds=[0,1,2,3,4,5]", "storage=/nowhere"]
RETRIES = ("pretrain.retries=1000", "finetune.retries=1000")
WILD = {"node_life": 8 * HOUR, "node_away": HOUR, "actor_life": 6 * HOUR}


class Notes:
    """The recorder's place: what was told, by trial."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ends: dict[str, list[str | None]] = {}
        self.epochs: dict[str, list[int]] = {}

    def started(self, trial: Trial) -> None:
        self.begun.append(trial.key)

    def epoch(self, key: str, result: dict[str, int]) -> None:
        self.epochs.setdefault(key, []).append(result["epoch"])

    def ended(self, trial: Trial, failure: str | None) -> None:
        self.ends.setdefault(trial.key, []).append(failure)


def hours(trial: Trial) -> Work:
    return Work(4, HOUR) if trial.stage == "pretrain" else Work(3, 0.2 * HOUR)


def run(machines: Machines, *overrides: str) -> tuple[World, GridSearcher, Notes]:
    settings = load(GridSettings, overrides=[*GRID, *overrides], environment={})
    notes: Any = Notes()
    world, search = run_simulated(settings, machines, hours, notes, Console(file=io.StringIO()))
    assert world.overlaps == [] and world.early == []
    assert world.training == {} and not world.groups and world.held == 0
    assert not search.unfinished
    return world, search, notes


def test_every_trial_ends_once_though_nodes_and_actors_are_lost() -> None:
    world, search, notes = run(Machines(nodes=4, **WILD), "pretrain.workers=4", *RETRIES)
    assert len(world.trials) == 288 and world.deaths > 20
    assert set(world.done_at) == set(world.trials) and search.failed == {}
    assert sorted(notes.begun) == sorted(world.trials)
    assert {key: reasons for key, reasons in notes.ends.items() if reasons != [None]} == {}
    # After a fault a trial goes on, and no epoch is told twice.
    assert all(told == list(range(1, len(told) + 1)) for told in notes.epochs.values())


def test_what_fails_for_good_takes_only_its_own_cells_along() -> None:
    world, search, notes = run(Machines(nodes=4, actor_life=12 * HOUR), "pretrain.retries=0", "finetune.retries=0")
    encoders = {key for key in search.failed if key.startswith("pretrain/")}
    assert 0 < len(encoders) < 48
    assert set(world.done_at) | set(search.failed) == set(world.trials)
    assert not set(world.done_at) & set(search.failed)
    orphans = {key for key, trial in world.trials.items() if trial.waits_for in encoders}
    assert orphans <= set(search.failed) and not orphans & set(notes.begun)
    assert {key for key, reasons in notes.ends.items() if reasons[-1]} == set(search.failed) - orphans


def test_a_deadlock_would_be_seen() -> None:
    """Two GPUs for each worker, on nodes that have one."""
    with pytest.raises(Stuck, match="1 groups wait for a place"):
        run(Machines(nodes=4, gpus=1), "pretrain.gpus_per_worker=2", "pretexts=[flip]", "seeds=[0]", "corpora=[a]")
