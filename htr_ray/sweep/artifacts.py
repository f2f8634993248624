"""The files of a finished trial that people look at. One that cannot be made is told and left out, never fatal."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from htr_ray import storage
from htr_ray.report.entries import choose
from htr_ray.report.figures import learning_curves
from htr_ray.report.lines import test_images
from htr_ray.report.picture import reading_picture
from htr_ray.report.preview import pretext_preview
from htr_ray.report.sheet import confusion_table, reading_sheet
from htr_ray.sweep.cells import Trial
from htr_ray.track.background import first_line
from htr_ray.track.files import File
from htr_ray.train.job import PREVIEW, READINGS

log = logging.getLogger(__name__)

SHEET_LINES = 60


@dataclass
class Shelf:
    """Files as they are made. ``missing`` names those that could not be."""

    owner: str
    files: dict[str, File] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, path: str, make: Callable[[], File]) -> None:
        """Put what ``make`` returns under ``path``; whatever goes wrong there must not cost the trial its record."""
        try:
            self.files[path] = make()
        except Exception as error:  # drawing, reading images, damaged JSON: the figures stand without them
            self.missing.append(path)
            log.warning(
                "%s: %s could not be made, the results are complete without it (%s: %s)",
                *(self.owner, path, type(error).__name__, first_line(error)),
            )


def trial_files(trial: Trial, result: Mapping[str, Any]) -> Shelf:
    """What is stored with a finished trial's run: configuration, figures, curves, and what shows how well it works."""
    shelf = Shelf(trial.key)
    shelf.add("config.json", lambda: json.dumps(trial.job.model_dump(mode="json"), indent=2, ensure_ascii=False))
    shelf.add("result.json", lambda: json.dumps(result, indent=2, ensure_ascii=False))
    shelf.add("learning_curves.png", lambda: learning_curves(result))
    if trial.stage == "finetune":
        _readings(shelf, trial)
    else:
        _preview(shelf, trial)
    return shelf


def _readings(shelf: Shelf, trial: Trial) -> None:
    readings: list[dict[str, Any]] = []

    def predictions() -> str:
        readings.extend(storage.read_json(storage.join(trial.job.folder, READINGS)))
        return predictions_table(readings)

    few = trial.job.finetune.sample_lines if trial.job.finetune is not None else 0

    @cache
    def images() -> dict[str, bytes]:
        chosen = [found for lines in (SHEET_LINES, few) for found in choose(readings, lines).values()]
        return test_images(trial.job.corpus, [line["id"] for found in chosen for line in found])

    shelf.add("predictions.tsv", predictions)
    if "predictions.tsv" in shelf.missing:
        return
    shelf.add("confusions.tsv", lambda: confusion_table(readings))
    shelf.add("test_lines.html", lambda: reading_sheet(readings, images(), trial.key, SHEET_LINES))
    if few:
        shelf.add("test_lines.png", lambda: reading_picture(readings, images(), trial.key, few))


def _preview(shelf: Shelf, trial: Trial) -> None:
    uri = storage.join(trial.job.folder, PREVIEW)

    def picture() -> bytes:
        title = f"{trial.pretext} on {trial.corpus}, seed {trial.job.seed}"
        return pretext_preview(storage.read_json(uri), title)

    if storage.exists(uri):  # trials of an earlier version left none
        shelf.add("pretext_preview.png", picture)


def predictions_table(readings: Iterable[Mapping[str, Any]]) -> str:
    """TSV of all test lines: id, truth, reading, confidence, edits."""
    rows = ["id\ttruth\treading\tconfidence\tedits"]
    for r in readings:
        cells = [r["id"], r["truth"], r["reading"], f"{r['confidence']:.3f}", str(r["edits"])]
        rows.append("\t".join(" ".join(cell.replace("\t", " ").splitlines()) for cell in cells))
    return "\n".join(rows) + "\n"
