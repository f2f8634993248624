"""What of a trial goes to MLflow, read from the trial's folder once it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

from mlflow.entities import DatasetInput

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Split
from htr_ray.sweep.artifacts import trial_files
from htr_ray.sweep.cells import Trial
from htr_ray.sweep.notes import title, trial_note
from htr_ray.sweep.recipe import FREE_STAGE
from htr_ray.track.dataset import dataset_inputs
from htr_ray.track.ending import Ending
from htr_ray.track.tracker import Tracker
from htr_ray.train.job import MODEL, RESULT

# Of an epoch's report and of a result: what is no measurement, or is a parameter, a tag or in the description.
NOT_METRICS = {
    *("epoch", "epoch_end", "progress", "seconds", "finished", "best"),
    *("label_fraction", "epochs", "best_epoch"),
}
SIZE = ("parameters", "gflops")  # of the network: the same in all runs of a recipe, so tags rather than curves
TUNE_METRICS = {
    "timestamp",
    "time_this_iter_s",
    "time_total_s",
    "time_since_restore",
    "pid",
    "training_iteration",
    "iterations_since_restore",
    "done",
}
# A trial that is continued with other values of these is still the same trial.
FREE_PARAMS = frozenset({f"{stage}.{name}" for stage in ("pretrain", "finetune") for name in FREE_STAGE} | {"preset"})
SPLITS_READ: dict[str, tuple[Split, ...]] = {"pretrain": ("train", "val"), "finetune": ("train", "val", "test")}


class Recorder:
    """Turns a grid's events into calls of the :class:`Tracker`. None of them waits for the storage or for MLflow.

    Args:
        tracker: with the grid's run started.
        settings: of the grid.
        tags: put on every trial's run beside its coordinates.
    """

    def __init__(self, tracker: Tracker, settings: GridSettings, tags: Mapping[str, str] | None = None) -> None:
        self._tracker = tracker
        self._grid = {"grid": settings.name, "preset": settings.preset}
        self._tags = dict(tags or {})

    def started(self, trial: Trial) -> None:
        self._tracker.start_trial(
            trial.key,
            title(trial),
            params=self._params(trial),
            tags={**trial.tags, **self._grid, **self._tags},
            free=FREE_PARAMS,
            inputs=_inputs(trial),
            encoder=trial.waits_for,
        )

    def epoch(self, key: str, result: dict[str, Any]) -> None:
        self._tracker.log_epoch(key, int(result["epoch"]), epoch_metrics(result))

    def ended(self, trial: Trial, failure: str | None) -> None:
        """Log the final figures, the files that people look at and the model of a trial, or why it failed."""
        self._tracker.end_trial(trial.key, partial(ending, trial), failed=failure)

    def halved(self, key: str, report: Mapping[str, Any]) -> None:
        """End a choice of hyperparameters that fell behind the others of its cell."""
        why = f"fell behind after {100 * float(report['progress']):.0f} % of its schedule"
        self._tracker.stop_trial(key, {"halved": why})

    def finished_before(self, trials: Iterable[Trial]) -> None:
        """Add what MLflow lacks of trials that an earlier run of the grid had finished."""
        for trial in trials:
            self._tracker.catch_up(
                trial.key,
                title(trial),
                params=self._params(trial),
                # Not this run's tags: the trial ran with the versions of another day.
                tags={**trial.tags, **self._grid},
                load=partial(ending, trial),
                seconds=partial(_seconds, trial),
                free=FREE_PARAMS,
                inputs=_inputs(trial),
                encoder=trial.waits_for,
                soon=trial.stage == "pretrain",  # fine-tunings name it as their encoder
            )

    def _params(self, trial: Trial) -> dict[str, Any]:
        """Coordinates and flattened settings, as MLflow parameters."""
        params: dict[str, Any] = {**trial.tags, **self._grid}
        job = trial.job
        params |= {f"model.{key}": value for key, value in job.model.model_dump(mode="json").items()}
        params |= {f"augment.{key}": value for key, value in job.augment.model_dump(mode="json").items()}
        params |= {f"{job.stage}.{key}": value for key, value in job.settings.model_dump(mode="json").items()}
        if job.pretext_settings is not None:
            params |= {f"pretext.{key}": value for key, value in job.pretext_settings.model_dump(mode="json").items()}
        return params


def read_result(trial: Trial) -> dict[str, Any]:
    """``result.json`` of a finished trial."""
    found = storage.read_json(storage.join(trial.job.folder, RESULT))
    assert isinstance(found, dict)
    return found


def _seconds(trial: Trial) -> float:
    """How long a finished trial trained."""
    return 60.0 * float(read_result(trial).get("minutes") or 0.0)


def ending(trial: Trial) -> Ending:
    """All that a finished trial left, with the pictures drawn."""
    result = read_result(trial)
    shelf = trial_files(trial, result)
    return Ending(
        metrics={name: value for name, value in epoch_metrics(result).items() if name not in SIZE},
        tags={name: f"{result[name]:.10g}" for name in SIZE if result.get(name) is not None},
        history=[(int(epoch["epoch"]), epoch_metrics(epoch)) for epoch in result.get("history") or []],
        files=shelf.files,
        model_dir=storage.join(trial.job.folder, MODEL),
        note=trial_note(trial, result),
        complete=not shelf.missing,
    )


def epoch_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch (or a result) that MLflow draws; what begins with ``system/`` on a page of its own."""
    return {name: value for name, value in _numbers(report).items() if name not in NOT_METRICS | TUNE_METRICS}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _inputs(trial: Trial) -> Callable[[], list[DatasetInput]]:
    return lambda: dataset_inputs(_corpus(trial.job.corpus), SPLITS_READ[trial.stage])


@lru_cache(maxsize=64)
def _corpus(uri: str) -> Corpus:
    return Corpus.open(uri)
