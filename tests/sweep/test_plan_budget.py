"""What of a grid fits into its budget, told before it starts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from htr_ray.config import GridSettings
from htr_ray.sweep.cells import expand
from htr_ray.sweep.plan import OVERHEAD_SECONDS, Planned, within_budget

HOUR = 3600.0 - OVERHEAD_SECONDS


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        # Two GPUs, four fine-tunings on each; two pre-trainings of an hour, then eight fine-tunings of an hour.
        (["max_hours=1"], "1 hours: about 2 of 10 trials that are left"),
        (["max_hours=1.5"], "1.5 hours: about 6 of 10 trials that are left"),
        (["max_hours=2"], "2 hours: all of 10 trials that are left"),
        (["max_gpu_hours=3"], "3 GPU hours: about 6 of 10 trials that are left"),
        (["max_cost=10", "gpu_hour_price=4"], "a cost of 10: about 4 of 10 trials that are left"),
        (["max_hours=9", "max_gpu_hours=1"], "9 hours: all of 10 trials that are left; 1 GPU hours: about 1 of 10"),
        ([], None),
    ],
)
def test_what_fits(grid: Callable[..., GridSettings], limits: list[str], told: str | None) -> None:
    axes = ("corpora=[c]", "pretexts=[flip,sorting]", "decoders=[ctc,transformer]", "label_fractions=[0.5,1.0]")
    settings = grid(*axes, *(f"budget.{limit}" for limit in limits))
    trials = expand(settings)
    plans = {trial.key: Planned(HOUR, False) for trial in trials}
    found = within_budget(trials, plans, set(), 100, 2, settings)
    assert found is None if told is None else (found or "").startswith(told)


def test_nothing_is_promised_where_nothing_is_known(grid: Callable[..., GridSettings]) -> None:
    settings = grid("corpora=[c]", "budget.max_hours=5")
    trials = expand(settings)
    guessed = {trial.key: Planned(HOUR, True) for trial in trials}
    assert within_budget(trials, guessed, set(), 100, 2, settings) is None
    assert within_budget(trials, {}, {trial.key for trial in trials}, 100, 2, settings) is None
    halved = {trial.key: Planned(HOUR, False, share=0.5) for trial in trials}
    whole = {trial.key: Planned(HOUR, False) for trial in trials}
    told = [within_budget(trials, plans, set(), 2, 0, settings) for plans in (whole, halved)]
    assert told == ["5 hours: about 5 of 24 trials that are left", "5 hours: about 9 of 24 trials that are left"]
