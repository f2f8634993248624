"""What is written to MLflow, one idempotent operation at a time."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import (
    DatasetInput,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.models import Model
from mlflow.tracking.context.registry import resolve_tags

from htr_ray.model.files import read_description
from htr_ray.track.connect import GRID_TAG, Place
from htr_ray.track.dataset import CONTEXT
from htr_ray.track.files import File, digest, folder_of, local_folder
from htr_ray.track.package import save_model
from htr_ray.track.registry import TRIAL_TAG, Entrant, Registry
from htr_ray.track.runs import PARENT_TAG, children, find_run, models_of
from htr_ray.track.summary import TAG_LIMIT, clean_metrics, flatten

log = logging.getLogger(__name__)

ERROR_TAG = "htr_ray.error"
WEIGHTS_TAG = "htr_ray.weights"  # fingerprint of a model's files
NOTE_TAG = "mlflow.note.content"  # what MLflow shows as a run's description
RECORDED_TAG = "htr_ray.recorded"  # on a trial of which MLflow has all that this version logs
RECORDED = "3"  # raise it when finished trials get something new, then the next run of a grid adds it to old ones
ENCODER_TAG = "htr_ray.encoder"  # with .trial, .run, .model: where a fine-tuning started from

PARAMS_PER_CALL = 100  # MLflow's limit of log_batch
METRICS_PER_CALL = 500


@dataclass
class _Trial:
    """What is known about a trial's run."""

    key: str
    run_id: str
    name: str
    params: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    done_before: bool = False
    """The run had finished before this driver opened it."""
    open: bool = False
    points: dict[tuple[str, int], float] = field(default_factory=dict)
    """(metric, step) -> the first value that MLflow has for it."""
    latest: dict[str, float] = field(default_factory=dict)
    model_id: str | None = None
    free: frozenset[str] = frozenset()
    """Parameters that may change without making it another trial."""
    inputs: tuple[Sequence[DatasetInput], str | None] = ((), None)
    """Datasets, and the trial whose encoder it starts from."""
    encoder: Entrant | None = None

    @property
    def last_step(self) -> int:
        return max((step for _, step in self.points), default=0)


class Record:
    """The grid's runs in MLflow.

    Not thread-safe: one thread calls. Every method may be called again after it failed
    half-way, and the whole sequence again by a later driver: nothing is doubled.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._client = place, place.client
        self._registry = Registry(place)
        self.parent_run_id: str | None = None
        self.recorded_before: frozenset[str] = frozenset()
        """Trials that an earlier driver has recorded completely."""
        self._parent_open = False
        self._trials: dict[str, _Trial] = {}

    def start_grid(self, name: str, config: dict[str, Any], tags: dict[str, str], now: int) -> None:
        """Make the parent run, or continue the one of this name."""
        params = dict(flatten(config))
        run = find_run(self._place, GRID_TAG, name)
        if run is None:
            tags = {**_context_tags(), **tags, GRID_TAG: name}
            run = self._client.create_run(self._place.experiment_id, start_time=now, tags=tags, run_name=name)
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._client.log_batch(run.info.run_id, tags=_run_tags(tags))
            for left in children(self._place, run.info.run_id, "attributes.status = 'RUNNING'"):
                # Its driver died. If the trial is to go on, start_trial opens it again.
                self._client.set_terminated(left.info.run_id, status="KILLED")
            where = f"attributes.status = 'FINISHED' and tags.`{RECORDED_TAG}` = '{RECORDED}'"
            recorded = children(self._place, run.info.run_id, where)
            self.recorded_before = frozenset(found.data.tags[TRIAL_TAG] for found in recorded)
        self.parent_run_id, self._parent_open = run.info.run_id, True
        kept = run.data.params
        changed = sorted(key for key, value in params.items() if kept.get(key, value) != value)
        if changed:
            log.warning("the grid's MLflow run keeps the old %s; config.yaml has the new", ", ".join(changed))
        self._log_params(run.info.run_id, {key: value for key, value in params.items() if key not in kept})

    def log_config(self, config: dict[str, Any]) -> None:
        """Write the grid's ``config.yaml``."""
        self.log_grid_files({"config.yaml": yaml.safe_dump(_plain(config), sort_keys=False)})

    def start_trial(
        self,
        key: str,
        name: str,
        params: dict[str, Any],
        tags: dict[str, str],
        now: int,
        free: Collection[str] = (),
        finished: bool = False,
    ) -> None:
        """Make the trial's run, or continue the one it has; ``finished``: only to add what it lacks."""
        flat = dict(flatten(params))
        trial = self._find_trial(key)
        if trial is not None and any(trial.params.get(k, v) != v for k, v in flat.items() if not _among(k, free)):
            log.info("trial %s has other parameters now; its old run is deleted", key)
            self._client.delete_run(trial.run_id)
            trial = None
        if trial is None:
            all_tags = {**_context_tags(), **tags, TRIAL_TAG: key, PARENT_TAG: self._grid()}
            run = self._client.create_run(self._place.experiment_id, now, all_tags, run_name=name)
            trial = _Trial(key, run.info.run_id, name, {}, open=True)
        else:
            if not (finished and trial.done_before):
                self._client.update_run(trial.run_id, status="RUNNING")
                trial.open = True
            if not finished and trial.done_before and key in self.recorded_before:
                self._client.set_tag(trial.run_id, RECORDED_TAG, "no")
                self.recorded_before -= {key}
            self._client.log_batch(trial.run_id, tags=_run_tags(tags))
        self._log_params(trial.run_id, {k: v for k, v in flat.items() if k not in trial.params})
        trial.name, trial.params, trial.tags = name, {**flat, **trial.params}, dict(tags)
        trial.free = frozenset(free)
        self._trials[key] = trial

    def log_inputs(self, key: str, datasets: Sequence[DatasetInput], encoder: str | None) -> None:
        """Say what the trial learns from: its datasets, and the model of the trial ``encoder`` if there is one."""
        trial = self._trial(key)
        trial.inputs = (datasets, encoder)
        if datasets:
            self._client.log_inputs(trial.run_id, datasets=list(datasets))
        if encoder is not None:
            source = trial.encoder = self._entrant(encoder)
            self._client.log_inputs(trial.run_id, models=[LoggedModelInput(source.model_id)])
            told = {"trial": encoder, "run": source.run_id, "model": source.model_id}
            tags = {f"{ENCODER_TAG}.{name}": value for name, value in told.items()}
            self._client.log_batch(trial.run_id, tags=_run_tags(tags))

    def log_epoch(self, key: str, step: int, metrics: dict[str, float], now: int) -> None:
        """Log an epoch's metrics. Of an epoch that is reported twice the first report stands."""
        trial = self._trial(key)
        values = clean_metrics(metrics)
        if trial.done_before and any(
            not _same(value, trial.points.get((name, step), value)) for name, value in values.items()
        ):
            trial = self._replace(trial, now)
        new = {name: value for name, value in values.items() if (name, step) not in trial.points}
        self._log_metrics(trial, new, step, now)

    def log_history(
        self, key: str, history: Sequence[tuple[int, Mapping[str, float]]], results: Mapping[str, float], now: int
    ) -> None:
        """Log what MLflow lacks of a finished trial's epochs.

        A run that had finished with other ``results`` or other epochs belongs to an earlier training: it is replaced.
        """
        trial = self._trial(key)
        epochs = [(step, clean_metrics(metrics)) for step, metrics in history]
        if trial.done_before and _another(trial, epochs, clean_metrics(results)):
            trial = self._replace(trial, now)
        minutes = [values.get("minutes", 0.0) for _, values in epochs]
        points = [
            # A curve over time needs the time; an epoch is known by the minutes trained so far.
            (Metric(name, value, now - int(60_000 * (max(minutes) - spent)), step), (name, step))
            for (step, values), spent in zip(epochs, minutes, strict=True)
            for name, value in values.items()
            if (name, step) not in trial.points
        ]
        last: dict[str, int] = {}
        for name, step in trial.points:
            last[name] = max(step, last.get(name, 0))
        for start in range(0, len(points), METRICS_PER_CALL):
            part = points[start : start + METRICS_PER_CALL]
            self._client.log_batch(trial.run_id, metrics=[metric for metric, _ in part])
            for metric, place in part:
                trial.points[place] = metric.value
                # A gap is filled late: what follows it stays the latest, or it would be logged a second time.
                if metric.step >= last.get(metric.key, 0):
                    last[metric.key], trial.latest[metric.key] = metric.step, metric.value

    def log_trial_files(self, key: str, files: dict[str, File]) -> None:
        """Upload files to the trial's run."""
        with folder_of(files) as folder:
            self._client.log_artifacts(self._trial(key).run_id, str(folder))

    def log_model(self, key: str, model_dir: Path | str) -> None:
        """Log the recognizer or encoder in ``model_dir`` as the trial's MLflow model."""
        trial = self._trial(key)
        with local_folder(model_dir) as source, tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
            weights, kind = digest(source), read_description(source)["kind"]
            # A model of the same weights is complete, or was cut off while it was uploaded.
            same = [model for model in models_of(self._place, trial.run_id) if model.tags.get(WEIGHTS_TAG) == weights]
            model = next((m for m in same if m.status == LoggedModelStatus.READY), same[0] if same else None)
            if model is None:
                model = self._client.create_logged_model(
                    self._place.experiment_id,
                    kind,
                    source_run_id=trial.run_id,
                    tags={WEIGHTS_TAG: weights, TRIAL_TAG: key},
                    params=trial.params,
                    model_type=kind,
                )
            if model.status != LoggedModelStatus.READY:
                path = Path(folder) / "model"
                meta = Model(
                    artifact_path=model.artifact_location,
                    run_id=trial.run_id,
                    model_uuid=model.model_id,
                    model_id=model.model_id,
                )
                save_model(path, source, meta)
                self._client.log_model_artifacts(model.model_id, str(path))
                self._log_output(trial, model.model_id)
                self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        trial.model_id = model.model_id

    def log_results(self, key: str, metrics: dict[str, float], now: int) -> None:
        """Log a trial's final metrics, for its run and its model."""
        trial = self._trial(key)
        new = {
            name: value
            for name, value in clean_metrics(metrics).items()
            if name not in trial.latest or not _same(value, trial.latest[name])
        }
        self._log_metrics(trial, new, trial.last_step, now, model_id=trial.model_id)

    def log_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Put tags on a trial's run."""
        self._client.log_batch(self._trial(key).run_id, tags=_run_tags(tags))

    def describe(self, key: str, note: str) -> None:
        """Write the run's description, and where its encoder comes from; what a person wrote there is kept."""
        trial = self._trial(key)
        if trial.done_before and NOTE_TAG in self._client.get_run(trial.run_id).data.tags:
            return
        if trial.encoder is not None:
            place = f"#/experiments/{self._place.experiment_id}/runs/{trial.encoder.run_id}"
            note += f"\nIts encoder comes from [{trial.encoder.name}]({place}).\n"
        self._client.set_tag(trial.run_id, NOTE_TAG, note[:TAG_LIMIT])

    def mark_recorded(self, key: str) -> None:
        """Note on the run of a finished trial that nothing is missing."""
        trial = self._trial(key)
        self._client.set_tag(trial.run_id, RECORDED_TAG, RECORDED)
        # Nobody logs to it any more, and of long trials they are most of a megabyte each.
        trial.points.clear()

    def end_trial(self, key: str, failed: str | None, now: int, status: str = "FINISHED") -> None:
        """End the trial's run with ``status``, or as FAILED with the reason in a tag."""
        trial = self._trial(key)
        if failed is not None:
            self._client.set_tag(trial.run_id, ERROR_TAG, failed[:TAG_LIMIT])
        elif ERROR_TAG in self._client.get_run(trial.run_id).data.tags:
            self._client.delete_tag(trial.run_id, ERROR_TAG)
        if trial.open or failed is not None:  # else it had finished before, and keeps the time of its end
            self._client.set_terminated(trial.run_id, status=status if failed is None else "FAILED", end_time=now)
        trial.open = False

    def log_grid_files(self, files: dict[str, File]) -> None:
        """Upload files to the grid's run."""
        with folder_of(files) as folder:
            self._client.log_artifacts(self._grid(), str(folder))

    def end_grid(self, summary: str, now: int, closing: str = "", status: str = "FINISHED") -> None:
        """End the grid's run, described by ``summary`` and ``closing`` (Markdown); a long summary is cut."""
        parent = self._grid()
        room = TAG_LIMIT - len(closing)
        if len(summary) > room:
            summary = summary[: max(room - 40, 0)].rpartition("\n")[0] + "\n\n(all of it: summary.md)\n"
        self._client.set_tag(parent, NOTE_TAG, (summary + closing)[:TAG_LIMIT])
        self._client.set_terminated(parent, status=status, end_time=now)
        self._parent_open = False

    def register_champion(self, corpus: str, key: str) -> None:
        """Register the trial's recognizer as the grid's best; see :meth:`Registry.champion`."""
        self._registry.champion(corpus, self._entrant(key))

    def register_challenger(self, corpus: str, key: str) -> None:
        """Register the trial's recognizer as the grid's runner-up; see :meth:`Registry.challenger`."""
        self._registry.challenger(corpus, self._entrant(key))

    def register_encoder(self, corpus: str, pretext: str, key: str) -> None:
        """Register the pre-training's encoder; see :meth:`Registry.encoder`."""
        self._registry.encoder(corpus, pretext, self._entrant(key))

    def kill_unfinished(self, now: int) -> None:
        """Mark what is still open as KILLED. It stays open: an end that was laid aside may yet be written."""
        for trial in self._trials.values():
            if trial.open:
                self._client.set_terminated(trial.run_id, status="KILLED", end_time=now)
        if self.parent_run_id is not None and self._parent_open:
            self._client.set_terminated(self.parent_run_id, status="KILLED", end_time=now)
            self._parent_open = False

    # ---- Helpers.

    def _grid(self) -> str:
        if self.parent_run_id is None:
            raise LookupError("the grid's run is not there")
        return self.parent_run_id

    def _trial(self, key: str) -> _Trial:
        """The trial as known here, or as found in MLflow (finished by an earlier driver)."""
        trial = self._trials.get(key) or self._find_trial(key)
        if trial is None:
            raise LookupError("the trial's run is not there")
        self._trials[key] = trial
        return trial

    def _find_trial(self, key: str) -> _Trial | None:
        """The trial as MLflow has it."""
        run = find_run(self._place, TRIAL_TAG, key, parent=self._grid())
        if run is None:
            return None
        known = self._trials.get(key)
        if known is not None and known.run_id == run.info.run_id:
            known.params = dict(run.data.params)
            return known
        trial = _Trial(
            key,
            run.info.run_id,
            run.info.run_name,
            dict(run.data.params),
            done_before=run.info.status == "FINISHED",
            latest=dict(run.data.metrics),
        )
        for name in trial.latest:
            history = self._client.get_metric_history(trial.run_id, name)
            for point in sorted(history, key=lambda point: point.timestamp):
                trial.points.setdefault((name, point.step), point.value)
        return trial

    def _entrant(self, key: str) -> Entrant:
        """The trial as the registry takes it. Raises LookupError when it has no model."""
        trial = self._trial(key)
        if trial.model_id is None:
            found = models_of(self._place, trial.run_id)
            ready = [model for model in found if model.status == LoggedModelStatus.READY]
            if not ready:
                raise LookupError(f"trial {key} has no model")
            trial.model_id = ready[0].model_id
        return Entrant(
            key=key,
            run_id=trial.run_id,
            name=trial.name,
            grid_run=self._grid(),
            model_id=trial.model_id,
            params=trial.params,
            metrics=trial.latest,
        )

    def _replace(self, trial: _Trial, now: int) -> _Trial:
        """A new run for a trial that had finished and is now trained anew with other results."""
        if self._client.get_run(trial.run_id).info.lifecycle_stage == "active":
            log.info("trial %s is trained anew; its old run is deleted", trial.key)
            self._client.delete_run(trial.run_id)
        self._trials.pop(trial.key, None)
        self.start_trial(trial.key, trial.name, trial.params, trial.tags, now, trial.free)
        self.log_inputs(trial.key, *trial.inputs)
        return self._trials[trial.key]

    def _log_output(self, trial: _Trial, model_id: str) -> None:
        """Name the model among what the run made, once: MLflow refuses a second time, and a reply may be lost."""
        outputs = self._client.get_run(trial.run_id).outputs
        if not any(output.model_id == model_id for output in (outputs.model_outputs if outputs else [])):
            self._client.log_outputs(trial.run_id, [LoggedModelOutput(model_id, trial.last_step)])

    def _log_params(self, run_id: str, params: dict[str, str]) -> None:
        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=items[start : start + PARAMS_PER_CALL])

    def _log_metrics(
        self, trial: _Trial, values: dict[str, float], step: int, now: int, model_id: str | None = None
    ) -> None:
        items = [
            Metric(name, value, now, step, model_id=model_id, **_measured_on(trial, name) if model_id else {})
            for name, value in values.items()
        ]
        for start in range(0, len(items), METRICS_PER_CALL):
            self._client.log_batch(trial.run_id, metrics=items[start : start + METRICS_PER_CALL])
        for name, value in values.items():
            trial.points.setdefault((name, step), value)
            trial.latest[name] = value


def _among(key: str, names: Collection[str]) -> bool:
    """Whether a flat key is one of ``names``, or of what such a name holds (``finetune.node_labels.LABEL``)."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _plain(value: Any) -> Any:
    """``value`` with everything that YAML does not know written as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _another(trial: _Trial, epochs: Sequence[tuple[int, Mapping[str, float]]], results: Mapping[str, float]) -> bool:
    """Whether a trial's run holds another training than the one of these epochs and results.

    A single epoch may differ: one that was repeated after a fault was reported twice, and the first report stands.
    """
    of_epochs = {name for _, values in epochs for name in values}
    if any(name not in of_epochs and not _same(v, trial.latest.get(name, v)) for name, v in results.items()):
        return True
    alike: dict[str, list[bool]] = {}
    for step, values in epochs:
        for name, value in values.items():
            if (name, step) in trial.points:
                alike.setdefault(name, []).append(_same(value, trial.points[name, step]))
    return any(not any(found) for found in alike.values())


def _measured_on(trial: _Trial, metric: str) -> dict[str, str]:
    """The dataset that a metric belongs to, by its prefix, so that MLflow shows them together."""
    context = {"val_": CONTEXT["val"], "test_": CONTEXT["test"]}.get(metric[: metric.find("_") + 1])
    for item in trial.inputs[0]:
        if any(tag.value == context for tag in item.tags):
            return {"dataset_name": item.dataset.name, "dataset_digest": item.dataset.digest}
    return {}


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, str(value)) for key, value in tags.items()]


@lru_cache
def _context_tags() -> dict[str, str]:
    """User, script and git commit, as mlflow.start_run tags them."""
    return dict(resolve_tags())
