"""Search spaces: what they may name, what is drawn from them, how a choice changes a job."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import GridSettings, load
from htr_ray.errors import UserError
from htr_ray.sweep import space
from htr_ray.sweep.cells import expand

Make = Callable[..., GridSettings]
RATE = "search.finetune={finetune.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ("search.finetune={finetune.learning_rat: [1e-3]}", "did you mean finetune.learning_rate"),
        ("search.finetune={model.height: [32]}", "model.height: no setting that can be searched"),
        ("search.finetune={xyzzy: [32]}", "searchable are finetune."),
        ("search.finetune={finetune.workers: [1, 2]}", "no setting that can be searched"),
        ("search.pretrain={finetune.learning_rate: [1e-3]}", "search.pretrain: finetune.learning_rate"),
        ("search.finetune={finetune.learning_rate: [1e-3, -1]}", "-1: input should be greater than 0"),
        ("search.finetune={augment.*.strength: {low: 0, high: 9}}", "9.0: input should be less than or equal to 3"),
    ],
)
def test_a_wrong_space_is_refused_with_its_name(grid: Make, given_: str, told: str) -> None:
    with pytest.raises(UserError, match=r"search\.") as refused:
        expand(grid("corpora=[c]", given_))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ("search.finetune={finetune.learning_rate: {low: 1, high: 0.1}}", "low (1) must be below high (0.1)"),
        ("search.finetune={finetune.learning_rate: {low: 0, high: 1, log: true}}", "must be above 0 where log"),
        ("search.finetune={finetune.learning_rate: []}", "at least 1 item"),
        ("budget.max_cost=5", "max_cost needs gpu_hour_price"),
    ],
)
def test_a_wrong_range_is_refused_when_settings_are_read(grid: Make, given_: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        grid(given_)
    assert told in str(refused.value)


def test_one_task_alone_cannot_be_searched_for_all(grid: Make) -> None:
    wanted = ("corpora=[c]", "search.pretrain={pretext.jigsaw_columns: [3, 4]}")
    with pytest.raises(UserError, match=r"belongs to the pretext task jigsaw alone.*use search\.scope=cell"):
        expand(grid(*wanted, "search.scope=stage"))
    groups = {trial.group for trial in expand(grid(*wanted)) if trial.group}
    assert groups == {"pretrain/c/jigsaw"}


def test_choices_are_the_same_whenever_they_are_drawn_and_differ(grid: Make) -> None:
    settings = grid(RATE)
    wanted = settings.search.finetune
    drawn = [space.draw(settings, wanted, "g", number) for number in range(6)]
    assert drawn == [space.draw(settings, wanted, "g", number) for number in range(6)]
    assert drawn[0] == {}  # the recipe as it stands
    rates = [values["finetune.learning_rate"] for values in drawn[1:]]
    assert len(set(rates)) == 5 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert space.draw(settings, wanted, "other", 1) != drawn[1]


def test_a_finite_space_is_tried_whole_and_nothing_twice(grid: Make) -> None:
    settings = grid("search.finetune={finetune.warmup: [0.02, 0.1], finetune.batch_size: [8, 16]}", "preset=tiny")
    wanted = settings.search.finetune
    assert space.count(settings, wanted) == 4  # of eight; one is the recipe (0.02, 8)
    drawn = [tuple(space.draw(settings, wanted, "g", number).items()) for number in range(1, 4)]
    assert set(drawn) == {
        (("finetune.warmup", 0.02), ("finetune.batch_size", 16)),
        (("finetune.warmup", 0.1), ("finetune.batch_size", 8)),
        (("finetune.warmup", 0.1), ("finetune.batch_size", 16)),
    }


@given(
    rates=st.lists(st.sampled_from([0.001, 0.002, 0.005]), min_size=1, max_size=3),
    sizes=st.lists(st.sampled_from([8, 16, 32]), min_size=1, max_size=3),
    warmups=st.lists(st.sampled_from([0.0, 0.02, 0.1]), min_size=1, max_size=3),
)
def test_a_finite_space_is_all_combinations_but_the_recipe(
    rates: list[float], sizes: list[int], warmups: list[float]
) -> None:
    settings = load(GridSettings, overrides=["preset=small", "search.choices=1000"], environment={})
    wanted: Any = {"finetune.learning_rate": rates, "finetune.batch_size": sizes, "finetune.warmup": warmups}
    own = (settings.finetune.learning_rate, settings.finetune.batch_size, settings.finetune.warmup)
    others = [values for values in itertools.product(rates, sizes, warmups) if values != own]
    number = space.count(settings, wanted)
    assert number == 1 + len(others)
    drawn = [tuple(space.draw(settings, wanted, "g", choice).values()) for choice in range(1, number)]
    assert sorted(drawn) == sorted(others)


def test_more_combinations_than_can_be_drawn_from_are_refused(grid: Make) -> None:
    """At once, and not after minutes."""
    lists = ", ".join(f"augment.{name}.strength: [{', '.join(map(str, range(3)))}]" for name in ("blur", "noise"))
    many = ", ".join(f"finetune.{name}: {list(range(1, 120))}" for name in ("batch_size", "patience", "max_epochs"))
    with pytest.raises(UserError, match=r"15,166,431 combinations, more than 1,000,000; give ranges"):
        expand(grid("corpora=[c]", f"search.finetune={{{lists}, {many}}}"))


@given(
    low=st.floats(1e-6, 1e-1),
    times=st.floats(1.5, 1e3),
    log=st.booleans(),
    number=st.integers(1, 50),
    whole=st.booleans(),
)
def test_values_stay_in_their_range_and_kind(low: float, times: float, log: bool, number: int, whole: bool) -> None:
    key = "finetune.patience" if whole else "finetune.weight_decay"
    low, high = (max(1, round(1e3 * low)), max(3, round(1e3 * low * times))) if whole else (low, low * times)
    settings = GridSettings(search={"finetune": {key: {"low": low, "high": high, "log": log}}})  # type: ignore[arg-type]
    value = space.draw(settings, settings.search.finetune, "g", number)[key]
    assert isinstance(value, int if whole else float)
    assert low * 0.999 <= value <= high * 1.001  # four digits are kept


def test_a_choice_changes_its_job_and_nothing_else(grid: Make) -> None:
    trial = next(trial for trial in expand(grid("corpora=[c]", "pretexts=[none]")))
    changed = space.apply(trial.job, {"finetune.learning_rate": 0.5, "augment.*.strength": 2.0})
    assert changed.finetune is not None and changed.finetune.learning_rate == 0.5
    varied = changed.augment.model_dump()
    assert varied.pop("ramp") == trial.job.augment.ramp
    assert {family["strength"] for family in varied.values()} == {2.0}
    before, after = trial.job.model_dump(), changed.model_dump()
    assert {key for key in before if before[key] != after[key]} == {"finetune", "augment"}
    assert trial.job.finetune is not None and trial.job.finetune.learning_rate != 0.5
