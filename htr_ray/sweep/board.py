"""What a person sees of a running grid: a live table on a terminal, plain lines elsewhere, a file for other shells."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.live import Live

from htr_ray.sweep.cells import Trial
from htr_ray.sweep.eta import time_left
from htr_ray.sweep.matrix import View, figures_of, headline
from htr_ray.sweep.plan import Planned
from htr_ray.sweep.progress import Attempt, GridProgress, Session, State, TrialProgress, Use, write_progress
from htr_ray.sweep.resources import Need, at_a_time
from htr_ray.sweep.waiting import stall
from htr_ray.track.background import first_line

LINE_SECONDS = 15.0
"""Between two plain lines about epochs."""
LOOK_SECONDS = 2.0
"""Between two looks at what Ray has free."""
FILE_SECONDS = 10.0
"""Between two writings of progress.json."""
STALL_SECONDS = 300.0
"""Between two plain lines about a grid that stands still."""
SMALL = 0.005
"""Seconds that an estimate may take to be made for every event."""
SHOWN = ("val_accuracy", "val_cer", "test_cer", "lines_per_second", "system/gpu_0_utilization_percentage")
"""Figures of reports and results that are kept."""


class Board:
    """State of every trial, fed by Tune's callbacks in the driver; events return at once.

    Args:
        name: of the grid.
        trials: in the order in which they are started.
        done: results of trials that were finished before.
        console: where it is told.
        need: what a trial takes of the cluster.
        halved: keys of trials without a result that do not run again: their search was decided.
        look: what the cluster has, now; called in a thread of its own, and may take its time or raise.
        max_concurrent: the grid's setting.
        planned: training seconds by key.
        earlier: what an earlier driver of the grid left, for its attempts.
        folder: URI of the grid's folder, for ``progress.json``; None: no file.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        trials: Sequence[Trial],
        done: Mapping[str, Mapping[str, Any]],
        console: Console,
        *,
        need: Callable[[Trial], Need],
        halved: Collection[str] = (),
        look: Callable[[], Use] | None = None,
        max_concurrent: int | None = None,
        planned: Mapping[str, Planned] | None = None,
        earlier: GridProgress | None = None,
        folder: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.console, self._name, self._folder, self._clock = console, name, folder, clock
        self._need, self._max_concurrent, self._planned = need, max_concurrent, dict(planned or {})
        self._look, self._use = look, None if look is None else look()
        self._before = {trial.key: trial for trial in [*earlier.earlier, *earlier.trials]} if earlier else {}
        self._sessions: tuple[Session, ...] = ()
        if earlier is not None:  # one that died has ended when it was heard of last
            ends = [earlier.heartbeat if one.ended is None else one.ended for one in earlier.sessions]
            self._sessions = tuple(replace(one, ended=end) for one, end in zip(earlier.sessions, ends, strict=True))
        self._start = clock()
        self._session = Session(self._start, None, socket.gethostname(), os.getpid())
        self._trials: dict[str, TrialProgress] = {}
        self._wants: dict[str, Need] = {}
        self._eta: tuple[float, float, float | None] | None = None  # valid until, made at, seconds left
        self._eta_cost = 0.0  # seconds that it took
        self._printed = self._stall_told = float("-inf")
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._file_lock, self._file_failed = threading.Lock(), False
        self.added(trials)
        for trial in trials:
            if trial.key in done:
                self._trials[trial.key] = _done_before(trial, self._trials[trial.key], done[trial.key])
            elif trial.key in halved:
                self._trials[trial.key] = replace(self._trials[trial.key], state="halved")
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                console=console, refresh_per_second=2, get_renderable=lambda: View(self.progress(), self._clock())
            )
            self._live.start()
        self._watcher = threading.Thread(target=self._watch, name="htr-ray-board", daemon=True)
        if folder is not None or look is not None:
            self._watcher.start()

    def added(self, trials: Iterable[Trial]) -> None:
        """More trials are known."""
        for trial in trials:
            fresh = self._waiting(trial)
            before = self._before.pop(trial.key, None)
            if before is not None:
                attempts = tuple(_closed(attempt, None) for attempt in before.attempts)
                fresh = replace(fresh, attempts=attempts, seconds=before.seconds, progress=before.progress)
            with self._lock:
                self._trials[trial.key] = fresh

    def started(self, key: str) -> None:
        """A process works on the trial, for the first time or again after a fault."""
        trial, now = self._trials[key], self._clock()
        share = 1 / self._max_concurrent if self._max_concurrent else 1.0
        if self._use is not None and not self._max_concurrent:
            share = 1 / at_a_time(self._wants[key], self._use.cpus, self._use.gpus)
        attempts = (*(_closed(attempt, None) for attempt in trial.attempts), Attempt(now, share))
        self._change(key, state="training", attempts=attempts, failure=None)
        self._say(f"{key}: started" + (f" again, attempt {len(attempts)}" if len(attempts) > 1 else ""))

    def reported(self, key: str, result: Mapping[str, Any]) -> None:
        """Figures of an epoch, a sign of life within one, or the final result."""
        trial, now = self._trials[key], self._clock()
        final = result.get("result")
        figures = {**trial.figures, **_figures(result), **_figures(final if isinstance(final, Mapping) else {})}
        changes: dict[str, Any] = {"figures": figures}
        progress = result.get("progress")
        if not result.get("finished") and isinstance(progress, int | float) and math.isfinite(progress):
            changes |= {
                "progress": float(progress),
                "seconds": float(result.get("seconds") or trial.seconds),
                "epoch": result.get("epoch"),
            }
            if (attempt := trial.attempt) is not None:
                ahead = 0.0 if attempt.trained_from or not result.get("epoch_end") else changes["seconds"]
                # Of an epoch that nothing was heard of before, the trial's own clock tells the length.
                ahead = min(max(0.0, ahead - trial.seconds), now - attempt.began)
                heard = replace(
                    attempt,
                    trained_from=attempt.trained_from or now - ahead,
                    trained_to=now,
                    node=result.get("node_ip") or attempt.node,
                )
                changes["attempts"] = (*trial.attempts[:-1], heard)
        self._change(key, **changes)
        if result.get("epoch_end"):
            self._say(f"{key}: {figures_of(self._trials[key])}", every=LINE_SECONDS)

    def broke(self, key: str, why: str) -> None:
        """Its process ended in a fault, and it will be started again."""
        trial = self._trials[key]
        attempts = (*trial.attempts[:-1], *(_closed(one, self._clock(), why) for one in trial.attempts[-1:]))
        self._change(key, state="waiting", attempts=attempts)
        self._say(f"{key}: will be started again after a fault: {why}")

    def ended(self, key: str, failure: str | None, halved: bool = False) -> None:
        """It is over: done, stopped early among the choices of its cell, or failed."""
        trial = self._trials[key]
        attempts = (*trial.attempts[:-1], *(_closed(one, self._clock(), failure) for one in trial.attempts[-1:]))
        state: State = "failed" if failure else "halved" if halved else "done"
        self._change(key, state=state, attempts=attempts, failure=failure)
        if failure:
            self._fail_behind()
        how = f"FAILED: {failure}" if failure else "stopped early" if halved else "done"
        told = ", ".join(filter(None, [how, "" if failure else figures_of(self._trials[key])]))
        self._say(f"{key}: {told}")

    def progress(self, patient: bool = True) -> GridProgress:
        """All of it, now; who is not ``patient`` gets the last estimate of the time left where a new one takes long."""
        now = self._clock()
        with self._lock:
            trials, earlier = tuple(self._trials.values()), tuple(self._before.values())
        return GridProgress(
            name=self._name,
            heartbeat=now,
            every=FILE_SECONDS,
            sessions=(*self._sessions, self._session),
            trials=trials,
            earlier=earlier,
            use=self._use,
            max_concurrent=self._max_concurrent,
            eta=self._time_left(trials, now, patient),
        )

    def told(self, text: str) -> None:
        """Show what a person should know at once, such as a checkpoint that could not be written."""
        self.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """The last picture, on the screen and in the file."""
        self._session = replace(self._session, ended=self._clock())
        self._closed.set()
        if self._watcher.is_alive():
            self._watcher.join(timeout=60)
        self._write()
        if self._live is not None:
            self._live.stop()

    def _waiting(self, trial: Trial) -> TrialProgress:
        job, wanted = trial.job, self._need(trial)
        self._wants[trial.key] = wanted
        planned = self._planned.get(trial.key)
        return TrialProgress(
            key=trial.key,
            stage=job.stage,
            corpus=trial.corpus,
            pretext=trial.pretext,
            seed=job.seed,
            decoder=job.decoder,
            label_fraction=job.label_fraction,
            protocol=job.protocol,
            waits_for=trial.waits_for,
            takes=trial.takes,
            group=trial.group,
            choice=trial.choice,
            probe=trial.probe,
            cpus=wanted.cpus,
            gpus=wanted.gpus,
            planned=planned.seconds if planned else 1.0,
            guessed=planned.guessed if planned else True,
            expected=planned.share if planned else 1.0,
            max_epochs=job.settings.max_epochs,
        )

    def _fail_behind(self) -> None:
        """The searcher never starts what is behind a failed trial, or behind a search that has no winner."""
        probed = {trial.group for trial in self._trials.values() if trial.probe}
        while True:
            lost = {trial.key for trial in self._trials.values() if trial.state == "failed"}
            searches: dict[str, set[State]] = {}
            for trial in self._trials.values():
                # Where probes judge, an encoder that is done is no winner yet.
                if trial.group is not None and (trial.probe or trial.group not in probed):
                    searches.setdefault(trial.group, set()).add(trial.state)
            lost |= {key for key, states in searches.items() if states <= {"failed", "halved"}}
            found = [
                (trial, key)
                for trial in self._trials.values()
                if trial.state == "waiting"
                for key in trial.behind
                if key in lost
            ]
            if not found:
                return
            for trial, key in found:
                what = "pre-training" if key == trial.waits_for else "search"
                self._change(trial.key, state="failed", failure=f"its {what} {key} failed")

    def _change(self, key: str, **changes: Any) -> None:
        changed = replace(self._trials[key], **changes)
        with self._lock:
            self._trials[key] = changed

    def _time_left(self, trials: tuple[TrialProgress, ...], now: float, patient: bool) -> float | None:
        """The estimate; with thousands of trials it takes a while, and is not made anew for every event."""
        old = self._eta is None or now >= self._eta[0] or now < self._eta[1]
        if old and (patient or self._eta_cost <= SMALL):
            began = time.perf_counter()
            left = time_left(trials, now, self._use, self._max_concurrent)
            self._eta_cost = time.perf_counter() - began
            self._eta = (now + (50 * self._eta_cost if self._eta_cost > SMALL else 0.0), now, left)
        if self._eta is None:
            return None
        _, made, left = self._eta
        return None if left is None else max(0.0, left - (now - made))

    def _say(self, line: str, every: float = 0.0) -> None:
        now = self._clock()
        if self._live is None and now - self._printed >= every:
            self._printed = now
            # Tune's loop does not wait for the estimate; the watcher makes it.
            told = headline(self.progress(patient=not self._watcher.is_alive()), now)
            self.console.print(f"{line}  [{told}]", markup=False, highlight=False, soft_wrap=True)

    def _watch(self) -> None:
        written = float("-inf")
        while True:
            try:
                if self._look is not None:
                    self._use = self._look()
            except Exception:  # Ray's head may be away for a moment: what was seen last is shown
                pass
            self.progress()  # the estimate, where it is due
            now = time.monotonic()
            if now - written >= FILE_SECONDS:
                self._write()
                written = time.monotonic()
            self._say_stall()
            if self._closed.wait(LOOK_SECONDS):
                return

    def _say_stall(self) -> None:
        now = self._clock()
        if self._live is None and now - self._stall_told >= STALL_SECONDS:
            line = stall(self.progress(), now)
            if line is not None:
                self._stall_told = now
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _write(self) -> None:
        if self._folder is None:
            return
        try:
            with self._file_lock:  # the last to take a picture is the last to write it
                write_progress(self._folder, self.progress())
        except Exception as error:  # whatever the store has, the grid goes on without
            if not self._file_failed:
                self._file_failed = True
                told = f"Note: jobs/status.py cannot see this grid, its file is not written: {first_line(error)}"
                self.console.print(told, markup=False, highlight=False, soft_wrap=True)


def _closed(attempt: Attempt, at: float | None, fault: str | None = None) -> Attempt:
    """An attempt that is over; one whose end nobody saw, at its last sign of life."""
    if attempt.ended is not None:
        return attempt
    heard = attempt.trained_to or attempt.began
    return replace(attempt, ended=heard if at is None else at, fault=fault)


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Those that are shown; what is no number, such as the CER of no lines, is not."""
    found = ((name, result.get(name)) for name in SHOWN)
    return {name: float(value) for name, value in found if isinstance(value, int | float) and math.isfinite(value)}


def _done_before(trial: Trial, progress: TrialProgress, result: Mapping[str, Any]) -> TrialProgress:
    """A trial that an earlier run finished, from its result."""
    epochs, minutes, settings = result.get("epochs") or 0, result.get("minutes") or 0.0, trial.job.settings
    share = max(epochs / settings.max_epochs, minutes / settings.max_minutes if settings.max_minutes else 0.0)
    return replace(
        progress,
        state="done",
        attempts=tuple(_closed(attempt, None) for attempt in progress.attempts),
        figures=_figures(result),
        epoch=max(0, epochs - 1),
        progress=min(1.0, share),
        seconds=60.0 * minutes,
    )
