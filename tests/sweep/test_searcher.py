"""The order of the trials, driven by hand as Tune would."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.search import Searcher

from htr_ray.config import GridSettings, load
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.resources import need
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Searches
from htr_ray.train.job import Job

AXES = ("corpora=[c]", "pretexts=[none,flip,jigsaw]", "decoders=[ctc]", "label_fractions=[0.1,1.0]")


def settings_of(*overrides: str) -> GridSettings:
    return load(GridSettings, overrides=[*AXES, *overrides], environment={})


def small(*overrides: str) -> list[Trial]:
    return expand(settings_of(*overrides))


def searcher(
    trials: list[Trial],
    done: set[str] | None = None,
    cpus: float = 100,
    at_most: int | None = None,
    searches: Searches | None = None,
) -> GridSearcher:
    return GridSearcher(
        trials,
        done or set(),
        searches=searches or Searches(settings_of(), []),
        need=partial(need, cluster_gpus=0),
        capacity=lambda: (cpus, 0),
        max_concurrent=at_most,
    )


class Driver:
    """Asks for trials and ends them, as Tune does."""

    def __init__(self, search: GridSearcher) -> None:
        self.search = search
        self.running: dict[str, str] = {}
        self.started: list[str] = []
        self.over = False

    def fill(self) -> None:
        while not self.over:
            trial_id = f"t{len(self.started)}"
            config: Any = self.search.suggest(trial_id)
            if config == Searcher.FINISHED:
                self.over = True
            elif config is None:
                return
            else:
                Job.model_validate(config["job"])
                self.running[trial_id] = config["key"]
                self.started.append(config["key"])

    def end(self, key: str, **how: Any) -> None:
        trial_id = next(t for t, k in self.running.items() if k == key)
        del self.running[trial_id]
        self.search.on_trial_complete(trial_id, **how)
        if how.get("error"):  # the callback knows why, and whether Tune had retries left
            self.search.broke(key, "out of memory", final=True)
        self.fill()


def test_a_cell_starts_when_its_own_encoder_is_ready() -> None:
    driver = Driver(searcher(small()))
    driver.fill()
    assert [key for key in driver.started if key.startswith("pretrain")] == [
        "pretrain/c/flip/seed0",
        "pretrain/c/jigsaw/seed0",
    ]
    assert all("/none/" in key for key in driver.started[2:])
    assert len(driver.started) == 4
    driver.end("pretrain/c/jigsaw/seed0", result={"finished": True})
    assert driver.started[4:] == [
        "finetune/c/semi_supervised/ctc/1/jigsaw/seed0",
        "finetune/c/semi_supervised/ctc/0.1/jigsaw/seed0",
    ]
    assert not driver.over


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"error": True}, "out of memory"),
        ({"result": {"failure": "damaged file"}}, "damaged file"),
    ],
)
def test_cells_of_a_failed_encoder_are_reported_and_the_rest_goes_on(how: dict[str, Any], reason: str) -> None:
    driver = Driver(searcher(small()))
    driver.fill()
    driver.end("pretrain/c/flip/seed0", **how)
    while driver.running:
        driver.end(next(iter(driver.running.values())), result={"finished": True})
    assert driver.over
    orphans = {key: text for key, text in driver.search.failed.items() if key.startswith("finetune")}
    assert driver.search.failed["pretrain/c/flip/seed0"] == reason
    assert len(orphans) == 2
    assert set(orphans.values()) == {"its pre-training pretrain/c/flip/seed0 failed"}
    assert len(driver.started) == 6


def test_finished_trials_are_not_handed_out() -> None:
    trials = small()
    driver = Driver(searcher(trials, done={trial.key for trial in trials if trial.stage == "pretrain"}))
    driver.fill()
    assert len(driver.started) == 6 and not driver.over  # one that breaks may have to be handed out again
    for key in driver.started:
        driver.end(key, result={"finished": True})
    assert len(driver.started) == 6 and driver.over
    assert Driver(searcher(trials, done={trial.key for trial in trials})).search.suggest("t") == Searcher.FINISHED


def test_a_large_trial_is_not_starved_by_small_ones_behind_it() -> None:
    trials = small("pretrain.workers=3")  # an encoder takes 6 CPUs, a cell 2
    driver = Driver(searcher(trials, cpus=8))
    driver.fill()
    assert driver.started == ["pretrain/c/flip/seed0"]  # the second encoder is next, small cells wait behind it


def test_one_trial_may_always_run() -> None:
    driver = Driver(searcher(small("pretrain.workers=50"), cpus=2))
    driver.fill()
    assert len(driver.running) == 1


def test_what_tune_gives_up_too_early_is_handed_out_again_and_nothing_behind_it_is_lost() -> None:
    search = searcher(small("pretexts=[flip]", "pretrain.retries=1"))
    encoder = "pretrain/c/flip/seed0"
    for trial_id in ("t0", "t1"):
        assert search.suggest(trial_id)["key"] == encoder
        assert search.suggest("x") is None
        search.on_trial_complete(trial_id, error=True)
        assert search.unfinished
        over = search.broke(encoder, "the actor died", final=False)
        assert over == (trial_id == "t1")
        assert len(search.failed) == (3 if over else 0)
    assert search.failed[encoder] == "the actor died" and not search.unfinished


def test_trials_that_tune_does_not_know_here_are_ignored() -> None:
    search = searcher(small())
    search.on_trial_complete("foreign", error=True)
    assert search.failed == {}


def test_a_cluster_that_grows_is_used() -> None:
    trials = small()
    size = [2.0]
    search = GridSearcher(
        trials,
        set(),
        searches=Searches(settings_of(), []),
        need=partial(need, cluster_gpus=0),
        capacity=lambda: (size[0], 0),
        max_concurrent=None,
    )
    driver = Driver(search)
    driver.fill()
    assert len(driver.running) == 1
    size[0] = 6.0
    driver.fill()
    assert len(driver.running) == 3


@given(
    seed=st.integers(0, 10**6),
    cpus=st.sampled_from([2.0, 4.0, 7.0, 64.0]),
    at_most=st.sampled_from([None, 1, 3]),
    failing=st.floats(0, 0.5),
    before=st.integers(0, 4),
)
def test_every_trial_once_after_what_it_waits_for_within_capacity(
    seed: int, cpus: float, at_most: int | None, failing: float, before: int
) -> None:
    chance = random.Random(seed)
    trials = small("seeds=[0,1]")
    by_key = {trial.key: trial for trial in trials}
    done = {trial.key for trial in trials[:before]}
    driver = Driver(searcher(trials, done, cpus, at_most))
    succeeded = set(done)
    driver.fill()
    seen = 0
    while driver.running:
        assert len(driver.running) <= (at_most or cpus // 2)
        for key in driver.started[seen:]:
            assert by_key[key].waits_for is None or by_key[key].waits_for in succeeded
        seen = len(driver.started)
        key = chance.choice(list(driver.running.values()))
        broken = chance.random() < failing
        if not broken:
            succeeded.add(key)
        driver.end(key, result={"finished": True}, error=broken)
    assert driver.over
    assert len(set(driver.started)) == len(driver.started)
    assert succeeded | set(driver.search.failed) == set(by_key)
    assert not succeeded & set(driver.search.failed)


def test_the_search_survives_tunes_own_checkpoints(tmp_path: Any, grid: Callable[..., GridSettings]) -> None:
    search = searcher(small())
    search.suggest("t0")
    search.save(str(tmp_path / "state"))
    search.restore(str(tmp_path / "state"))
    assert search.suggest("t1")["key"] == "pretrain/c/jigsaw/seed0"


def test_a_grid_that_was_stopped_is_unfinished() -> None:
    """Tune ends quietly on Ctrl-C: nobody is told that the trials in flight are over."""
    search = searcher(small("pretexts=[none]"))
    driver = Driver(search)
    driver.fill()
    assert search.unfinished and len(driver.started) == 2
    driver.end(driver.started[0], result={"finished": True})
    assert search.unfinished
    driver.end(driver.started[1], error=True)
    assert not search.unfinished
