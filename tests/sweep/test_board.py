"""What a person sees of a running grid."""

from __future__ import annotations

import functools
import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from htr_ray.config import GridSettings, load
from htr_ray.sweep import board as module
from htr_ray.sweep.board import Board, duration
from htr_ray.sweep.cells import Trial, expand


@functools.lru_cache
def trials() -> list[Trial]:
    overrides = ["corpora=[c]", "pretexts=[none,flip]", "decoders=[ctc]", "label_fractions=[0.1,1.0]"]
    return expand(load(GridSettings, overrides=overrides, environment={}))


PRETRAIN = "pretrain/c/flip/seed0"
CELL = "finetune/c/semi_supervised/ctc/1/none/seed0"


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(module, "time", moved)
    return moved


def plain() -> tuple[Board, io.StringIO]:
    out = io.StringIO()
    return Board(trials(), {}, 2, Console(file=out, width=60)), out


def test_time_left_is_known_from_the_first_progress(clock: Clock) -> None:
    board, _ = plain()
    assert board.eta_seconds() is None
    board.started(PRETRAIN)
    assert board.eta_seconds() is None
    clock.now += 30
    board.reported(PRETRAIN, {"epoch": 0, "progress": 0.5, "epoch_end": True})
    # It has 30 s to go; four cells wait, each taken for as long as this trial: 60 s. Two at a time.
    assert board.eta_seconds() == pytest.approx((30 + 4 * 60) / 2)
    clock.now += 30
    board.ended(PRETRAIN, None)
    assert board.eta_seconds() == pytest.approx(4 * 60 / 2)
    board.started(CELL)
    clock.now += 10
    board.ended(CELL, None)
    # The other cells are like this one, not like the encoder.
    assert board.eta_seconds() == pytest.approx(3 * 10 / 2)


def test_nothing_is_left_when_all_have_ended(clock: Clock) -> None:
    board, _ = plain()
    for trial in trials():
        board.started(trial.key)
        board.ended(trial.key, None)
    assert board.eta_seconds() == 0
    assert board.headline().startswith("5 done of 5 trials")


EVENTS = st.sampled_from(["started", "reported", "ended", "failed"])


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), EVENTS, st.floats(0, 1), st.floats(0, 9)), max_size=40))
def test_time_left_is_never_negative(events: list[tuple[int, str, float, float]]) -> None:
    board, _ = plain()
    clock = Clock()
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "time", clock)
    board._start = clock.now
    keys = [trial.key for trial in trials()]
    began: set[str] = set()
    try:
        for number, what, progress, seconds in events:
            clock.now += seconds
            key = keys[number]
            if what == "started":
                began.add(key)
                board.started(key)
            elif key in began and what == "reported":
                board.reported(key, {"epoch": 0, "progress": progress, "epoch_end": True})
            elif key in began:
                board.ended(key, "it broke" if what == "failed" else None)
            left = board.eta_seconds()
            assert left is None or 0 <= left < float("inf")
            assert sum(board.counts().values()) == len(keys)
    finally:
        patch.undo()


def test_plain_lines_where_there_is_no_terminal(clock: Clock) -> None:
    board, out = plain()
    board.started(PRETRAIN)
    clock.now += 20
    figures = {"epoch": 0, "epoch_end": True, "progress": 0.1, "val_accuracy": 43.21, "lines_per_second": 99.6}
    board.reported(PRETRAIN, figures)
    board.reported(PRETRAIN, {**figures, "epoch": 1})  # too soon for another line
    board.reported(PRETRAIN, {**figures, "epoch_end": False})
    board.ended(PRETRAIN, "no [space] left")
    board.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{PRETRAIN}: started  [0 done, 1 training, 4 waiting of 5 trials; 0 s gone")
    assert f"{PRETRAIN}: accuracy 43.2 %, 100 lines/s" in lines[1]
    assert f"{PRETRAIN}: FAILED: no [space] left" in lines[2] and "1 failed" in lines[2]
    assert "\x1b" not in out.getvalue()


def test_a_live_table_on_a_terminal() -> None:
    out = io.StringIO()
    board = Board(trials(), {}, 2, Console(file=out, force_terminal=True, width=110, height=30, color_system=None))
    board.started(PRETRAIN)
    board.reported(PRETRAIN, {"epoch": 3, "progress": 0.5, "val_accuracy": 50.0, "epoch_end": True})
    board.started(CELL)
    board.ended(CELL, "the disk is full")
    board.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    last = shown[shown.rindex("progress") :]
    assert re.search(rf"{PRETRAIN}\s+training\s+3\s+50 %\s+accuracy 50.0 %", last)
    assert re.search(rf"{CELL}\s+failed\s+0 %\s+the disk is full", last)
    assert "0 done, 1 training, 3 waiting, 1 failed of 5 trials" in last
    assert "started  [" not in shown  # lines are for logs


def test_trials_done_before_are_counted() -> None:
    done: dict[str, dict[str, Any]] = {PRETRAIN: {"val_accuracy": 90.0}}
    board = Board(trials(), done, 1, Console(file=io.StringIO()))
    assert board.headline().startswith("1 done, 4 waiting of 5 trials")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
