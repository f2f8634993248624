"""Run a grid: expand, plan, search with Ray Tune, record, summarise, register."""

from __future__ import annotations

import functools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.markup import escape

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.connect import cluster
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.sample import write_sample
from htr_ray.errors import UserError
from htr_ray.sweep import plan as planning
from htr_ray.sweep import summary
from htr_ray.sweep.board import Board
from htr_ray.sweep.budget import Budget
from htr_ray.sweep.callbacks import GridCallback
from htr_ray.sweep.cells import SAMPLE, Trial, expand, grid_folder
from htr_ray.sweep.find import GRID_FILE
from htr_ray.sweep.halving import CellHalving
from htr_ray.sweep.optuna_choices import check_installed
from htr_ray.sweep.plan import Planned
from htr_ray.sweep.progress import GridProgress, read_progress
from htr_ray.sweep.recipe import recipe_of
from htr_ray.sweep.resources import at_a_time, check, need
from htr_ray.sweep.results import read_settings
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Searches
from htr_ray.sweep.tracking import GridLog, make_report
from htr_ray.sweep.trainable import compact
from htr_ray.sweep.tune_run import Own, tune_trials
from htr_ray.sweep.use import look
from htr_ray.train import checkpoint
from htr_ray.train.job import RESULT
from htr_ray.train.nodes import nodes
from htr_ray.train.wake import wake

logger = logging.getLogger(__name__)

# Almost nothing, so that processes start beside whatever runs; but none on a head node without CPUs.
WAKING_CPUS = 0.01
_READERS = 16  # object stores answer slowly but in parallel


def prepare_corpora(settings: GridSettings) -> GridSettings:
    """Make the embedded corpus if it is asked for, and check that every other one can be read.

    Raises UserError (no corpus at a URI) before anything is started.
    """
    corpora = [
        write_sample(storage.join(storage.normalise(settings.storage), "corpora")) if uri == SAMPLE else uri
        for uri in settings.corpora
    ]
    return settings.model_copy(update={"corpora": [Corpus.open(uri).uri for uri in corpora]})


def run_grid(settings: GridSettings, *, dry_run: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Run (or continue) a grid and return its rows; with ``dry_run``, only print the plan.

    Finished trials are skipped, interrupted ones continued from their checkpoint. Raises
    UserError for what the user can cure, before anything has started, and KeyboardInterrupt when
    Ctrl-C ended it with trials left, once what there is has been shown and logged.
    """
    console = console or Console()
    began = time.monotonic()
    settings = prepare_corpora(settings)
    trials = expand(settings)
    folder = grid_folder(settings)
    _check_unchanged(settings, folder)
    if settings.search.method == "optuna":
        check_installed()
    done = finished(trials, folder)
    searches = Searches(settings, trials)
    searches.resume(done)
    over = set(done) | searches.ended_before()
    for note in planning.notes(settings, trials):
        console.print(f"[yellow]Note:[/] {escape(note)}")
    with cluster(console):
        cpus, gpus = cluster_capacity()
        if settings.max_concurrent is None:
            check(trials, nodes())
        left = [trial for trial in trials if trial.key not in over]
        if left and not dry_run:
            # The driver has yet to plan and to open its log; the first trials find their streams awake.
            at_once = min(_slots(settings, left, gpus), _fitting(left, gpus), len(left))
            wake(at_once * left[0].job.stream.workers, WAKING_CPUS, ["SPREAD"])
        plans = planning.planned(trials, gpus, settings.search) if len(over) < len(trials) else {}
        estimate = planning.estimate(trials, plans, over, cpus, gpus, settings.max_concurrent)
        budget = planning.within_budget(trials, plans, over, cpus, gpus, settings)
        console.print(planning.table(settings, trials, over, cpus, gpus, estimate, budget))
        if dry_run:
            return {"trials": len(trials), "finished": len(over), "estimated_seconds": estimate}
        ended = _search(settings, trials, done, searches, plans, gpus, folder, console)
    seconds = time.monotonic() - began
    console.print(summary.tables(settings.name, ended.rows, seconds))
    for note in [*summary.left_out_lines(trials, ended.results), *summary.search_lines(searches)]:
        console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    if ended.stopped is None and ended.unfinished:
        raise KeyboardInterrupt
    if ended.stopped is not None:
        states = [row["state"] for row in ended.rows]
        console.print(
            f"Stopped at {ended.stopped}: {states.count('done')} of {len(states)} trials are finished. The same "
            "command goes on with the rest, for as long again.",
            soft_wrap=True,
        )
    return {
        "name": settings.name,
        "folder": folder,
        "rows": ended.rows,
        "failed": ended.failed,
        "stopped": ended.stopped,
        "seconds": seconds,
    }


@dataclass(frozen=True)
class _Ended:
    """What a run of the grid has come to. ``stopped``: the limit of the budget that ended it, or None."""

    rows: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]
    failed: dict[str, str]
    stopped: str | None
    unfinished: bool


def finished(trials: list[Trial], folder: str) -> dict[str, dict[str, Any]]:
    """Results of the trials that are done already, by key; ``folder`` is the grid's."""
    if not storage.is_dir(folder):
        return {}
    # One listing for all: asked one by one, thousands of trials take minutes on an object store.
    files = set(storage.walk(folder))
    done = [trial for trial in trials if f"{trial.key}/{RESULT}" in files]
    with ThreadPoolExecutor(_READERS) as pool:
        results = pool.map(lambda trial: compact(storage.read_json(storage.join(trial.job.folder, RESULT))), done)
        return {trial.key: result for trial, result in zip(done, results, strict=True)}


def load_settings(name: str, place: str) -> GridSettings:
    """Settings of the grid ``name`` that was run with ``storage=place``. Raises UserError if there is none."""
    uri = storage.join(storage.normalise(place), name, GRID_FILE)
    if not storage.exists(uri):
        raise UserError(f"--resume {name}: no grid of that name ({uri} is missing); check the name and storage=URI")
    return read_settings(storage.join(storage.normalise(place), name))


def _check_unchanged(settings: GridSettings, folder: str) -> None:
    """Refuse to mix results of different recipes under one name; show what differs."""
    uri = storage.join(folder, GRID_FILE)
    if not storage.exists(uri):
        return
    before, now = recipe_of(read_settings(folder)), recipe_of(settings)
    changed = [
        f"{key}: was {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(
            f"grid '{settings.name}' exists with other settings, its results would not compare:\n  "
            + "\n  ".join(changed)
            + f"\nuse another name=..., set them back, or delete {folder}"
        )


def cluster_capacity() -> tuple[float, float]:
    """CPUs and GPUs of the cluster as it is now; nodes that joined count."""
    resources = ray.cluster_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def _slots(settings: GridSettings, left: list[Trial], gpus: float) -> int:
    """Trials at a time, of those that are left."""
    return settings.max_concurrent or _fitting(left, gpus)


def _fitting(left: list[Trial], gpus: float) -> int:
    """How many of these trials the cluster, as it is now, holds at a time; at least 1."""
    capacity = cluster_capacity()
    return min((at_a_time(need(trial, gpus), *capacity) for trial in left), default=1)


def _search(
    settings: GridSettings,
    trials: list[Trial],
    done: dict[str, dict[str, Any]],
    searches: Searches,
    plans: dict[str, Planned],
    gpus: float,
    folder: str,
    console: Console,
) -> _Ended:
    """Have the trials run that are left, and close the books."""
    storage.write_json(storage.join(folder, GRID_FILE), settings.model_dump(mode="json"))
    if done:
        checkpoint.clear_finished(folder, done)
    log = GridLog(settings, console)
    recorder = log.recorder
    recorder.finished_before(
        [searches.resolve(trial) for trial in trials if trial.key in done and searches.settled(trial)]
    )
    over = set(done) | searches.ended_before()
    left = [trial for trial in trials if trial.key not in over]
    searcher = GridSearcher(
        trials,
        over,
        searches=searches,
        need=functools.partial(need, cluster_gpus=gpus),
        capacity=cluster_capacity,
        max_concurrent=settings.max_concurrent,
    )
    slots = _slots(settings, left, gpus)
    board = Board(
        settings.name,
        trials,
        done,
        console,
        need=functools.partial(need, cluster_gpus=gpus),
        halved=over - set(done),
        look=look,
        max_concurrent=settings.max_concurrent,
        planned=plans,
        earlier=_earlier(folder, console),
        folder=folder,
    )
    budget = Budget(settings.budget, searcher.gpu_hours)
    halving = CellHalving(settings.search, searches, searcher) if settings.search.halving else None
    unfinished = True
    rows: list[dict[str, Any]] = []
    try:
        if left:
            tune_run = Own(searcher, halving, budget, GridCallback(searcher, board, recorder))
            tune_trials(settings, tune_run, gpus, slots)
        # Tune takes the first Ctrl-C for an orderly end, and returns.
        unfinished = searcher.unfinished
    finally:
        board.close()
        searches.close()
        files: dict[str, bytes] = {}
        results = finished(trials, folder)
        rows = summary.rows(searches.cells(trials), results, searcher.failed)
        try:
            # A person who pressed Ctrl-C waits for the log, not for drawings.
            if not unfinished or budget.reached:
                files = make_report(settings, folder, searcher.failed, console)
        finally:
            log.finish(rows, files, interrupted=unfinished)
    return _Ended(rows, results, searcher.failed, budget.reached if unfinished else None, unfinished)


def _earlier(folder: str, console: Console) -> GridProgress | None:
    """What earlier drivers of the grid left of its progress: for the timeline, so a damaged one stops nothing."""
    try:
        return read_progress(folder)
    except UserError as error:
        note = f"[yellow]Note:[/] earlier attempts are not in the timeline: {escape(str(error))}"
        console.print(note, soft_wrap=True)
        return None
