"""Order of the trials, as a Ray Tune search algorithm: a cell starts when *its* encoder is ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from htr_ray.sweep.cells import Trial
from htr_ray.sweep.resources import Need
from htr_ray.sweep.searches import Searches


class GridSearcher(Searcher):
    """Hands out trials whose dependencies are done, as many as the cluster holds.

    Tune asks with :meth:`suggest`; ``None`` means "nothing is ready, ask again". The
    resources of trials in flight are added up here because a trial on a worker group
    reserves its resources outside of Tune; ``max_concurrent`` replaces the arithmetic (for
    clusters that grow on demand).

    Args:
        trials: all of the grid.
        done: keys of those that are not to run (any more).
        searches: among hyperparameter choices, as far as they had come.
        need: resources of a trial.
        capacity: CPUs and GPUs of the cluster.
        max_concurrent: trials at a time, or None.
    """

    def __init__(
        self,
        trials: list[Trial],
        done: set[str],
        *,
        searches: Searches,
        need: Callable[[Trial], Need],
        capacity: Callable[[], tuple[float, float]],
        max_concurrent: int | None,
    ) -> None:
        super().__init__()  # no metric: cells are never raced against each other
        self._waiting = [trial for trial in trials if trial.key not in done]
        self._searches = searches
        self._done = set(done)
        self._need = need
        self._capacity = capacity
        self._max_concurrent = max_concurrent
        self._running: dict[str, Trial] = {}
        self._since: dict[str, float] = {}
        self._gpu_seconds = 0.0
        self.trials = {trial.key: trial for trial in trials}
        """By key; those that were handed out as they run, with their hyperparameters."""
        self.failed: dict[str, str] = {}
        """Why, of trials and searches that failed for good; a choice of a search that goes on is none of them."""
        self._lost: set[str] = set()
        for search in searches:
            self._settle(search.key)

    @property
    def unfinished(self) -> bool:
        """Whether a trial waits or runs."""
        return bool(self._waiting or self._running)

    def gpu_hours(self) -> float:
        """GPU hours that trials have held so far, at the most: a worker group may have shrunk."""
        now = time.monotonic()
        running = sum(self._need(t).most_gpus * (now - self._since[i]) for i, t in self._running.items())
        return (self._gpu_seconds + running) / 3600.0

    def suggest(self, trial_id: str) -> Any:
        """Configuration of the next trial that can start, None to wait, FINISHED when all were handed out."""
        self._drop_orphans()
        if not self._waiting:
            return Searcher.FINISHED
        for trial in self._waiting:
            if all(key is None or key in self._done for key in (trial.waits_for, trial.takes)):
                if not self._fits(trial):
                    # Not even a smaller one behind it: a large trial must not starve.
                    return None
                self._waiting.remove(trial)
                trial = self.trials[trial.key] = self._searches.resolve(trial)
                self._running[trial_id] = trial
                self._since[trial_id] = time.monotonic()
                return {"key": trial.key, "job": trial.job.model_dump(mode="json")}
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free what waited for the trial; forget what can no longer run."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        self._gpu_seconds += self._need(trial).most_gpus * (time.monotonic() - self._since.pop(trial_id))
        report = result or {}
        if error or report.get("failure"):
            self._fail(trial, report.get("failure") or "the trial's process died (see its log)")
        elif report.get("finished"):
            self._done.add(trial.key)
            self._searches.ended(trial, result=_final(report))
        elif self._searches.is_halved(trial):
            self._searches.ended(trial)
        else:
            self._fail(trial, "it ended without a result")
        if trial.group is not None:
            self._settle(trial.group)

    def _fail(self, trial: Trial, why: str) -> None:
        self._lost.add(trial.key)
        if trial.group is None:
            self.failed[trial.key] = why
        else:
            # One bad choice of hyperparameters is an answer; the search fails when all do.
            self._searches.ended(trial, failure=why)

    def _settle(self, search: str) -> None:
        """What waits for a search may start once it is decided, or never, where all its choices failed."""
        if self._searches[search].winner is not None:
            self._done.add(search)
        elif (why := self._searches.failure_of(search)) is not None:
            self.failed[search] = why
            self._lost.add(search)

    def _drop_orphans(self) -> None:
        """Cells whose encoder failed cannot start; they are reported, and the rest goes on."""
        if not self._lost:
            return
        for trial in [t for t in self._waiting if t.waits_for in self._lost or t.takes in self._lost]:
            self._waiting.remove(trial)
            lost = f"pre-training {trial.waits_for}" if trial.waits_for in self._lost else f"search {trial.takes}"
            self._fail(trial, f"its {lost} failed")
            if trial.group is not None:
                self._settle(trial.group)

    def _fits(self, trial: Trial) -> bool:
        if self._max_concurrent is not None:
            return len(self._running) < self._max_concurrent
        if not self._running:
            return True
        cpus, gpus = self._capacity()
        needs = [self._need(t) for t in [*self._running.values(), trial]]
        return sum(n.cpus for n in needs) <= cpus + 1e-6 and sum(n.gpus for n in needs) <= gpus + 1e-6

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: finished trials are known by the results in the grid's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """See :meth:`save`."""


def _final(report: dict[str, Any]) -> dict[str, Any]:
    """The result of a trial in Tune's report, which is flat."""
    prefix = "result/"
    return {key.removeprefix(prefix): value for key, value in report.items() if key.startswith(prefix)}
