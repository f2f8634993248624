"""Successive halving among the choices of one search, as a Ray Tune scheduler; cells are never raced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from htr_ray.config import SearchSettings
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Search, Searches

WHOLE = 100  # a schedule, in percent


@dataclass(frozen=True)
class _Runner:
    """What ASHA needs to know of a trial: a name that stays the same when the trial is started again."""

    trial_id: str


class CellHalving(FIFOScheduler):
    """One ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934) for each search; other trials run to their end.

    Rungs are shares of a trial's own schedule, not epochs: choices are compared at the same point of the
    learning-rate decay, also where ``max_minutes`` ends them.
    """

    def __init__(self, settings: SearchSettings, searches: Searches, searcher: GridSearcher) -> None:
        super().__init__()
        self._settings, self._searches, self._searcher = settings, searches, searcher
        self._races: dict[str, ASHAScheduler] = {}
        self._rungs = rungs(settings)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP for a choice that falls behind at a rung, else CONTINUE."""
        mine = self._searcher.trials.get(trial.config["key"])
        if mine is None or mine.group is None or not result.get("epoch_end"):
            return TrialScheduler.CONTINUE
        percent = WHOLE * float(result["progress"])
        search = self._searches[mine.group]
        if percent >= WHOLE or search.raced[int(mine.choice or 0)].key != mine.key:
            return TrialScheduler.CONTINUE
        race = self._race(search, tune_controller)
        decision = race.on_trial_result(tune_controller, _runner(mine.key), _report(percent, float(result["best"])))
        passed = [rung for rung in self._rungs if rung <= percent]
        if passed:
            self._searches.compared(mine, passed[-1], float(result["best"]))
        if decision == TrialScheduler.STOP:
            self._searches.halve(mine, result)
        return decision

    def _race(self, search: Search, tune_controller: Any) -> ASHAScheduler:
        if search.key not in self._races:
            race = ASHAScheduler(
                time_attr="percent",
                metric="best",
                mode="max" if search.sign > 0 else "min",
                max_t=WHOLE,
                grace_period=WHOLE * self._settings.first_rung,  # type: ignore[arg-type]  # any number does
                reduction_factor=self._settings.reduction,
                # A choice that has come through all rungs is tested, not stopped at the very end.
                stop_last_trials=False,
            )
            for number, member in search.raced.items():
                race.on_trial_add(tune_controller, _runner(member.key))
                choice = search.record.choices.get(number)
                before = choice.rungs.items() if choice else ()
                for percent, figure in sorted((float(at), best) for at, best in before):
                    race.on_trial_result(tune_controller, _runner(member.key), _report(percent, figure))
            self._races[search.key] = race
        return self._races[search.key]


def _runner(key: str) -> Any:
    return _Runner(key)


def _report(percent: float, best: float) -> dict[str, float]:
    return {"percent": percent, "best": best}


def rungs(settings: SearchSettings) -> list[float]:
    """Percents of the schedule at which choices are compared."""
    at, found = WHOLE * settings.first_rung, []
    while at < WHOLE:
        found.append(at)
        at *= settings.reduction
    return found
