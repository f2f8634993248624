"""The learning rate, and the clock that drives it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import StageSettings
from htr_ray.train.schedule import Clock, rate

shares = st.floats(0.0, 1.0)


def settings(**values: object) -> StageSettings:
    return StageSettings(**values)  # type: ignore[arg-type]


def test_shape() -> None:
    def at(progress: float) -> float:
        return rate(progress, warmup=0.1, final=0.02)

    assert at(0.0) == pytest.approx(0.01), "never zero"
    assert at(0.05) == pytest.approx(0.5)
    assert at(0.1) == pytest.approx(1.0)
    assert at(0.55) == pytest.approx(0.51)  # half-way down a cosine
    assert at(1.0) == pytest.approx(0.02)
    assert rate(0.0, warmup=0.0, final=0.5) == 1.0
    assert 0 < rate(1.0, warmup=1.0, final=0.5) <= 1.0


@given(shares, shares, st.floats(0.0, 0.9), shares)
def test_rises_then_falls(a: float, b: float, warmup: float, final: float) -> None:
    low, high = sorted((a, b))
    first, second = (rate(p, warmup=warmup, final=final) for p in (low, high))
    assert 0 <= first <= 1 + 1e-12 and 0 <= second <= 1 + 1e-12
    if high < warmup:
        assert first <= second
    if low >= warmup:
        assert first >= second - 1e-12
        assert second >= final - 1e-12


def test_progress_by_epochs() -> None:
    clock = Clock(settings(max_epochs=8))
    assert [clock.progress(epochs) for epochs in (0, 2, 4.5, 8, 9)] == [0, 0.25, 0.5625, 1, 1]


def test_progress_by_wall_clock() -> None:
    """Whichever is further counts; what earlier attempts spent counts too."""
    clock = Clock(settings(max_epochs=10, max_minutes=1.0), spent=30.0)
    assert clock.progress(0) == pytest.approx(0.5, abs=0.05)
    assert clock.progress(9) == pytest.approx(0.9)
    assert Clock(settings(max_epochs=10, max_minutes=1.0), spent=61.0).progress(0) == 1.0


def test_clock_runs() -> None:
    clock = Clock(settings(max_epochs=10, max_minutes=0.01), spent=0.2)
    before = clock.progress(0)
    time.sleep(0.1)
    assert clock.seconds >= 0.3
    assert clock.progress(0) >= before + 0.1 / 0.6 - 1e-6
