"""When the trials of a grid ran, and how much of the cluster's time was training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal


@dataclass(frozen=True)
class Bar:
    """One attempt of a trial. Times are seconds, all from the same clock."""

    label: str
    stage: Literal["pretrain", "finetune"]
    began: float
    ended: float
    trained_from: float | None
    """None: it never came to its first step."""
    trained_to: float | None
    share: float
    """Of the places of the cluster: 0.25 where four such trials fit."""
    node: str | None
    outcome: Literal["done", "halved", "failed", "open"]
    """halved: stopped early among the choices of its cell; failed: this attempt was; open: interrupted, or it runs."""

    @property
    def trained(self) -> float:
        if self.trained_from is None or self.trained_to is None:
            return 0.0
        return max(0.0, min(self.trained_to, self.ended) - self.trained_from)

    def timed(self, change: Callable[[float], float]) -> Bar:
        """The same at other times."""
        return replace(
            self,
            began=change(self.began),
            ended=change(self.ended),
            trained_from=None if self.trained_from is None else change(self.trained_from),
            trained_to=None if self.trained_to is None else change(self.trained_to),
        )


@dataclass(frozen=True)
class Timeline:
    """All attempts of a grid, and when its drivers ran: (from, to), in order."""

    bars: Sequence[Bar]
    sessions: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Use:
    """Shares of the time of all places, 0 to 1."""

    seconds: float
    busy: float
    """A trial was there."""
    until_last: float
    """The same, up to the start of the last trial: behind it there is nothing to fill places with."""
    training: float
    """A trial was there, and trained: not starting up, nor being tested and saved."""


def use_of(timeline: Timeline) -> Use | None:
    """How well the places were used while the grid's drivers ran; None without any attempt that took time."""
    bars, _ = joined(timeline)
    span = max((bar.ended for bar in bars), default=0.0)
    if span <= 0:
        return None
    last = max(bar.began for bar in bars)
    before = sum(bar.share * (min(bar.ended, last) - bar.began) for bar in bars)
    return Use(
        seconds=span,
        busy=sum(bar.share * (bar.ended - bar.began) for bar in bars) / span,
        until_last=before / last if last > 0 else 1.0,
        training=sum(bar.share * bar.trained for bar in bars) / span,
    )


def in_words(timeline: Timeline) -> str:
    """The title of the picture."""
    use = use_of(timeline)
    if use is None:
        return "No trial has run."
    return (
        f"{len(timeline.bars):,} attempts in {_time(use.seconds)}: places in use {100 * use.busy:.1f} % "
        f"({100 * use.until_last:.1f} % until the last start), training {100 * use.training:.1f} %"
    )


def joined(timeline: Timeline) -> tuple[list[Bar], list[float]]:
    """Bars with the time that no trial ran between two drivers cut out, from 0 on; and where it was cut."""
    found: list[Bar] = []
    joints: list[float] = []
    gone = 0.0
    sessions = sorted(timeline.sessions)
    for number, (began, _) in enumerate(sessions):
        after = sessions[number + 1][0] if number + 1 < len(sessions) else float("inf")
        mine = [bar for bar in timeline.bars if (bar.began >= began or not number) and bar.began < after]
        if not mine:
            continue
        start = min(bar.began for bar in mine)
        end = max(min(max(bar.ended, bar.began), after) for bar in mine)
        if found:
            joints.append(gone)
        move = partial(_moved, start=start, end=end, by=gone - start)
        found += [bar.timed(move) for bar in mine]
        gone += end - start
    return sorted(found, key=lambda bar: bar.began), joints


def unit_of(seconds: float) -> tuple[float, str]:
    return (1.0, "seconds") if seconds < 180 else (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")


def _moved(moment: float, start: float, end: float, by: float) -> float:
    return min(max(moment, start), end) + by


def _time(seconds: float) -> str:
    scale, unit = unit_of(seconds)
    return f"{seconds / scale:.1f} {unit}"
