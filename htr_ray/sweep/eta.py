"""When a grid will be done: what its trials take, learned while it runs, and the places that they share.

A trial takes ``start-up + pace x share of the schedule that it trains + closing``. Each is learned from the trials so
far: the pace as a ratio to the plan, by stage, task or decoder, corpus and label fraction, each level leaning on the
one above while it has seen little; the share from where patience and halving ended others. What is left is then put on
the cluster as the searcher does it: in order, cells behind their encoder, as many at a time as there is room for.
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from htr_ray.sweep.progress import TrialProgress, Use, open_counts

STARTUP_SECONDS, CLOSING_SECONDS = 6.0, 2.0
"""Before any trial was seen to start and to end."""
SURE = 0.1
"""From this share of the schedule on, a trial's own pace counts in full."""
FIRST_SIGN = 0.01
"""Before that share, a pace is mostly start-up."""
LEAN = 0.5
"""Trials' worth of trust in the level above."""
_EARLY = 0.4
"""Where raced choices that fall behind end, as a share of the mean."""
_TINY = 1e-6


def time_left(trials: Sequence[TrialProgress], now: float, use: Use | None, limit: int | None) -> float | None:
    """Seconds until the last trial is over; None while there is nothing to tell the pace from.

    ``limit`` is the grid's ``max_concurrent``. Without it and without ``use``, one trial at a time is assumed.
    """
    open_ = [trial for trial in trials if not trial.over]
    if not open_:
        return 0.0
    paces, shares, edges = Paces(trials), Shares(trials), Edges(trials)
    running: list[tuple[float, TrialProgress]] = []
    waiting: list[tuple[float, TrialProgress]] = []
    for trial in open_:
        pace = paces.of(trial)
        if pace is None:
            return None
        share = shares.expected(trial)
        whole = edges.startup(trial) + pace * max(0.0, share - trial.progress) + edges.closing(trial)
        attempt = trial.attempt
        if trial.state != "training" or attempt is None:
            waiting.append((whole, trial))
            continue
        # It has been silent since its last report, but has not stood still.
        heard = attempt.trained_to or attempt.trained_from or attempt.began
        running.append((max(0.0, whole - (edges.startup(trial) if attempt.trained_from else 0.0) - now + heard), trial))
    return _schedule(running, waiting, use, limit, edges.gap)


def _schedule(
    running: Iterable[tuple[float, TrialProgress]],
    waiting: Sequence[tuple[float, TrialProgress]],
    use: Use | None,
    limit: int | None,
    gap: float,
) -> float:
    """When the last ends, started as :class:`htr_ray.sweep.searcher.GridSearcher` starts them."""
    left = open_counts(trial for _, trial in [*running, *waiting])
    behind: dict[str, list[int]] = {}
    ready: list[int] = []
    missing: dict[int, int] = {}
    for index, (_, trial) in enumerate(waiting):
        blockers = [key for key in trial.behind if left[key]]
        missing[index] = len(blockers)
        for key in blockers:
            behind.setdefault(key, []).append(index)
        if not blockers:
            ready.append(index)
    ends = [(seconds, number, trial) for number, (seconds, trial) in enumerate(running)]
    heapq.heapify(ends)
    cpus, gpus = sum(t.cpus for _, _, t in ends), sum(t.gpus for _, _, t in ends)
    now, number = 0.0, len(ends)
    while ends or ready:
        while ready:
            seconds, trial = waiting[ready[0]]
            if limit is not None:
                fits = len(ends) < limit
            elif use is None:
                fits = not ends
            else:
                fits = cpus + trial.cpus <= use.cpus + _TINY and gpus + trial.gpus <= use.gpus + _TINY
            if ends and not fits:
                break
            heapq.heappop(ready)
            number += 1
            heapq.heappush(ends, (now + gap + seconds, number, trial))
            cpus, gpus = cpus + trial.cpus, gpus + trial.gpus
        now, _, trial = heapq.heappop(ends)
        cpus, gpus = cpus - trial.cpus, gpus - trial.gpus
        for key in filter(None, (trial.key, trial.group)):
            left[key] -= 1
            for index in behind.pop(key, ()) if not left[key] else ():
                missing[index] -= 1
                if not missing[index]:
                    heapq.heappush(ready, index)
    return now


class Paces:
    """Training seconds of a whole schedule, learned as a ratio to the plan."""

    def __init__(self, trials: Iterable[TrialProgress]) -> None:
        self._sums: dict[tuple[object, ...], list[float]] = {}
        self._known: dict[tuple[object, ...], float | None] = {}
        for trial in trials:
            if trial.progress >= FIRST_SIGN and trial.seconds > 0 and trial.planned > 0:
                weight = min(1.0, trial.progress / SURE)
                ratio = trial.seconds / trial.progress / trial.planned
                for level in _levels(trial):
                    sums = self._sums.setdefault(level, [0.0, 0.0])
                    sums[0] += weight
                    sums[1] += weight * ratio

    def of(self, trial: TrialProgress) -> float | None:
        """Seconds; None if the plan is a guess and nothing was measured yet."""
        levels = _levels(trial)
        known = self._known.get(levels[-1], -1.0)
        if known == -1.0:
            known = None if trial.guessed else 1.0
            for level in levels:
                weight, total = self._sums.get(level, (0.0, 0.0))
                if weight > 0:
                    # A pure guess of the speed is no opinion, whatever was measured replaces it.
                    known = total / weight if known is None else (total + LEAN * known) / (weight + LEAN)
            self._known[levels[-1]] = known
        if known is None:
            return None
        if trial.progress < FIRST_SIGN or trial.seconds <= 0:
            return known * trial.planned
        own, trust = trial.seconds / trial.progress, min(1.0, trial.progress / SURE)
        return trust * own + (1 - trust) * known * trial.planned


def _levels(trial: TrialProgress) -> list[tuple[object, ...]]:
    """From the most general to the trial's own kind. A plan by the clock and one by epochs err in different ways."""
    task = trial.pretext if trial.stage == "pretrain" else None
    path = (trial.guessed, trial.stage, task or trial.decoder, trial.corpus, trial.label_fraction)
    return [path[: end + 1] for end in range(len(path))]


class Shares:
    """Which share of its schedule a trial trains before patience or halving ends it.

    A Kaplan-Meier estimate: those that still run have shown that they last at least so long, which keeps the many
    early ends of a young grid from looking like the rule.
    """

    def __init__(self, trials: Iterable[TrialProgress]) -> None:
        seen: dict[tuple[object, ...], list[tuple[float, bool]]] = {}
        priors: dict[tuple[object, ...], float] = {}
        for trial in trials:
            ended = trial.state in ("done", "halved")
            if trial.progress > 0 and (ended or trial.state == "training"):
                for kind in _kinds(trial):
                    seen.setdefault(kind, []).append((min(1.0, trial.progress), ended))
                    priors[kind] = trial.expected
        # A stage of which nothing has ended yet is like the other one.
        self._curves = {
            kind: _survival(found, priors[kind]) for kind, found in seen.items() if any(ended for _, ended in found)
        }

    def expected(self, trial: TrialProgress) -> float:
        """Where the trial will end, given where it is; in [0, 1]."""
        curve = next((self._curves[kind] for kind in _kinds(trial) if kind in self._curves), None)
        if curve is None:
            return max(trial.progress, trial.expected)
        points, alive, area = curve
        at = min(1.0, trial.progress)
        index = int(np.searchsorted(points, at, side="right")) - 1
        # Between two points nobody ended: the curve is flat there.
        left = area[index] - alive[index] * (at - points[index])
        return float(min(1.0, at + left / alive[index])) if alive[index] > 0 else 1.0


def _kinds(trial: TrialProgress) -> list[tuple[object, ...]]:
    """Choices of a search end for other reasons than the rest; the most telling first."""
    raced = trial.group is not None
    return [(raced, trial.stage), (raced,)]


def _survival(seen: list[tuple[float, bool]], expected: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in [0, 1], the share of trials that outlast each, and the area under that curve right of it.

    One trial is added to those ``seen``, of which a part ended early and a part at the end, ``expected`` on average.
    """
    early = _EARLY * expected
    part = (1 - expected) / (1 - early)
    events = [(share, ended, 1.0) for share, ended in seen] + [(early, True, part), (1.0, True, 1 - part)]
    at_risk = float(len(seen) + 1)
    points, alive = [0.0], [1.0]
    for share, ended, weight in sorted(events, key=lambda one: (one[0], not one[1])):
        if ended and weight > 0 and share < 1.0:
            points.append(share)
            alive.append(alive[-1] * (1 - weight / at_risk))
        at_risk -= weight
    widths = np.diff([*points, 1.0])
    area = np.cumsum((widths * alive)[::-1])[::-1]
    return np.array(points), np.array(alive), area


class Edges:
    """Seconds before and after training, and between two trials on the same place."""

    def __init__(self, trials: Sequence[TrialProgress]) -> None:
        self._startup: dict[str, list[float]] = {}
        self._closing: dict[str, list[float]] = {}
        starts, ends = [], []
        for trial in trials:
            for attempt in trial.attempts:
                starts.append(attempt.began)
                if attempt.ended is not None:
                    ends.append(attempt.ended)
                if attempt.trained_from is not None:
                    self._startup.setdefault(trial.stage, []).append(attempt.trained_from - attempt.began)
                if trial.state == "done" and attempt.ended is not None and attempt.trained_to is not None:
                    self._closing.setdefault(trial.stage, []).append(attempt.ended - attempt.trained_to)
        self.gap = _gap(starts, ends)

    def startup(self, trial: TrialProgress) -> float:
        return _mean(self._startup, trial.stage, STARTUP_SECONDS)

    def closing(self, trial: TrialProgress) -> float:
        return _mean(self._closing, trial.stage, CLOSING_SECONDS)


def _mean(found: dict[str, list[float]], stage: str, otherwise: float) -> float:
    seconds = found.get(stage) or [one for some in found.values() for one in some]
    return max(0.0, statistics.fmean(seconds)) if seconds else otherwise


def _gap(starts: list[float], ends: list[float]) -> float:
    """Median seconds that a place stays empty between two trials: each start takes the place left longest ago."""
    free: deque[float] = deque()
    gaps = []
    for moment, is_start in sorted([(end, False) for end in ends] + [(start, True) for start in starts]):
        if not is_start:
            free.append(moment)
        elif free:
            gaps.append(moment - free.popleft())
    return statistics.median(gaps) if gaps else 0.0
