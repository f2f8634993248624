"""Searches driven by hand, as Tune would: choices, halving, winners, what follows them, and going on after a death."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from htr_ray import storage
from htr_ray.config import GridSettings, load
from htr_ray.errors import UserError
from htr_ray.sweep import summary
from htr_ray.sweep.budget import Budget
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.halving import CellHalving, rungs
from htr_ray.sweep.resources import need
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Searches

RATE = "search.finetune={finetune.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
WINDOW = "search.pretrain={pretext.window_aspect: [1.0, 2.0, 4.0]}"
PRE_RATE = "search.pretrain={pretrain.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"


class TuneTrial:
    """What the scheduler sees of a trial."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config


class Driver:
    """Runs a grid without training: each trial reports ``epochs`` figures and ends."""

    def __init__(self, place: Path, *overrides: str, figure: Any = None, at_most: int | None = None) -> None:
        given_ = ["corpora=[c]", "pretexts=[none,flip]", "decoders=[ctc]", "label_fractions=[1.0]"]
        fixed = [f"storage={place}", "name=g", "seeds=[0,1]", "search.choices=4"]
        self.settings = load(GridSettings, overrides=[*given_, *fixed, *overrides], environment={})
        self.trials = expand(self.settings)
        self.figure = figure or (lambda key, epoch: 50.0)
        self.results = {
            trial.key: storage.read_json(uri)
            for trial in self.trials
            if storage.exists(uri := storage.join(trial.job.folder, "result.json"))
        }
        self.searches = Searches(self.settings, self.trials)
        self.searches.resume(self.results)
        self.searcher = GridSearcher(
            self.trials,
            set(self.results) | self.searches.ended_before(),
            searches=self.searches,
            need=partial(need, cluster_gpus=0),
            capacity=lambda: (1000, 0),
            max_concurrent=at_most,
        )
        self.scheduler = CellHalving(self.settings.search, self.searches, self.searcher)
        self.started: list[str] = []
        self.epochs: dict[str, int] = {}
        self.jobs: dict[str, dict[str, Any]] = {}

    def run(self, epochs: int = 10, dies_after: int | None = None, order: random.Random | None = None) -> Driver:
        """All trials to their end, an epoch of each in turn; or until so many epochs were trained."""
        running: dict[str, dict[str, Any]] = {}
        trained = 0
        while True:
            while isinstance(config := self.searcher.suggest(name := f"t{len(self.started)}"), dict):
                running[name] = {"config": config, "epoch": 0, "best": None}
                self.started.append(config["key"])
                self.jobs[config["key"]] = config["job"]
            if not running:
                assert config == Searcher.FINISHED, "nothing runs and nothing can start: a deadlock"
                break
            names = list(running)
            if order is not None:
                order.shuffle(names)
            for name in names:
                if trained == dies_after:
                    self.searches.close()
                    return self
                trained += 1
                self._epoch(name, running, epochs)
        self.searches.close()
        return self

    def _epoch(self, name: str, running: dict[str, dict[str, Any]], epochs: int) -> None:
        state = running[name]
        key = state["config"]["key"]
        stage = state["config"]["job"]["stage"]
        state["epoch"] += 1
        self.epochs[key] = self.epochs.get(key, 0) + 1
        value = self.figure(key, state["epoch"])
        if isinstance(value, str):
            del running[name]
            self.searcher.on_trial_complete(name, {"failure": value})
            return
        better = max if stage == "pretrain" else min
        state["best"] = value if state["best"] is None else better(state["best"], value)
        report = {"epoch_end": True, "progress": state["epoch"] / epochs, "best": state["best"], "minutes": 1.0}
        if self.scheduler.on_trial_result(None, TuneTrial(state["config"]), report) == TrialScheduler.STOP:
            del running[name]
            self.searcher.on_trial_complete(name, report)
        elif state["epoch"] == epochs:
            del running[name]
            figure = "val_accuracy" if stage == "pretrain" else "val_cer"
            result = {figure: state["best"], "minutes": float(epochs)}
            storage.write_json(storage.join(state["config"]["job"]["folder"], "result.json"), result)
            flat = {f"result/{what}": number for what, number in result.items()}
            self.searcher.on_trial_complete(name, {**report, **flat, "finished": True})


def by_choice(good: int) -> Any:
    """Choice ``good`` learns fastest; later numbers are worse by distance."""

    def figure(key: str, epoch: int) -> float:
        number = int(key.rsplit("choice", 1)[-1]) if "choice" in key else 0
        return 90.0 - epoch * (5.0 - abs(number - good))

    return figure


def test_the_winner_is_trained_whole_and_the_others_end_early(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "pretexts=[none]", RATE, figure=by_choice(1)).run()
    cell = "finetune/c/semi_supervised/ctc/1/none"
    search = driver.searches[cell]
    assert search.winner is not None and search.winner.key == f"{cell}/choice1"
    assert driver.epochs[f"{cell}/choice1"] == 10
    states = {number: choice.state for number, choice in search.record.choices.items()}
    assert states[1] == "done" and list(states.values()).count("halved") >= 2
    for number, state in states.items():
        assert (driver.epochs[f"{cell}/choice{number}"] == 10) == (state == "done")
    # The other seed takes what won, whole.
    assert driver.epochs[f"{cell}/seed1"] == 10 and driver.started[-1] == f"{cell}/seed1"
    rate = search.record.choices[1].values["finetune.learning_rate"]
    assert driver.jobs[f"{cell}/seed1"]["finetune"]["learning_rate"] == rate
    assert driver.jobs[f"{cell}/choice0"]["finetune"]["learning_rate"] == driver.settings.finetune.learning_rate
    minutes, more = driver.searches.saved()
    assert more == pytest.approx(sum(10 - driver.epochs[t.key] for t in driver.trials if t.group))
    assert minutes == pytest.approx(sum(1.0 if states[n] == "halved" else 10.0 for n in states))
    assert any("ended early" in line for line in summary.search_lines(driver.searches))


def test_cells_are_never_raced_against_each_other(tmp_path: Path) -> None:
    """A cell that is far worse than another keeps its own winner, trained to the end."""

    def figure(key: str, epoch: int) -> float:
        return (5.0 if "/none/" in key else 95.0) - 0.1 * epoch

    driver = Driver(tmp_path, "pretexts=[none,flip]", RATE, figure=figure).run()
    for search in driver.searches:
        assert search.winner is not None and driver.epochs[search.winner.key] == 10
    # Equal choices: none falls behind, in neither cell.
    assert all(choice.state == "done" for search in driver.searches for choice in search.record.choices.values())


def test_an_encoder_goes_to_the_cells_once_its_search_is_decided(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "pretexts=[flip]", PRE_RATE, figure=lambda k, e: float(10 * ("choice3" in k) + e)).run()
    search = driver.searches["pretrain/c/flip"]
    assert search.winner is not None and search.winner.key == "pretrain/c/flip/choice3"
    cell = "finetune/c/semi_supervised/ctc/1/flip"
    assert driver.jobs[f"{cell}/seed0"]["encoder"] == f"{tmp_path}/g/pretrain/c/flip/choice3/model"
    assert driver.jobs[f"{cell}/seed1"]["encoder"] == f"{tmp_path}/g/pretrain/c/flip/seed1/model"
    assert driver.started.index(f"{cell}/seed0") > driver.started.index("pretrain/c/flip/choice3")
    rate = search.record.choices[3].values["pretrain.learning_rate"]
    assert driver.jobs["pretrain/c/flip/seed1"]["pretrain"]["learning_rate"] == rate
    assert driver.searcher.trials[f"{cell}/seed0"].waits_for == "pretrain/c/flip/choice3"


def test_choices_that_change_the_task_are_judged_by_what_cells_make_of_them(tmp_path: Path) -> None:
    def figure(key: str, epoch: int) -> float:
        # The easiest task has the best accuracy and the worst encoder.
        easy = {"choice0": 99.0, "choice1": 60.0, "choice2": 40.0}
        made = {"probe0": 80.0, "probe1": 50.0, "probe2": 20.0}
        return {**easy, **made}.get(key.rsplit("/", 1)[-1], 30.0)

    driver = Driver(tmp_path, "pretexts=[flip]", WINDOW, figure=figure).run()
    search = driver.searches["pretrain/c/flip"]
    assert search.record.figure == "val_cer" and len(search.trials) == 3  # of [1, 2, 4], 4 is the recipe
    assert search.winner is not None and search.winner.key == "pretrain/c/flip/choice2"
    # No encoder ends early for its accuracy.
    assert all(driver.epochs[trial.key] == 10 for trial in search.trials.values())
    assert driver.jobs["pretrain/c/flip/probe1"]["encoder"].endswith("pretrain/c/flip/choice1/model")
    won = search.record.choices[2].values["pretext.window_aspect"]
    assert driver.jobs["pretrain/c/flip/seed1"]["pretext_settings"]["window_aspect"] == won


def test_one_search_for_a_stage(tmp_path: Path) -> None:
    driver = Driver(
        tmp_path,
        RATE,
        "search.scope=stage",
        "decoders=[ctc,transformer]",
        "label_fractions=[0.1,1.0]",
        figure=by_choice(1),
    ).run()
    (search,) = driver.searches
    assert search.key == "finetune/c/semi_supervised/ctc/1/none"
    rate = search.record.choices[1].values["finetune.learning_rate"]
    taken = {
        key: job["finetune"]["learning_rate"]
        for key, job in driver.jobs.items()
        if "/seed" in key and "finetune" in key
    }
    assert set(taken.values()) == {rate} and len(taken) == 2 * 2 * 2 * 2 - 1


def test_a_choice_that_fails_is_an_answer_and_all_failing_is_a_failure(tmp_path: Path) -> None:
    cell = "finetune/c/semi_supervised/ctc/1/none"
    some = Driver(tmp_path / "a", "pretexts=[none]", RATE, figure=lambda k, e: "nan" if "choice0" in k else 50.0).run()
    assert some.searcher.failed == {} and some.searches[cell].winner is not None
    assert some.searches[cell].record.choices[0].failure == "nan"
    assert not some.searcher.unfinished

    every = Driver(tmp_path / "b", "pretexts=[none]", RATE, figure=lambda k, e: "nan" if "choice" in k else 50.0).run()
    assert every.searcher.failed == {
        cell: "all 4 choices failed; choice 3: nan",
        f"{cell}/seed1": f"its search {cell} failed",
    }
    # Started again, what had failed is tried again.
    again = Driver(tmp_path / "b", "pretexts=[none]", RATE).run()
    assert again.searcher.failed == {} and len(again.started) == 5


def test_failing_encoders_take_their_probes_and_cells_along(tmp_path: Path) -> None:
    driver = Driver(
        tmp_path, "pretexts=[none,flip]", WINDOW, figure=lambda k, e: "away" if "pretrain" in k else 50.0
    ).run()
    assert set(driver.searcher.failed) == {
        "pretrain/c/flip",
        "pretrain/c/flip/seed1",
        *(f"finetune/c/semi_supervised/ctc/1/flip/seed{seed}" for seed in (0, 1)),
    }
    assert not driver.searcher.unfinished
    assert {"finetune/c/semi_supervised/ctc/1/none/seed0"} <= set(driver.started)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), dies=st.integers(1, 150), at_most=st.sampled_from([1, 2, 5, None]))
def test_after_any_death_it_goes_on_to_one_winner_each(
    seed: int, dies: int, at_most: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("death")
    chance = random.Random(seed)
    figures: dict[tuple[str, int], float] = {}

    def figure(key: str, epoch: int) -> Any:
        return figures.setdefault((key, epoch), chance.uniform(10, 90))

    wanted = (RATE, WINDOW, "seeds=[0]")
    first = Driver(place, *wanted, figure=figure, at_most=at_most).run(dies_after=dies, order=chance)
    halved = {
        search.raced[n].key
        for search in first.searches
        for n, c in search.record.choices.items()
        if c.state == "halved"
    }
    second = Driver(place, *wanted, figure=figure, at_most=at_most).run(order=chance)
    assert not second.searcher.unfinished and second.searcher.failed == {}
    assert not halved & set(second.started) and not set(first.results) & set(second.started)
    for search in second.searches:
        assert search.winner is not None
        assert storage.exists(storage.join(search.raced[int(search.winner.choice or 0)].job.folder, "result.json"))
    third = Driver(place, *wanted, figure=figure).run()
    assert third.started == []
    assert [s.winner and s.winner.key for s in third.searches] == [s.winner and s.winner.key for s in second.searches]


def test_optuna_learns_from_what_has_ended(tmp_path: Path) -> None:
    def figure(key: str, epoch: int) -> float:
        return 50.0

    wanted = ("pretexts=[none]", RATE, "search.method=optuna", "search.choices=6")
    driver = Driver(tmp_path, *wanted, figure=figure, at_most=1).run()
    (search,) = driver.searches
    rates = [c.values.get("finetune.learning_rate") for _, c in sorted(search.record.choices.items())]
    assert rates[0] is None and len(set(rates)) == 6
    assert all(1e-4 <= rate <= 1e-2 for rate in rates if rate is not None)
    known = [({"finetune.learning_rate": 10 ** (-4 + 0.2 * n)}, -abs(n - 8.0)) for n in range(11)]
    from htr_ray.sweep.optuna_choices import suggest

    told = [suggest(driver.settings, driver.settings.search.finetune, known, f"x/{n}") for n in range(8)]
    near = [values["finetune.learning_rate"] for values in told]
    assert sorted(near)[4] > 1e-3  # the best known are above 0.002; at random half would lie below 0.001


def test_a_winner_that_was_deleted_is_trained_again(tmp_path: Path) -> None:
    driver = Driver(tmp_path, "pretexts=[none]", RATE, figure=by_choice(1)).run()
    (search,) = driver.searches
    assert search.winner is not None
    storage.delete_dir(search.winner.job.folder)
    again = Driver(tmp_path, "pretexts=[none]", RATE, figure=by_choice(1))
    followers = [trial for trial in again.trials if trial.takes]
    assert followers and not any(again.searches.settled(trial) for trial in followers)
    assert again.run().started == [search.winner.key]  # the seed that took its settings keeps its result
    assert all(again.searches.settled(trial) for trial in again.trials)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    Driver(tmp_path, "pretexts=[none]", RATE).run()
    uri = f"{tmp_path}/g/finetune/c/semi_supervised/ctc/1/none/search.json"
    storage.write_json(uri, {"format": 1, "figure": "val_cer", "space": {}, "choices": {"0": {"state": "lost"}}})
    with pytest.raises(UserError, match=r"search\.json: choices\.0.*delete it to search anew"):
        Driver(tmp_path, "pretexts=[none]", RATE)


def test_rungs_are_shares_of_the_schedule() -> None:
    search = load(GridSettings, overrides=[], environment={}).search
    assert rungs(search) == pytest.approx([10, 30, 90])


@pytest.mark.parametrize(
    ("limits", "hours", "gpu_hours", "told"),
    [
        ({"max_hours": 2}, 1.9, 100, None),
        ({"max_hours": 2}, 2.0, 0, "budget.max_hours = 2"),
        ({"max_gpu_hours": 10}, 50, 9.9, None),
        ({"max_gpu_hours": 10}, 1, 10.0, "budget.max_gpu_hours = 10"),
        ({"max_cost": 30, "gpu_hour_price": 2.5}, 1, 11.9, None),
        ({"max_cost": 30, "gpu_hour_price": 2.5}, 1, 12.0, "budget.max_cost = 30"),
        ({}, 1e6, 1e6, None),
    ],
)
def test_a_budget_says_which_limit_was_reached(
    limits: dict[str, float], hours: float, gpu_hours: float, told: str | None
) -> None:
    now = [0.0]
    wanted = load(GridSettings, overrides=[f"budget.{k}={v}" for k, v in limits.items()], environment={})
    budget = Budget(wanted.budget, lambda: gpu_hours, clock=lambda: now[0])
    now[0] = 3600.0 * hours
    assert budget.stop_all() == (told is not None) and budget.reached == told
    assert budget("t", {}) is False  # it ends all or nothing


def test_gpu_hours_count_what_trials_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("htr_ray.sweep.searcher.time.monotonic", lambda: now[0])
    wanted = load(
        GridSettings, overrides=["corpora=[c]", "pretexts=[none]", "finetune.gpus_per_worker=0.5"], environment={}
    )
    trials: list[Trial] = expand(wanted)
    searcher = GridSearcher(
        trials,
        set(),
        searches=Searches(wanted, trials),
        need=partial(need, cluster_gpus=8),
        capacity=lambda: (100, 8),
        max_concurrent=2,
    )
    searcher.suggest("a"), searcher.suggest("b")
    now[0] = 3600.0
    assert searcher.gpu_hours() == pytest.approx(1.0)
    searcher.on_trial_complete("a", {"finished": True})
    now[0] = 7200.0
    assert searcher.gpu_hours() == pytest.approx(1.5)
