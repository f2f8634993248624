"""What of a trial goes to MLflow, read from the trial's folder once it has ended."""

from __future__ import annotations

import json
from typing import Any

from htr_ray import storage
from htr_ray.sweep.cells import Trial
from htr_ray.track.tracker import Tracker
from htr_ray.train.job import MODEL, RESULT

NOT_METRICS = {"epoch", "epoch_end", "progress", "seconds", "finished"}
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


class Recorder:
    """Turns a grid's events into calls of the :class:`Tracker`."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def started(self, trial: Trial) -> None:
        self._tracker.start_trial(trial.key, trial.key, params=_params(trial), tags=trial.tags)

    def epoch(self, key: str, result: dict[str, Any]) -> None:
        metrics = {
            name: float(value)
            for name, value in result.items()
            if isinstance(value, int | float) and name not in NOT_METRICS | TUNE_METRICS
        }
        self._tracker.log_epoch(key, int(result["epoch"]), metrics)

    def ended(self, trial: Trial, failure: str | None) -> None:
        """Log the final figures, the readings, the configuration and the model of a trial."""
        if failure is not None:
            self._tracker.finish_trial(trial.key, metrics={}, files={}, model_dir=None, failed=failure)
            return
        folder = trial.job.folder
        result = storage.read_json(storage.join(folder, RESULT))
        metrics = {
            name: float(value)
            for name, value in result.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        files: dict[str, Any] = {
            "config.json": json.dumps(trial.job.model_dump(mode="json"), indent=2),
            "result.json": json.dumps(result, indent=2),
        }
        settings = trial.job.finetune
        if settings is not None:
            readings = storage.read_json(storage.join(folder, "readings.json"))
            files["predictions.tsv"] = predictions_table(readings[: settings.sample_lines])
        model = storage.join(folder, MODEL)
        self._tracker.finish_trial(trial.key, metrics=metrics, files=files, model_dir=model, failed=None)


def predictions_table(readings: list[dict[str, Any]]) -> str:
    """TSV of test lines: id, truth, reading, confidence, edits."""
    rows = ["id\ttruth\treading\tconfidence\tedits"]
    for r in readings:
        cells = [r["id"], r["truth"], r["reading"], f"{r['confidence']:.3f}", str(r["edits"])]
        rows.append("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in cells))
    return "\n".join(rows) + "\n"


def _params(trial: Trial) -> dict[str, Any]:
    """Coordinates and flattened settings, as MLflow parameters."""
    params: dict[str, Any] = dict(trial.tags)
    job = trial.job

    def walk(node: dict[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                params[prefix + key] = value

    walk(job.model.model_dump(mode="json"), "model.")
    walk(job.augment.model_dump(mode="json"), "augment.")
    walk(job.settings.model_dump(mode="json"), f"{job.stage}.")
    if job.pretext_settings is not None:
        walk(job.pretext_settings.model_dump(mode="json"), "pretext.")
    return params
