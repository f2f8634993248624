"""What a person sees of a running grid: a live table and an ETA; plain lines where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from htr_ray.sweep.cells import Trial

LINE_SECONDS = 15.0


class Board:
    """State of every trial, fed by Tune's callbacks in the driver."""

    def __init__(self, trials: list[Trial], done: dict[str, dict[str, Any]], slots: int, console: Console) -> None:
        self.console = console
        self._slots = slots
        self._trials = {trial.key: trial for trial in trials}
        self._state = {trial.key: "done" if trial.key in done else "waiting" for trial in trials}
        self._last: dict[str, dict[str, Any]] = {key: dict(result) for key, result in done.items()}
        self._seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._start = time.monotonic()
        self._printed = 0.0
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=2, get_renderable=self.render)
            self._live.start()

    def started(self, key: str) -> None:
        self._state[key] = "training"
        self._began[key] = time.monotonic()
        self._say(f"{key}: started")

    def reported(self, key: str, result: dict[str, Any]) -> None:
        self._last.setdefault(key, {}).update(result)
        if result.get("epoch_end"):
            self._say(f"{key}: {self._figures(key)}", every=LINE_SECONDS)

    def ended(self, key: str, failure: str | None, halved: bool = False) -> None:
        self._state[key] = "failed" if failure else "halved" if halved else "done"
        self._seconds[key] = time.monotonic() - self._began.get(key, time.monotonic())
        if failure:
            self._last.setdefault(key, {})["failure"] = failure
        self._say(f"{key}: {'FAILED: ' + failure if failure else f'{self._state[key]}, {self._figures(key)}'}")

    def told(self, text: str) -> None:
        """Show what a person should know at once, such as a checkpoint that could not be written."""
        self.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def eta_seconds(self) -> float | None:
        """Seconds left, from the trials so far; None before the first sign of progress.

        Trials that run are taken at their own pace; those that wait, at the mean of the
        finished ones of their stage (or of all, while there are none).
        """
        now = time.monotonic()
        expected: list[float] = []
        for key, state in self._state.items():
            progress = self._last.get(key, {}).get("progress") or 0.0
            if state == "training" and progress > 0.02:
                elapsed = now - self._began[key]
                expected.append(elapsed / progress - elapsed)
        typical = {stage: self._typical(stage) for stage in ("pretrain", "finetune")}
        for key, state in self._state.items():
            progress = self._last.get(key, {}).get("progress") or 0.0
            if state == "waiting" or (state == "training" and progress <= 0.02):
                guess = typical[self._trials[key].stage]
                if guess is None:
                    return None
                expected.append(guess)
        return sum(expected) / max(1, self._slots) if expected else 0.0

    def _typical(self, stage: str) -> float | None:
        """Seconds of a usual trial of a stage, from finished ones or, failing that, from running ones."""
        finished = {k: s for k, s in self._seconds.items() if self._state[k] == "done"}
        same = [s for key, s in finished.items() if self._trials[key].stage == stage] or list(finished.values())
        if same:
            return sum(same) / len(same)
        now = time.monotonic()
        running = [
            (now - began) / progress
            for key, began in self._began.items()
            if self._state[key] == "training" and (progress := self._last.get(key, {}).get("progress") or 0) > 0.05
        ]
        return sum(running) / len(running) if running else None

    def counts(self) -> dict[str, int]:
        states = list(self._state.values())
        return {state: states.count(state) for state in ("done", "training", "waiting", "halved", "failed")}

    def headline(self) -> str:
        counts = self.counts()
        eta = self.eta_seconds()
        parts = [f"{count} {state}" for state, count in counts.items() if count or state == "done"]
        left = "ETA unknown yet" if eta is None else f"ETA {duration(eta)}"
        return (
            f"{', '.join(parts)} of {len(self._state)} trials; {duration(time.monotonic() - self._start)} gone, {left}"
        )

    def render(self) -> Group:
        """The live table: trials that run or have failed, in full; the rest as counts."""
        table = Table(box=None, pad_edge=False)
        for column in ("trial", "state", "epoch", "progress", "figures"):
            table.add_column(column, no_wrap=column != "figures")
        for key, state in self._state.items():
            if state in ("training", "failed"):
                last = self._last.get(key, {})
                figures = last.get("failure") if state == "failed" else self._figures(key)
                table.add_row(
                    key,
                    state,
                    str(last.get("epoch", "")),
                    f"{100 * (last.get('progress') or 0):.0f} %",
                    Text(str(figures)),
                )
        return Group(table, Text(self.headline(), style="bold"))

    def _figures(self, key: str) -> str:
        last = self._last.get(key, {})
        final = last.get("result", last)
        shown = []
        for name, label in (("val_accuracy", "accuracy"), ("val_cer", "val CER"), ("test_cer", "test CER")):
            value = final.get(name, last.get(name))
            if value is not None:
                shown.append(f"{label} {value:.1f} %")
        if "lines_per_second" in last:
            shown.append(f"{last['lines_per_second']:.0f} lines/s")
        return ", ".join(shown)

    def _say(self, line: str, every: float = 0.0) -> None:
        if self._live is not None:
            return
        now = time.monotonic()
        if now - self._printed >= every:
            self._printed = now
            self.console.print(f"{line}  [{self.headline()}]", markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """``3 s``, ``12 min``, ``5.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
