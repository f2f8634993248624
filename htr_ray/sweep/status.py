"""The progress of a grid for another shell or machine, from the file that its driver writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.live import Live

from htr_ray import storage
from htr_ray.errors import UserError
from htr_ray.sweep.find import find_grid
from htr_ray.sweep.matrix import View, headline
from htr_ray.sweep.progress import GridProgress, State, read_progress
from htr_ray.sweep.wording import duration

SILENT_BEATS = 6
"""A driver that missed so many heartbeats is told to be silent: one of them can take long on a slow store."""
WATCH_SECONDS = 5.0


def status_of(name_or_uri: str, place: str) -> GridProgress:
    """The progress of the grid ``name_or_uri`` kept under ``place``, as its driver wrote it last.

    Raises UserError when there is no such grid, or it has no progress file.
    """
    folder = find_grid(name_or_uri, place)
    found = read_progress(folder)
    if found is None:
        raise UserError(
            f"{folder}: has no progress.json: the grid has not started yet, or an older version of htr-ray ran it; "
            f"python jobs/report.py {name_or_uri} tells its results"
        )
    return found


def silence(grid: GridProgress, now: float) -> str | None:
    """Why the picture may be old, in words; None for a driver that is alive or has ended in order."""
    session, age = grid.session, now - grid.heartbeat
    again = "the same command again continues the grid"
    if session.ended is not None:
        return None if grid.finished else f"the driver ended {duration(age)} ago before all was done; {again}"
    if age < SILENT_BEATS * grid.every:
        return None
    return (
        f"the driver has not been heard of for {duration(age)} (process {session.pid} on {session.host}): it was "
        f"killed, or cannot reach the storage; once it is gone, {again}"
    )


def show(grid: GridProgress, console: Console) -> None:
    """Print the board once, with all its rows."""
    console.print(_view(grid, whole=True))


def watch(look: Callable[[], GridProgress], console: Console, seconds: float = WATCH_SECONDS) -> GridProgress:
    """Show the board until the driver has ended, or Ctrl-C; returns what was seen last.

    Without a terminal, a line whenever the counts change. A store that is away is waited for.
    """
    seen = look()
    told: dict[State, int] = {}
    with Live(console=console, auto_refresh=False, transient=True) as live, suppress(KeyboardInterrupt):
        while True:
            if console.is_terminal:
                live.update(_view(seen, whole=False), refresh=True)
            elif seen.counts != told:
                told = seen.counts
                console.print(f"{seen.name}: {headline(seen, time.time())}", highlight=False, soft_wrap=True)
            if seen.session.ended is not None:
                break
            time.sleep(seconds)
            with suppress(storage.Unavailable):
                seen = look()
    show(seen, console)
    return seen


def summary(grid: GridProgress, now: float) -> dict[str, Any]:
    """For scripts: states, time left, and whether the driver is alive."""
    ended = grid.session.ended
    return {
        "name": grid.name,
        "driver": "ended" if ended is not None else "silent" if silence(grid, now) else "running",
        "finished": grid.finished,
        "trials": grid.counts,
        "eta_seconds": grid.eta if ended is None else None,
        "heard_seconds_ago": max(0.0, now - grid.heartbeat),
        "failures": {trial.key: trial.failure for trial in grid.trials if trial.state == "failed"},
    }


def _view(grid: GridProgress, whole: bool) -> View:
    now = time.time()
    note = silence(grid, now)
    # A silent driver's trials are shown as they were.
    return View(grid, grid.heartbeat if note else now, [f"Note: {note}"] if note else [], whole)
