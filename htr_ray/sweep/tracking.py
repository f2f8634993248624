"""The grid's own run in MLflow: where it is, what it is opened with, and what is stored with it at the end."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.markup import escape

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.corpus.read import Corpus, corpus_name
from htr_ray.errors import UserError
from htr_ray.report import build
from htr_ray.storage import redacted
from htr_ray.sweep import summary
from htr_ray.sweep.cells import grid_folder
from htr_ray.sweep.notes import reproduction
from htr_ray.sweep.record import Recorder
from htr_ray.sweep.results import load_grid, write_failures
from htr_ray.track.background import first_line
from htr_ray.track.connect import GRID_TAG, find_experiment, resolve_uri
from htr_ray.track.environment import command, environment, environment_digest, requirements
from htr_ray.track.files import File, folder_of
from htr_ray.track.runs import find_run
from htr_ray.track.tracker import Tracker

logger = logging.getLogger(__name__)

MANY_WAITING = 20


class GridLog:
    """The MLflow record of one run of a grid: opened with settings and environment, closed with results.

    Raises UserError when the tracking server cannot be reached.
    """

    def __init__(self, settings: GridSettings, console: Console) -> None:
        self._settings, self._console = settings, console
        uri, experiment, root = place_of(settings, grid_folder(settings))
        self._tracker = Tracker(uri, experiment, default_root=root)
        self._environment = environment(_nodes())
        name = environment_digest(self._environment)
        self._tracker.start_grid(settings.name, _public(settings), {"preset": settings.preset, "grid": settings.name})
        whole = json.dumps(self._environment, indent=2)
        self._tracker.log_grid_files(
            # The second lasts when the grid goes on elsewhere: its trials name the one they ran in.
            {"environment.json": whole, f"environments/{name}.json": whole, "requirements.txt": requirements()}
        )
        self.recorder = Recorder(self._tracker, settings, {"htr_ray.environment": name})

    def finish(self, rows: list[dict[str, Any]], files: Mapping[str, bytes], *, interrupted: bool) -> None:
        """Log summary and ``files``, register the best models, wait until all is logged, and say what was not.

        An ``interrupted`` grid registers nothing: the best of some trials is not the best of the grid.
        """
        settings, tracker, console = self._settings, self._tracker, self._console
        try:
            corpora = {corpus_name(uri): Corpus.open(uri) for uri in settings.corpora}
            closing = reproduction(corpora, self._environment, command())
        except UserError as error:  # a corpus that went away meanwhile must not keep the results from MLflow
            logger.warning("the note on how to make the grid again is missing: %s", error)
            closing = ""
        stored: dict[str, File] = {"summary.csv": summary.csv(rows), **files}
        tracker.finish_grid(summary.markdown(settings.name, rows), stored, closing, interrupted=interrupted)
        if not interrupted:
            self._register(rows)
        if tracker.waiting > MANY_WAITING:
            console.print(f"Logging to MLflow: {tracker.waiting} entries are left ...")
        lost = tracker.close()
        if tracker.caught_up:
            console.print(f"MLflow: {tracker.caught_up} trial(s) finished by earlier runs were brought up to date")
        for entry in lost:
            console.print(f"[red]Not logged to MLflow:[/] {escape(str(entry))}")
        if lost:
            console.print("The same command again logs what is missing.")
        console.print(f"Browse the runs: [bold]{tracker.experiment_url_hint}[/]", soft_wrap=True)

    def _register(self, rows: list[dict[str, Any]]) -> None:
        tracker = self._tracker
        for corpus in map(corpus_name, self._settings.corpora):
            best = summary.ranking(rows, corpus)
            for register, row in zip((tracker.register_champion, tracker.register_challenger), best, strict=False):
                register(corpus, row["key"])
            for row in summary.encoders(rows, corpus):
                tracker.register_encoder(corpus, row["pretext"], row["key"])


def place_of(settings: GridSettings, folder: str) -> tuple[str, str, Path]:
    """Tracking URI, experiment and local folder of the grid in ``folder``. Raises UserError for a URI that is wrong.

    The experiment has the grid's name, or that of MLFLOW_EXPERIMENT_NAME, which puts several grids together.
    """
    # Without a server of MLflow, its database and files lie beside a local storage, else under ./runs.
    root = Path(storage.filesystem(folder)[1]).parent if storage.is_local(folder) else Path("runs")
    return resolve_uri(settings.tracking_uri, root), os.environ.get("MLFLOW_EXPERIMENT_NAME") or settings.name, root


def make_report(settings: GridSettings, folder: str, failed: Mapping[str, str], console: Console) -> dict[str, bytes]:
    """The report's files, stored in the grid's folder too. Without it the grid is complete, so a fault is only told."""
    try:
        write_failures(folder, failed)
        files = build(load_grid(folder, settings.storage))
        for path, content in files.items():
            storage.write_bytes(storage.join(folder, path), content)
    except Exception as error:  # drawing, damaged files, a store that is away: all results are stored already
        logger.debug("the report could not be made", exc_info=True)
        console.print(
            f"[yellow]Note:[/] the report could not be made ({type(error).__name__}: {escape(first_line(error))}); "
            f"all results are complete; try: python jobs/report.py {escape(settings.name)}",
            soft_wrap=True,
        )
        return {}
    console.print(f"Report: [bold]{escape(storage.join(folder, 'report/report.html'))}[/]", soft_wrap=True)
    return files


def attach(settings: GridSettings, folder: str, files: Mapping[str, bytes]) -> str | None:
    """Store ``files`` with the run in MLflow of the grid in ``folder``; its run id, or None if it has no run.

    ``folder`` is where the grid is now: one that was moved or copied is not where its settings say. Nothing is made
    where there is no database or experiment.

    Raises UserError when the tracking server cannot be reached, or its store of files does not take them.
    """
    uri, experiment, _ = place_of(settings, folder)
    place = find_experiment(uri, experiment, 20.0)
    if place is None:
        return None
    try:
        run = find_run(place, GRID_TAG, settings.name)
        if run is None:
            return None
        with folder_of(files) as local:
            place.client.log_artifacts(run.info.run_id, str(local))
    except Exception as error:  # MLflow's, a database's, an object store's: all mean the same to the user
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"tracking_uri = {redacted(place.uri)}: the files could not be stored ({why})") from error
    return str(run.info.run_id)


def _public(settings: GridSettings) -> dict[str, Any]:
    """The settings as others may read them: a password of the tracking server stays here."""
    shown = settings.model_dump(mode="json")
    if settings.tracking_uri is not None and redacted(settings.tracking_uri) != settings.tracking_uri:
        shown["tracking_uri"] = None
    return shown


def _nodes() -> list[dict[str, float]]:
    """Resources of each node of the cluster, without Ray's own marks."""
    return [
        {name: amount for name, amount in node["Resources"].items() if not name.startswith(("node:", "object_store"))}
        for node in ray.nodes()
        if node["Alive"]
    ]
