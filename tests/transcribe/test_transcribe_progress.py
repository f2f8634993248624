"""What a person sees while lines are read."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from htr_ray.transcribe import progress
from htr_ray.transcribe.part import Tally
from htr_ray.transcribe.progress import Meter


def _tally(read: int, unreadable: int = 0) -> Tally:
    return Tally(lines=read + unreadable, read=read, reasons={"not an image": unreadable} if unreadable else {})


def test_the_share_goes_by_tasks_and_within_them_by_lines() -> None:
    meter = Meter(Console(file=io.StringIO()), tasks=4, expected=400)
    assert meter.share == 0 and "ETA unknown yet" in meter.headline()
    meter.add(_tally(50), ends=False)
    assert meter.share == pytest.approx(0.125)
    meter.add(_tally(250), ends=True)  # more lines than was thought: no task is done before its end
    assert meter.share == pytest.approx(0.5)
    for _ in range(3):
        meter.add(_tally(1, 2), ends=True)
    assert meter.share == 1
    assert meter.headline().startswith("303 lines read, 6 unreadable, ") and "ETA 0:00:00" in meter.headline()


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    with Meter(Console(file=said, width=40), tasks=2, expected=20) as meter:
        meter.add(_tally(10), ends=True)
        assert said.getvalue() == "", "not more often than every few seconds"
        monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
        meter.add(_tally(5), ends=False)
    assert said.getvalue().startswith("75 %: 15 lines read, ") and said.getvalue().count("\n") == 1


def test_a_bar_on_a_terminal() -> None:
    said = io.StringIO()
    with Meter(Console(file=said, force_terminal=True, width=120), tasks=2, expected=20) as meter:
        meter.add(_tally(10), ends=True)
    assert "10 lines read" in said.getvalue() and "50%" in said.getvalue()
