"""How far the reading is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from htr_ray.transcribe.part import Tally

LINE_SECONDS = 15.0


class Meter:
    """Counts what comes back, and tells it; to be used as a context."""

    def __init__(self, console: Console, tasks: int, expected: int) -> None:
        """``tasks``: how many there are to be done; ``expected``: about how many lines they have."""
        self._console, self._tasks, self._expected = console, tasks, expected
        self._began = self._told = time.monotonic()
        self._done = 0
        self.tally = Tally()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), console=console, transient=True
            )

    def __enter__(self) -> Meter:
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task("starting", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, tally: Tally, ends: bool) -> None:
        """Count a chunk; ``ends``: it is the last one of its task."""
        self.tally.add(tally)
        self._done += ends
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.share, description=self.headline())
        elif now - self._told >= LINE_SECONDS and self.share < 1:
            self._told = now
            self._console.print(f"{100 * self.share:.0f} %: {self.headline()}", highlight=False, soft_wrap=True)

    @property
    def share(self) -> float:
        """How much is done, 0 to 1: by tasks, whose number is known, and within them by lines, which is a guess."""
        by_lines = min(self.tally.lines / max(self._expected, 1), 0.99)
        by_tasks = self._done / max(self._tasks, 1)
        # A task that is not yet done counts by its lines, but never as a whole one.
        return min(max(by_tasks, by_lines), (self._done + 1) / max(self._tasks, 1), 1.0)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def headline(self) -> str:
        """``1,234 lines read, 5 unreadable, 210 lines/s, 0:00:12 gone, ETA 0:01:02``."""
        share = self.share
        left = f"ETA {_clock(self.seconds / share - self.seconds)}" if share else "ETA unknown yet"
        unreadable = f", {self.tally.unreadable:,} unreadable" if self.tally.unreadable else ""
        rate = self.tally.read / max(self.seconds, 1e-3)
        return f"{self.tally.read:,} lines read{unreadable}, {rate:.0f} lines/s, {_clock(self.seconds)} gone, {left}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
