"""MLflow's record of a grid: one parent run, one nested run per trial, one model per recognizer.

Only the driver of the sweep logs. Its calls return at once; one background thread talks to
MLflow, in order, and waits for a server that is away. Everything it does may be repeated
without doubling anything, which is what makes retries and ``--resume`` simple.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htr_ray.track.background import Background, Lost, Patience
from htr_ray.track.connect import is_passing, open_experiment, redacted, resolve_uri
from htr_ray.track.files import File
from htr_ray.track.record import Record
from htr_ray.track.summary import command_to_open

log = logging.getLogger(__name__)

LOST_SHOWN = 10  # entries that close() names in the log; it returns all of them


class Tracker:
    """Logs a grid to MLflow. All methods may be called from any thread, return at once and do not raise.

    Trials are known by their stable ``key``. A grid that is resumed continues its parent run,
    and every trial its own: metrics that MLflow has already are not logged twice. A run that
    belongs to other parameters, or had finished and is now trained anew with other results,
    is deleted (MLflow can restore it) and replaced.

    Args:
        tracking_uri: any MLflow tracking URI. None: ``MLFLOW_TRACKING_URI`` if set, else
            ``<default_root>/mlflow.db`` (sqlite) with artifacts in ``<default_root>/mlartifacts``.
        experiment: name of the MLflow experiment, made if need be.
        default_root: local folder.
        patience: how failing calls are repeated.
        connect_seconds: how long to wait for a server that does not answer yet.

    Raises:
        UserError: the URI is wrong, or nothing answers there.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        experiment: str,
        *,
        default_root: Path,
        patience: Patience | None = None,
        connect_seconds: float = 20.0,
    ) -> None:
        uri = resolve_uri(tracking_uri, default_root)
        self._place = open_experiment(uri, experiment, default_root, connect_seconds)
        self._background = Background(is_passing, self._place.is_well, patience)
        self._closed = False
        self._record = Record(self._place)  # used by the background thread alone

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def experiment_url_hint(self) -> str:
        """The command, or the address, that shows the runs to a person."""
        return command_to_open(redacted(self._place.uri), self._place.experiment_id)

    @property
    def parent_run_id(self) -> str | None:
        """MLflow id of the grid's run; None until it is made or found."""
        return self._record.parent_run_id

    def start_grid(self, name: str, config: dict[str, Any], tags: dict[str, str]) -> None:
        """Open the grid's run, named ``name``: a new one, or the one that a grid of this name had before."""
        now = _now_ms()
        self._submit(f"grid {name}", self._record.start_grid, name, dict(config), dict(tags), now)
        self._submit(f"grid {name}: config.yaml", self._record.log_config, dict(config))

    def start_trial(self, key: str, name: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Open the trial's nested run. ``params`` may be nested; they are logged with dotted names."""
        self._submit(f"trial {key}", self._record.start_trial, key, name, dict(params), dict(tags), _now_ms())

    def log_epoch(self, key: str, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of one epoch."""
        what = f"trial {key}: epoch {step}"
        self._submit(what, self._record.log_epoch, key, step, dict(metrics), _now_ms())

    def finish_trial(
        self,
        key: str,
        metrics: dict[str, float],
        files: Mapping[str, File],
        model_dir: Path | str | None,
        failed: str | None,
    ) -> None:
        """Log what a trial leaves behind, and end its run.

        Args:
            key: the trial.
            metrics: its results, logged at the last epoch's step.
            files: artifact path -> content (bytes, text) or a local file or folder (Path).
            model_dir: folder written by ``save_recognizer``, logged as an MLflow model: a local one (Path)
                or a URI (str), fetched in the background. It and the files must stay where they are
                until :meth:`close` returns.
            failed: why the trial failed, or None.
        """
        now = _now_ms()
        if files:
            self._submit(f"trial {key}: files", self._record.log_trial_files, key, dict(files))
        if model_dir is not None:
            self._submit(f"trial {key}: model", self._record.log_model, key, model_dir)
        self._submit(f"trial {key}: results", self._record.log_results, key, dict(metrics), now)
        self._submit(f"trial {key}: end", self._record.end_trial, key, failed, now)

    def finish_grid(self, summary_markdown: str, files: Mapping[str, File]) -> None:
        """Log the grid's summary (shown as the run's description) and files, and end its run."""
        now = _now_ms()
        self._submit("grid: files", self._record.log_grid_files, {"summary.md": summary_markdown, **files})
        self._submit("grid: end", self._record.end_grid, summary_markdown, now)

    def register_champion(self, corpus: str, key: str) -> None:
        """Register the trial's model as the best of this grid: ``models:/htr-ray-<corpus>@champion``.

        A better one of an earlier grid keeps the alias; the log says so.
        """
        self._submit(f"champion of {corpus}", self._record.register_champion, corpus, key)

    def register_challenger(self, corpus: str, key: str) -> None:
        """Register the trial's model as the runner-up of this grid: ``models:/htr-ray-<corpus>@challenger``."""
        self._submit(f"challenger of {corpus}", self._record.register_challenger, corpus, key)

    def register_encoder(self, corpus: str, pretext: str, key: str) -> None:
        """Register the pre-training's encoder: ``models:/htr-ray-<corpus>-encoder@<pretext>``."""
        self._submit(f"encoder {pretext} of {corpus}", self._record.register_encoder, corpus, pretext, key)

    def close(self) -> list[Lost]:
        """Wait until all is logged; return what could not be, each with its reason (also to the log).

        Runs that were not finished are marked KILLED. A server that is away is waited for as long
        as ``patience`` says. Further calls do nothing.
        """
        if self._closed:
            return []
        self._closed = True
        self._submit("end of unfinished runs", self._record.kill_unfinished, _now_ms())
        lost = self._background.close()
        if lost:
            some = "; ".join(str(item) for item in lost[:LOST_SHOWN])
            more = f"; and {len(lost) - LOST_SHOWN} more" if len(lost) > LOST_SHOWN else ""
            log.error("%d entries could not be logged to MLflow: %s%s", len(lost), some, more)
        return lost

    def _submit(self, what: str, work: Any, *args: Any) -> None:
        self._background.submit(what, lambda: work(*args))


def _now_ms() -> int:
    return int(time.time() * 1000)
