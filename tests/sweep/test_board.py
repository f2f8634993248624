"""What a person sees of a running grid."""

from __future__ import annotations

import functools
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from htr_ray.config import GridSettings, load
from htr_ray.sweep.board import Board
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.matrix import View, headline
from htr_ray.sweep.plan import Planned
from htr_ray.sweep.progress import PROGRESS_FILE, Use, read_progress
from htr_ray.sweep.resources import need
from htr_ray.sweep.wording import duration


@functools.lru_cache
def trials() -> list[Trial]:
    overrides = ["corpora=[c]", "pretexts=[none,flip]", "decoders=[ctc]", "label_fractions=[0.1,1.0]"]
    return expand(load(GridSettings, overrides=overrides, environment={}))


PRETRAIN = "pretrain/c/flip/seed0"
CELL = "finetune/c/semi_supervised/ctc/1/none/seed0"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def board(clock: Clock, console: Console | None = None, **how: Any) -> Board:
    """Two trials at a time; every schedule is planned to take 100 s."""
    how = {"max_concurrent": 2, "planned": {t.key: Planned(100.0, guessed=False) for t in trials()}, **how}
    console = console or Console(file=io.StringIO(), width=60)
    return Board("g", how.pop("trials", trials()), how.pop("done", {}), console, need=_need, clock=clock, **how)


def _need(trial: Trial) -> Any:
    return need(trial, 0.0)


def epoch(number: int, progress: float, seconds: float, **figures: float) -> dict[str, Any]:
    return {"epoch": number, "epoch_end": True, "progress": progress, "seconds": seconds, **figures}


def test_time_left_is_learned_from_what_runs(clock: Clock) -> None:
    made = board(clock)
    first = made.progress().eta
    assert first is not None and first > 2 * 100, "as planned: a cell behind the encoder, others beside it"
    made.started(PRETRAIN)
    clock.now += 30
    made.reported(PRETRAIN, epoch(0, 0.5, 30.0))
    now = made.progress().eta
    assert now is not None and now < 0.9 * first, "it takes 60 s, not 100"
    clock.now += 30
    made.reported(PRETRAIN, epoch(1, 1.0, 60.0))
    made.ended(PRETRAIN, None)
    # Four cells, two at a time, 60 s each, and what starts and ends them.
    left = made.progress().eta
    assert left == pytest.approx(2 * 70, rel=0.15)


def test_nothing_is_told_of_a_speed_that_nobody_knows(clock: Clock) -> None:
    made = board(clock, planned={t.key: Planned(1.0, guessed=True) for t in trials()})
    made.started(PRETRAIN)
    assert made.progress().eta is None
    clock.now += 30
    made.reported(PRETRAIN, epoch(0, 0.25, 30.0))
    left = made.progress().eta
    assert left is not None and 90 < left < 1000


def test_nothing_is_left_when_all_have_ended(clock: Clock) -> None:
    made = board(clock)
    for trial in trials():
        made.started(trial.key)
        made.ended(trial.key, None)
    grid = made.progress()
    assert grid.eta == 0 and grid.finished
    assert headline(grid, clock.now).startswith("5 done of 5 trials")


def test_a_search_whose_probes_all_fail_leaves_nothing_waiting(clock: Clock) -> None:
    """Its encoders are done, but nobody knows which is the best."""
    overrides = ["corpora=[c]", "pretexts=[flip]", "decoders=[ctc]", "label_fractions=[1.0]", "seeds=[0,1]"]
    searched = "search.pretrain={pretext.window_aspect: [1.0, 2.0]}"
    mine = expand(load(GridSettings, overrides=[*overrides, searched], environment={}))
    planned = {trial.key: Planned(100.0, guessed=False) for trial in mine}
    made = board(clock, trials=mine, planned=planned)
    for trial in mine:
        if trial.group:
            made.started(trial.key)
            made.ended(trial.key, "away" if trial.probe else None)
    states = {trial.key: trial.state for trial in made.progress().trials}
    assert {states[trial.key] for trial in mine if not trial.group} == {"failed"} and made.progress().finished


EVENTS = st.sampled_from(["started", "reported", "broke", "ended", "failed", "halved"])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), EVENTS, st.floats(0, 1), st.floats(0, 9)), max_size=60))
def test_whatever_happens_the_board_keeps_count(events: list[tuple[int, str, float, float]]) -> None:
    clock = Clock()
    made = board(clock, look=None)
    keys = [trial.key for trial in trials()]
    starts = dict.fromkeys(keys, 0)
    for number, what, progress, seconds in events:
        clock.now += seconds
        key = keys[number]
        state = {trial.key: trial for trial in made.progress().trials}[key].state
        if what == "started" and state in ("waiting", "training"):  # training: after a fault that nobody saw
            starts[key] += 1
            made.started(key)
        elif state == "training" and what == "reported":
            made.reported(key, epoch(int(100 * progress), progress, seconds, val_cer=progress * 100))
        elif state == "training" and what == "broke":
            made.broke(key, "its process died")
        elif state == "training" and what != "started":
            made.ended(key, "it broke" if what == "failed" else None, halved=what == "halved")
        grid = made.progress()
        assert grid.eta is not None and 0 <= grid.eta < 1e6
        assert sum(grid.counts.values()) == len(keys)
        for trial in grid.trials:
            assert len(trial.attempts) == starts[trial.key]
            assert (trial.state == "failed") == (trial.failure is not None)
            assert all(attempt.ended is not None for attempt in trial.attempts[:-1])
            assert (trial.attempt is not None and trial.attempt.ended is None) == (trial.state == "training")
            for attempt in trial.attempts:
                times = [attempt.began, attempt.trained_from, attempt.trained_to, attempt.ended]
                known = [moment for moment in times if moment is not None]
                assert known == sorted(known) and known[-1] <= clock.now
        console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
        console.print(View(grid, clock.now))


def test_plain_lines_where_there_is_no_terminal(clock: Clock) -> None:
    out = io.StringIO()
    made = board(clock, Console(file=out, width=60))
    made.started(PRETRAIN)
    clock.now += 20
    made.reported(PRETRAIN, epoch(0, 0.1, 18.0, val_accuracy=43.21, lines_per_second=99.6))
    made.reported(PRETRAIN, epoch(1, 0.2, 19.0))  # too soon for another line
    made.reported(PRETRAIN, {"epoch": 2, "progress": 0.2, "seconds": 19.5, "epoch_end": False})
    made.broke(PRETRAIN, "its process died")
    made.started(PRETRAIN)
    made.ended(PRETRAIN, "no [space] left")
    made.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(f"{PRETRAIN}: started  [0 done, 4 waiting, 1 training of 5 trials; 0 s gone, ETA ")
    assert f"{PRETRAIN}: accuracy 43.2 %, 100 lines/s" in lines[1]
    assert f"{PRETRAIN}: will be started again after a fault: its process died" in lines[2]
    assert f"{PRETRAIN}: started again, attempt 2" in lines[3]
    assert f"{PRETRAIN}: FAILED: no [space] left" in lines[4] and "3 failed" in lines[4], "two cells wait for it"
    assert "\x1b" not in out.getvalue()


def test_a_live_matrix_on_a_terminal(clock: Clock) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, height=30, color_system=None)
    made = board(clock, console, look=lambda: Use(1, 4.0, 0.0, 1.0, 0.0))
    made.started(PRETRAIN)
    made.reported(PRETRAIN, epoch(3, 0.5, 9.0, val_accuracy=50.0))
    made.started(CELL)
    made.ended(CELL, "Traceback:\nthe disk is full")
    made.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    last = shown[shown.rindex("corpus ") :]
    assert re.search(r"pre-training\s+-\s+epoch 4 50.0 ▅", last)
    assert re.search(r"ctc\s+100 %\s+✗\s+·", last)
    assert f"failed {CELL}: the disk is full" in last
    assert "0 done, 3 waiting, 1 training, 1 failed of 5 trials" in shown
    assert "started  [" not in shown  # lines are for logs


def test_a_terminal_of_old_gets_signs_of_old(clock: Clock) -> None:
    made = board(clock)
    made.started(PRETRAIN)
    made.reported(PRETRAIN, epoch(3, 0.5, 9.0, val_accuracy=50.0))
    sink = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=sink, width=100, height=40).print(View(made.progress(), clock.now, whole=True))
    sink.flush()
    assert "50.0 5" in sink.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


def test_trials_done_before_are_counted_and_teach_the_pace(clock: Clock) -> None:
    done = {PRETRAIN: {"val_accuracy": 90.0, "epochs": trials()[0].job.settings.max_epochs, "minutes": 1.0}}
    made = board(clock, done=done)
    grid = made.progress()
    assert headline(grid, clock.now).startswith("1 done, 4 waiting of 5 trials")
    assert grid.eta is not None and grid.eta < board(Clock(), done={}).progress().eta  # type: ignore[operator]


def test_a_grid_that_goes_on_keeps_the_attempts_of_its_earlier_drivers(clock: Clock, tmp_path: Path) -> None:
    made = board(clock, folder=str(tmp_path))
    made.started(PRETRAIN)
    clock.now += 50
    made.reported(PRETRAIN, epoch(4, 0.4, 40.0))
    made._write()  # and dies without a close()
    clock.now += 10_000
    earlier = read_progress(str(tmp_path))
    again = board(clock, folder=str(tmp_path), earlier=earlier, trials=[t for t in trials() if t.key != CELL])
    again.started(PRETRAIN)
    again.close()
    grid = read_progress(str(tmp_path))
    assert grid is not None and len(grid.sessions) == 2
    assert grid.sessions[0].ended == pytest.approx(clock.now - 10_000)
    (trial,) = [trial for trial in grid.trials if trial.key == PRETRAIN]
    assert [attempt.ended is None for attempt in trial.attempts] == [False, True]
    assert trial.attempts[0].ended == trial.attempts[0].trained_to and trial.progress == 0.4


def test_a_store_that_fails_is_told_once_and_stops_nothing(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = io.StringIO()
    made = board(clock, Console(file=out, width=200), folder=str(tmp_path / "file"))
    for _ in range(3):
        made._write()
    made.started(PRETRAIN)
    made.close()
    assert out.getvalue().count("jobs/status.py cannot see this grid") == 1


def test_the_file_is_there_from_the_start(tmp_path: Path) -> None:
    made = Board("g", trials(), {}, Console(file=io.StringIO()), need=_need, folder=str(tmp_path))
    for _ in range(100):
        if (tmp_path / PROGRESS_FILE).exists():
            break
        time.sleep(0.05)
    assert read_progress(str(tmp_path)) is not None
    made.close()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
