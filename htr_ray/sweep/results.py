"""A grid read back from its storage: what the report is made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.corpus.read import corpus_name
from htr_ray.corpus.schema import INFO_FILE
from htr_ray.errors import UserError
from htr_ray.report.attempts import Timeline
from htr_ray.report.results import ChoiceResult, GridResults, SearchResult, TrialResult
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.find import GRID_FILE, find_grid
from htr_ray.sweep.history import timeline_of
from htr_ray.sweep.progress import PROGRESS_FILE, read_progress
from htr_ray.sweep.resources import need
from htr_ray.sweep.searches import Searches
from htr_ray.train.job import READINGS, RESULT

FAILURES = "failures.json"
_PARTS = 8  # object stores answer slowly but in parallel
_KEY = re.compile(
    r"pretrain/(?P<pre_corpus>[^/]+)/(?P<pre_pretext>[^/]+)/seed(?P<pre_seed>-?\d+)"
    r"|finetune/(?P<corpus>[^/]+)/(?P<protocol>[^/]+)/(?P<decoder>[^/]+)/(?P<fraction>[^/]+)/(?P<pretext>[^/]+)"
    r"/seed(?P<seed>-?\d+)"
)


def load_grid(name_or_uri: str, storage_uri: str = "runs", failed: Mapping[str, str] | None = None) -> GridResults:
    """Read the grid ``name_or_uri``: a grid's name below ``storage_uri``, or the URI of its folder.

    Trials that ``grid.json`` asks for are done (their ``result.json`` is there), failed (with the reason that
    ``failed`` or the grid's ``failures.json`` holds by key) or missing. Finished trials of an earlier run with
    the same name count too: the recipe is the same, or the grid would have refused to run. Raises UserError
    when there is no such grid, its settings cannot be read, or the storage does not answer.
    """
    folder = find_grid(name_or_uri, storage_uri)
    settings = read_settings(folder)
    files = set(storage.walk(folder))
    reasons = {**_failures(folder, files), **(failed or {})}
    # Keys only: a grid may have been moved or copied, so the storage in its settings says nothing.
    there = settings.model_copy(update={"storage": "/"})
    wanted = expand(there)
    # Of hyperparameter choices the winner stands for its cell.
    searches = Searches(there, wanted, folder)
    asked = {trial.key: trial for trial in searches.cells(wanted)}
    earlier = [key for file in sorted(files) if (key := file.removesuffix(f"/{RESULT}")) != file and key not in asked]
    notes: list[str] = []
    with ThreadPoolExecutor(_PARTS) as pool:
        trials = list(pool.map(lambda trial: _load(folder, trial, files, reasons, notes), asked.values()))
        trials += [found for found in pool.map(lambda key: _load_earlier(folder, key, files, notes), earlier) if found]
    timeline = _timeline(folder, files, notes)
    notes.sort()  # they came in the order in which the threads went
    names = {corpus_name(uri): uri for uri in settings.corpora}
    corpora = {name: _corpus(uri, notes) for name, uri in names.items()}
    return GridResults(
        settings.name, settings.model_dump(mode="json"), trials, corpora, notes, _told(searches), timeline
    )


def _told(searches: Searches) -> list[SearchResult]:
    """Searches as the report takes them."""
    return [
        SearchResult(
            search.key,
            search.record.figure,
            search.record.winner,
            [
                ChoiceResult(n, c.values, c.state, c.figure, c.progress, c.minutes, c.failure)
                for n, c in sorted(search.record.choices.items())
            ],
        )
        for search in searches
    ]


def read_settings(folder: str) -> GridSettings:
    """The settings that the grid in ``folder`` was run with. Raises UserError when they cannot be read."""
    uri = storage.join(folder, GRID_FILE)
    try:
        return GridSettings.model_validate(storage.read_json(uri))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise UserError(f"{uri}: {where}: {first['msg']}; was it written by another version of htr-ray?") from error


def write_failures(folder: str, failed: Mapping[str, str]) -> None:
    """Keep the reasons of failed trials, by key, for a report that is made later."""
    storage.write_json(storage.join(folder, FAILURES), dict(failed))


def _failures(folder: str, files: set[str]) -> dict[str, str]:
    if FAILURES not in files:
        return {}
    found = storage.read_json(storage.join(folder, FAILURES))
    if not isinstance(found, dict):
        raise UserError(f"{storage.join(folder, FAILURES)}: expected reasons by trial; delete it to go on without")
    return {str(key): str(reason) for key, reason in found.items()}


def _load(folder: str, trial: Trial, files: set[str], reasons: Mapping[str, str], notes: list[str]) -> TrialResult:
    about: dict[str, Any] = {
        "key": trial.key,
        "stage": trial.stage,
        "corpus": trial.corpus,
        "pretext": trial.pretext,
        "seed": trial.job.seed,
        "decoder": trial.job.decoder,
        "label_fraction": trial.job.label_fraction,
        "protocol": trial.job.protocol,
    }
    if f"{trial.key}/{RESULT}" not in files:
        reason = reasons.get(trial.key)
        return TrialResult(**about, state="failed" if reason else "missing", failure=reason, result={}, readings=None)
    result, fault = _result(folder, trial.key, trial.stage)
    if fault:
        return TrialResult(**about, state="failed", failure=fault, result={}, readings=None)
    gpus = need(trial, 1.0 if _on_gpu(result) else 0.0).most_gpus if _knows_machine(result) else _asked_gpus(trial)
    readings = _readings(folder, trial.key, files, notes) if trial.stage == "finetune" else None
    return TrialResult(**about, state="done", failure=None, result=result, readings=readings, gpus=gpus)


def _load_earlier(folder: str, key: str, files: set[str], notes: list[str]) -> TrialResult | None:
    """A finished trial that the settings do not ask for (any more): another seed, another pretext."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    found = match.groupdict()
    pretraining = found["pre_corpus"] is not None
    stage: Any = "pretrain" if pretraining else "finetune"
    try:
        fraction = None if pretraining else float(found["fraction"])
    except ValueError:
        return None
    result, fault = _result(folder, key, stage)
    if fault:
        notes.append(f"{key}: left out, {fault}")
        return None
    return TrialResult(
        key=key,
        stage=stage,
        corpus=found["pre_corpus"] or found["corpus"],
        pretext=found["pre_pretext"] or found["pretext"],
        seed=int(found["pre_seed"] or found["seed"]),
        decoder=found["decoder"],
        label_fraction=fraction,
        protocol=found["protocol"],
        state="done",
        failure=None,
        result=result,
        readings=None if pretraining else _readings(folder, key, files, notes),
    )


def _result(folder: str, key: str, stage: str) -> tuple[dict[str, Any], str | None]:
    """``result.json`` of a trial, or what is wrong with it."""
    try:
        result = storage.read_json(storage.join(folder, key, RESULT))
    except storage.Unavailable:
        raise
    except UserError as error:
        return {}, f"its {RESULT} cannot be read: {error}"
    figure = "val_accuracy" if stage == "pretrain" else "test_cer"
    if not isinstance(result, dict) or figure not in result:
        return {}, f"its {RESULT} holds no {figure}"
    return result, None


def _readings(folder: str, key: str, files: set[str], notes: list[str]) -> list[dict[str, Any]] | None:
    if f"{key}/{READINGS}" not in files:
        notes.append(f"{key}: {READINGS} is missing, so its figures have no interval and no test")
        return None
    try:
        readings = storage.read_json(storage.join(folder, key, READINGS))
    except storage.Unavailable:
        raise
    except UserError as error:
        notes.append(f"{key}: no interval and no test, {error}")
        return None
    whole = isinstance(readings, list) and all(
        isinstance(line, dict) and all(isinstance(line.get(name), str) for name in ("id", "truth", "reading"))
        for line in readings
    )
    if not whole:
        notes.append(f"{key}: no interval and no test, {READINGS} is damaged (a line lacks id, truth or reading)")
        return None
    return readings


def _timeline(folder: str, files: set[str], notes: list[str]) -> Timeline | None:
    try:
        progress = read_progress(folder) if PROGRESS_FILE in files else None
    except storage.Unavailable:
        raise
    except UserError as error:
        notes.append(f"the timeline is missing: {error}")
        return None
    return None if progress is None else timeline_of(progress)


def _knows_machine(result: dict[str, Any]) -> bool:
    return any(name.startswith("system/") for epoch in result.get("history") or [] for name in epoch)


def _on_gpu(result: dict[str, Any]) -> bool:
    return any(name.startswith("system/gpu") for epoch in result.get("history") or [] for name in epoch)


def _asked_gpus(trial: Trial) -> float | None:
    """GPUs by the settings alone, for results that do not say whether there was one."""
    asked = trial.job.settings.gpus_per_worker
    return None if asked is None else need(trial, 0.0).most_gpus


def _corpus(uri: str, notes: list[str]) -> dict[str, Any]:
    info = storage.join(uri, INFO_FILE)
    try:
        found = storage.read_json(info)
        if not isinstance(found, dict):
            raise UserError(f"{info}: is no corpus description")
    except UserError as error:
        notes.append(f"facts of the corpus could not be read: {error}")
        return {"uri": uri}
    return {**found, "uri": uri}
