"""Tune's callbacks in the driver: they feed the board and the tracker, and hold no logic of their own."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from htr_ray.sweep.board import Board
from htr_ray.sweep.record import Recorder
from htr_ray.sweep.searcher import GridSearcher


class GridCallback(Callback):
    """Passes every event of a trial on, by the trial's stable key."""

    def __init__(self, searcher: GridSearcher, board: Board, recorder: Recorder) -> None:
        self._searcher = searcher
        self._board = board
        self._recorder = recorder
        self._started: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for Tuner.restore(); a grid is continued from its own storage instead,
        # and a terminal and a logging thread cannot be pickled.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config["key"]
        self._board.started(key)
        if key in self._started:  # started again after a fault
            return
        self._started.add(key)
        self._recorder.started(self._searcher.trials[key])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key = trial.config["key"]
        self._board.reported(key, result)
        if result.get("warning"):
            self._board.told(result["warning"])
        if result.get("epoch_end"):
            self._recorder.epoch(key, result)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._board.broke(trial.config["key"], _why(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        report = trial.last_result or {}
        halved = not report.get("finished") and not report.get("failure")
        self._end(trial, report.get("failure"), halved=halved)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key, why = trial.config["key"], _why(trial)
        if self._searcher.broke(key, why, final=not trial.should_recover()):
            self._end(trial, why)
        else:
            self._board.broke(key, why)

    def _end(self, trial: Any, failure: str | None, halved: bool = False) -> None:
        key = trial.config["key"]
        self._board.ended(key, failure, halved=halved)
        if halved:
            self._recorder.halved(key, trial.last_result)
        else:
            self._recorder.ended(self._searcher.trials[key], failure)
        # Of every metric Tune keeps averages and the last values to the end, for a table that nobody asks for: most of
        # what the driver's memory grew by with each trial.
        for kept in (trial.run_metadata.metric_analysis, trial.run_metadata.metric_n_steps):
            kept.clear()


def _why(trial: Any) -> str:
    """The last line of what ended a trial's process: Ray puts the traceback before it."""
    lines = str(trial.get_error() or "").strip().splitlines()
    return lines[-1].strip() if lines else "its process died"
