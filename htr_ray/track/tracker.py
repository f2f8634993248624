"""MLflow's record of a grid: one parent run, one nested run per trial, one model per recognizer.

Only the driver of the sweep logs. Its calls return at once; one background thread talks to
MLflow, in order, and waits for a server that is away. Everything it does may be repeated
without doubling anything, which is what makes retries and ``--resume`` simple.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import DatasetInput

from htr_ray.storage import redacted
from htr_ray.track.background import Background, Lost, Patience
from htr_ray.track.connect import is_passing, open_experiment, resolve_uri
from htr_ray.track.ending import Ending, Later
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
    is deleted (MLflow can restore it) and replaced. A finished trial of which MLflow has all is
    marked; those without the mark (the driver died before, or was of an older version) are
    brought up to date by :meth:`catch_up`.

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
        self._owed: Counter[str] = Counter()  # pieces of work still to be done for a trial
        self._ended: dict[str, Later] = {}  # trials whose run has ended well, until nothing is owed
        self._caught_up: set[str] = set()
        self._lock = threading.Lock()

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

    @property
    def waiting(self) -> int:
        """How many entries are queued."""
        return self._background.waiting

    @property
    def caught_up(self) -> int:
        """How many trials of earlier runs were brought up to date."""
        return len(self._caught_up)

    def start_trial(
        self,
        key: str,
        name: str,
        params: dict[str, Any],
        tags: dict[str, str],
        *,
        free: Collection[str] = (),
        inputs: Callable[[], Sequence[DatasetInput]] | None = None,
        encoder: str | None = None,
    ) -> None:
        """Open the trial's nested run.

        Args:
            key: the trial.
            name: of its run.
            params: may be nested; they are logged with dotted names.
            tags: for MLflow's search and grouping.
            free: dotted names of parameters that say where or how fast, not what: the trial stays the same with others.
            inputs: gives its datasets, called in the background.
            encoder: key of the trial whose encoder it starts from.
        """
        args = (key, name, dict(params), dict(tags), _now_ms(), frozenset(free))
        self._submit_trial(key, "", lambda: self._record.start_trial(*args))
        self._submit_inputs(key, inputs, encoder)

    def log_epoch(self, key: str, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of one epoch."""
        values, now = dict(metrics), _now_ms()
        self._submit_trial(key, f"epoch {step}", lambda: self._record.log_epoch(key, step, values, now))

    def finish_trial(
        self,
        key: str,
        metrics: dict[str, float],
        files: Mapping[str, File],
        model_dir: Path | str | None,
        failed: str | None,
    ) -> None:
        """Log what a trial leaves behind, and end its run: FINISHED, or FAILED for the reason ``failed``.

        For the others see :class:`Ending`. The model and the files must stay where they are until :meth:`close`
        returns.
        """
        ending = Ending(metrics=dict(metrics), files=dict(files), model_dir=model_dir)
        self.end_trial(key, lambda: ending, failed=failed)

    def end_trial(self, key: str, load: Callable[[], Ending], *, failed: str | None = None) -> None:
        """As :meth:`finish_trial`, but ``load`` is called in the background, so that reading and drawing wait there."""
        self._submit_ending(key, Later(load), failed)

    def stop_trial(self, key: str, tags: Mapping[str, str]) -> None:
        """End the run of a trial that was stopped on purpose: KILLED, with ``tags`` that say why."""
        marks, now = dict(tags), _now_ms()
        self._submit_trial(key, "tags", lambda: self._record.log_tags(key, marks))
        self._submit_trial(key, "end", lambda: self._record.end_trial(key, None, now, status="KILLED"))

    def catch_up(
        self,
        key: str,
        name: str,
        params: dict[str, Any],
        tags: dict[str, str],
        load: Callable[[], Ending],
        *,
        seconds: Callable[[], float],
        free: Collection[str] = (),
        inputs: Callable[[], Sequence[DatasetInput]] | None = None,
        encoder: str | None = None,
        soon: bool = False,
    ) -> None:
        """Bring a trial that had finished before up to date: only what MLflow lacks of it is logged.

        ``seconds`` gives how long it trained (called in the background). Done when nothing else is to be
        logged, or ``soon``: others wait for its model. The rest is as for :meth:`start_trial` and :meth:`end_trial`.
        """
        now, later = _now_ms(), not soon
        values, marks = dict(params), dict(tags)

        def start() -> None:
            began = now - int(1000 * seconds())
            self._record.start_trial(key, name, values, marks, began, frozenset(free), finished=True)
            self._caught_up.add(key)

        self._submit_trial(key, "", start, catching_up=True, later=later)
        self._submit_inputs(key, inputs, encoder, catching_up=True, later=later)
        self._submit_ending(key, Later(load), None, catching_up=True, later=later)

    def log_grid_files(self, files: Mapping[str, File]) -> None:
        """Upload files to the grid's run."""
        self._submit("grid: files", self._record.log_grid_files, dict(files))

    def finish_grid(
        self, summary_markdown: str, files: Mapping[str, File], closing: str = "", *, interrupted: bool = False
    ) -> None:
        """Log the grid's summary and files, and end its run: FINISHED, or KILLED if it was ``interrupted``.

        Whoever interrupts does not wait for what earlier runs left undone either: the next run does it anyway.
        Summary and ``closing`` (Markdown) become the run's description; where they are too long for MLflow, the
        summary is cut.
        """
        now = _now_ms()
        if not interrupted:
            self._background.no_more_later()
        elif dropped := self._background.drop_later():
            log.warning(
                "interrupted: %d MLflow entries about trials of earlier runs are left for the next run", dropped
            )
        self._submit("grid: files", self._record.log_grid_files, {"summary.md": summary_markdown + closing, **files})
        status = "KILLED" if interrupted else "FINISHED"
        self._submit("grid: end", self._record.end_grid, summary_markdown, now, closing, status)

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

    def _submit_inputs(
        self, key: str, inputs: Callable[[], Sequence[DatasetInput]] | None, encoder: str | None, **how: bool
    ) -> None:
        if inputs is not None or encoder is not None:
            work = self._record.log_inputs
            self._submit_trial(key, "inputs", lambda: work(key, inputs() if inputs else (), encoder), **how)

    def _submit_ending(self, key: str, ending: Later, failed: str | None, **how: bool) -> None:
        now, record = _now_ms(), self._record

        def history() -> None:
            record.log_history(key, ending.get().history, ending.get().metrics, now)

        def files() -> None:
            if ending.get().files:
                record.log_trial_files(key, dict(ending.get().files))

        def model() -> None:
            if (model_dir := ending.get().model_dir) is not None:
                record.log_model(key, model_dir)

        def results() -> None:
            record.log_results(key, dict(ending.get().metrics), now)
            if ending.get().tags:
                record.log_tags(key, ending.get().tags)
            if ending.get().note:
                record.describe(key, ending.get().note)

        def end() -> None:
            record.end_trial(key, failed, now)
            if failed is None:
                self._ended[key] = ending

        if failed is None:
            for piece in (history, files, model, results):
                self._submit_trial(key, piece.__name__, piece, **how)
        self._submit_trial(key, "end", end, **how)

    def _submit_trial(
        self, key: str, what: str, work: Callable[[], object], *, catching_up: bool = False, later: bool = False
    ) -> None:
        """Queue a piece of a trial's record; with the last one done, its run is marked as complete."""
        with self._lock:
            self._owed[key] += 1
        done = False

        def piece() -> None:
            nonlocal done
            if not done:
                if not (catching_up and key in self._record.recorded_before):
                    work()
                done = True
                with self._lock:
                    self._owed[key] -= 1
            if self._owed[key] == 0 and key in self._ended:
                ending = self._ended[key]
                if ending.get().complete:
                    self._record.mark_recorded(key)
                ending.forget()
                del self._ended[key]

        self._background.submit(f"trial {key}: {what}" if what else f"trial {key}", piece, later=later)


def _now_ms() -> int:
    return int(time.time() * 1000)
