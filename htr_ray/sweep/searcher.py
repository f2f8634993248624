"""Order of the trials, as a Ray Tune search algorithm: a cell starts when *its* encoder is ready."""

from __future__ import annotations

import heapq
import time
from collections import Counter
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

    Tune resumes a trial that broke. One that it gives up too early is handed out again here, see :meth:`broke`.

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
        self._searches = searches
        self._need = need
        self._capacity = capacity
        self._max_concurrent = max_concurrent
        self._broken: dict[str, Trial] = {}  # until somebody says what to do
        self._again: Counter[str] = Counter()
        self._running: dict[str, Trial] = {}
        self._cpus = self._gpus = self._most_gpus = 0.0  # of those that run
        self._gpu_seconds, self._counted = 0.0, time.monotonic()  # until then
        self.trials = {trial.key: trial for trial in trials}
        """By key; those that were handed out as they run, with their hyperparameters."""
        self.failed: dict[str, str] = {}
        """Why, of trials and searches that failed for good; a choice of a search that goes on is none of them."""
        # Every event of thousands of trials asks what is next: nothing here looks at all that wait.
        self._rank = {trial.key: rank for rank, trial in enumerate(trials)}
        self._ready: list[tuple[int, str]] = []  # a heap
        self._lacking: dict[str, set[str]] = {}  # what each of those that cannot start yet waits for
        self._behind: dict[str, list[str]] = {}  # who waits for a trial or a search
        for trial in trials:
            if trial.key not in done:
                self._enqueue(trial, {key for key in (trial.waits_for, trial.takes) if key is not None} - done)
        for search in searches:
            self._settle(search.key)

    @property
    def unfinished(self) -> bool:
        """Whether a trial waits or runs."""
        return bool(self._ready or self._lacking or self._running or self._broken)

    def gpu_hours(self) -> float:
        """GPU hours that trials have held so far, at the most: a worker group may have shrunk."""
        return (self._gpu_seconds + self._most_gpus * (time.monotonic() - self._counted)) / 3600.0

    def suggest(self, trial_id: str) -> Any:
        """Configuration of the next trial that can start, None to wait, FINISHED when all have ended."""
        if not self.unfinished:
            return Searcher.FINISHED
        # Not even a smaller one behind the first that does not fit: a large trial must not starve.
        if not self._ready or not self._fits(self.trials[self._ready[0][1]]):
            return None
        _, key = heapq.heappop(self._ready)
        trial = self.trials[key] = self._searches.resolve(self.trials[key])
        self._running[trial_id] = trial
        self._count(trial, 1)
        return {"key": trial.key, "job": trial.job.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free what waited for the trial; forget what can no longer run. After an error, :meth:`broke` decides."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        self._count(trial, -1)
        if error:
            self._broken[trial.key] = trial
            return
        report = result or {}
        if report.get("failure"):
            self._fail(trial, report["failure"])
        elif report.get("finished"):
            self._free(trial.key)
            self._searches.ended(trial, result=_final(report))
        elif self._searches.is_halved(trial):
            self._searches.ended(trial)
        else:
            self._fail(trial, "it ended without a result")
        if trial.group is not None:
            self._settle(trial.group)

    def broke(self, key: str, why: str, *, final: bool) -> bool:
        """What to do with a trial that Tune has given up with an error; whether it is over for good.

        Tune counts the death of an actor twice where that was idle or being reset for its next trial (2.60:
        ``TuneController._actor_failed`` makes the trial pending again, then the failed task finds it pending and
        gives it up, with retries left). Such a trial is handed out again; Tune takes it for another one.

        Args:
            key: of the trial.
            why: its last error, for people.
            final: whether its retries are used up.
        """
        trial = self._broken.pop(key, None)
        if trial is None:
            return True
        if final or self._again[key] >= trial.job.settings.retries:
            self._fail(trial, why)
            if trial.group is not None:
                self._settle(trial.group)
            return True
        self._again[key] += 1
        self._enqueue(trial, set())
        return False

    def _enqueue(self, trial: Trial, lacking: set[str]) -> None:
        for key in lacking:
            self._behind.setdefault(key, []).append(trial.key)
        if lacking:
            self._lacking[trial.key] = lacking
        else:
            heapq.heappush(self._ready, (self._rank[trial.key], trial.key))

    def _free(self, key: str) -> None:
        """What waited only for this trial, or search, can start."""
        for waiting in self._behind.pop(key, ()):
            if lacking := self._lacking.get(waiting):
                lacking.discard(key)
                if not lacking:
                    del self._lacking[waiting]
                    self._enqueue(self.trials[waiting], lacking)

    def _drop(self, key: str, what: str) -> None:
        """What waited for this trial, or search, cannot start any more; it is reported, and the rest goes on."""
        for waiting in self._behind.pop(key, ()):
            if self._lacking.pop(waiting, None) is not None:
                orphan = self.trials[waiting]
                self._fail(orphan, f"its {what} {key} failed")
                if orphan.group is not None:
                    self._settle(orphan.group)

    def _fail(self, trial: Trial, why: str) -> None:
        if trial.group is None:
            self.failed[trial.key] = why
        else:
            # One bad choice of hyperparameters is an answer; the search fails when all do.
            self._searches.ended(trial, failure=why)
        self._drop(trial.key, "pre-training")

    def _settle(self, search: str) -> None:
        """What waits for a search may start once it is decided, or never, where all its choices failed."""
        if self._searches[search].winner is not None:
            self._free(search)
        elif (why := self._searches.failure_of(search)) is not None:
            self.failed[search] = why
            self._drop(search, "search")

    def _fits(self, trial: Trial) -> bool:
        if self._max_concurrent is not None:
            return len(self._running) < self._max_concurrent
        if not self._running:
            return True
        cpus, gpus = self._capacity()
        wanted = self._need(trial)
        return self._cpus + wanted.cpus <= cpus + 1e-6 and self._gpus + wanted.gpus <= gpus + 1e-6

    def _count(self, trial: Trial, sign: int) -> None:
        """Add up what the trials that run hold."""
        wanted, now = self._need(trial), time.monotonic()
        self._gpu_seconds += self._most_gpus * (now - self._counted)
        self._counted = now
        self._cpus += sign * wanted.cpus
        self._gpus += sign * wanted.gpus
        self._most_gpus += sign * wanted.most_gpus

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: finished trials are known by the results in the grid's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """See :meth:`save`."""


def _final(report: dict[str, Any]) -> dict[str, Any]:
    """The result of a trial in Tune's report, which is flat."""
    prefix = "result/"
    return {key.removeprefix(prefix): value for key, value in report.items() if key.startswith(prefix)}
