"""Order of the trials, as a Ray Tune search algorithm: a cell starts when *its* encoder is ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from htr_ray.sweep.cells import Trial
from htr_ray.sweep.resources import Need


class GridSearcher(Searcher):
    """Hands out trials whose dependencies are done, as many as the cluster holds.

    Tune asks with :meth:`suggest`; ``None`` means "nothing is ready, ask again". The
    resources of trials in flight are added up here because a trial on a worker group
    reserves its resources outside of Tune; ``max_concurrent`` replaces the arithmetic (for
    clusters that grow on demand).
    """

    def __init__(
        self,
        trials: list[Trial],
        done: set[str],
        *,
        need: Callable[[Trial], Need],
        capacity: Callable[[], tuple[float, float]],
        max_concurrent: int | None,
    ) -> None:
        super().__init__()  # no metric: trials are never raced against each other
        self._waiting = [trial for trial in trials if trial.key not in done]
        self._done = set(done)
        self._need = need
        self._capacity = capacity
        self._max_concurrent = max_concurrent
        self._running: dict[str, Trial] = {}
        self.failed: dict[str, str] = {}

    @property
    def unfinished(self) -> bool:
        """Whether a trial waits or runs."""
        return bool(self._waiting or self._running)

    def suggest(self, trial_id: str) -> Any:
        """Configuration of the next trial that can start, None to wait, FINISHED when all were handed out."""
        self._drop_orphans()
        if not self._waiting:
            return Searcher.FINISHED
        for trial in self._waiting:
            if trial.waits_for is None or trial.waits_for in self._done:
                if not self._fits(trial):
                    # Not even a smaller one behind it: a large trial must not starve.
                    return None
                self._waiting.remove(trial)
                self._running[trial_id] = trial
                return {"key": trial.key, "job": trial.job.model_dump(mode="json")}
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free what waited for the trial; forget what can no longer run."""
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        failure = (result or {}).get("failure")
        if error or failure:
            self.failed[trial.key] = failure or "the trial's process died (see its log)"
        else:
            self._done.add(trial.key)

    def _drop_orphans(self) -> None:
        """Cells whose encoder failed cannot start; they are reported, and the rest goes on."""
        for trial in [t for t in self._waiting if t.waits_for in self.failed]:
            self._waiting.remove(trial)
            self.failed[trial.key] = f"its pre-training {trial.waits_for} failed"

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
