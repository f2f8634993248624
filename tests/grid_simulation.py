"""A grid that takes no time: random trials run through a real :class:`Board` by a clock that the simulation moves.

What a trial takes is drawn around the plan: a machine that is faster or slower than planned, decoders, corpora and
pretexts with factors of their own, patience that ends many trials early, choices that are halved, start-up and test.
Trials are started as the searcher does it: in order, cells behind their encoder, while there is room.
"""

from __future__ import annotations

import functools
import heapq
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from htr_ray.config import GridSettings, SearchSettings, load
from htr_ray.sweep.board import Board
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.plan import Planned, raced_share
from htr_ray.sweep.progress import GridProgress
from htr_ray.sweep.resources import need

EPOCHS = {"pretrain": 30, "finetune": 50}
LINES = {"a": 4700, "b": 2400, "c": 9000}
CPUS_PER_TRIAL = 2


@dataclass
class Clock:
    now: float = 1.7e9

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Report:
    """A sign of life; ``seconds`` of training, without start-up."""

    seconds: float
    epoch: int
    progress: float
    epoch_end: bool = True


@dataclass(frozen=True)
class Truth:
    """What a trial takes in fact, in seconds."""

    startup: float
    reports: Sequence[Report]
    closing: float
    halved: bool = False


@dataclass(frozen=True)
class Kind:
    """Of grid: how many places, whether trials end early, how well the plan knows the machine."""

    name: str
    settings: Sequence[str]
    places: int
    patience: bool = False
    guessed: bool = False
    choices: int = 1
    max_minutes: float | None = None
    spread: float = 0.15
    """Of durations among trials of a kind: sigma of their logarithm."""


def trials_of(kind: Kind) -> list[Trial]:
    """As ``expand`` makes them; with ``choices``, each cell is a group of so many trials."""
    settings: GridSettings = load(
        GridSettings,
        overrides=[
            f"pretrain.max_epochs={EPOCHS['pretrain']}",
            f"finetune.max_epochs={EPOCHS['finetune']}",
            *kind.settings,
            *([f"{stage}.max_minutes={kind.max_minutes}" for stage in EPOCHS] if kind.max_minutes else []),
        ],
        environment={},
    )
    trials = expand(settings)
    if kind.choices == 1:
        return trials
    # As the search gives them: the same cell with other hyperparameters.
    return [
        grouped(trial, number) if trial.stage == "finetune" else trial
        for trial in trials
        for number in (range(kind.choices) if trial.stage == "finetune" else (0,))
    ]


def grouped(trial: Trial, choice: int) -> Trial:
    """The same cell with other hyperparameters."""
    return replace(trial, key=f"{trial.key}/choice{choice}", group=trial.key, choice=choice)


def lines_of(trial: Trial) -> float:
    return max(LINES[trial.corpus] * (trial.job.label_fraction or 1.0), 200.0)


def plan_of(trial: Trial, kind: Kind) -> Planned:
    share = raced_share(kind.choices, SearchSettings()) if trial.group else 1.0
    if kind.max_minutes is not None:
        return Planned(60 * kind.max_minutes, False, share)
    speed = 1000.0 if kind.guessed else 100.0
    return Planned(EPOCHS[trial.stage] * lines_of(trial) / speed, kind.guessed, share)


def truths(trials: Sequence[Trial], kind: Kind, rng: random.Random) -> dict[str, Truth]:
    """Draw what each trial takes."""
    machine = rng.lognormvariate(0, 0.4)  # the plan is timed in a few steps, on a machine that does other things then
    factors: dict[str, float] = {}

    def factor(name: object, sigma: float) -> float:
        return factors.setdefault(str(name), rng.lognormvariate(0, sigma))

    found = {}
    for trial in trials:
        most = EPOCHS[trial.stage]
        own = factor(trial.job.decoder, 0.15) * factor(trial.corpus, 0.1) * factor(trial.stage, 0.15)
        own *= factor(trial.pretext, 0.1) if trial.stage == "pretrain" else 1.0
        own *= rng.lognormvariate(0, kind.spread)
        if kind.max_minutes is not None:
            epochs = max(2, round(rng.uniform(5, 40)))
            epoch = 60 * kind.max_minutes / epochs
        else:
            epochs, epoch = most, machine * own * plan_of(trial, replace(kind, guessed=False)).seconds / most
        if kind.patience:
            epochs = min(epochs, max(3, round(epochs * rng.betavariate(4, 3) * 1.25)))
        halved = (trial.choice or 0) % kind.choices != 0
        if halved:
            epochs = max(1, round(epochs * rng.choice([0.11, 0.11, 0.33])))
        reports = []
        for number in range(1, epochs + 1):
            progress = number / most
            if kind.max_minutes is not None:
                progress = max(progress, number * epoch / (60 * kind.max_minutes))
            reports.append(Report(number * epoch, number - 1, min(1.0, progress)))
        # A test reads lines as an epoch does, a few hundred of them.
        closing = rng.uniform(1, 4) + epoch * 300 / lines_of(trial)
        found[trial.key] = Truth(rng.uniform(2, 6), reports, closing, halved)
    return found


Look = Callable[[float, Board], None]


def simulate(kind: Kind, seed: int, look: Look) -> float:
    """Run a drawn grid, see :func:`run`."""
    trials = trials_of(kind)
    truth = truths(trials, kind, random.Random(f"{kind.name} {seed}"))
    return run(trials, truth, {trial.key: plan_of(trial, kind) for trial in trials}, kind.places, look)


def run(
    trials: Sequence[Trial], truth: Mapping[str, Truth], plans: Mapping[str, Planned], places: int, look: Look
) -> float:
    """Run a grid; ``look(seconds gone, board)`` is called whenever something happened. Returns the seconds it took."""
    clock = Clock()
    began = clock.now
    board = Board(
        "simulated",
        trials,
        {},
        Console(file=io.StringIO(), width=100),
        need=functools.partial(need, cluster_gpus=0.0),
        max_concurrent=places,
        planned=plans,
        clock=clock,
    )
    board._printed = float("inf")  # lines with an estimate each would take most of the time
    waiting, done, running = list(trials), set[str](), 0
    counter = iter(range(10**9))
    events: list[tuple[float, int, Iterator[float]]] = []

    def live(trial: Trial) -> Iterator[float]:
        """One trial: yields when it wants to be called next."""
        nonlocal running
        own = truth[trial.key]
        start = clock.now + own.startup
        for report in own.reports:
            yield start + report.seconds
            board.reported(trial.key, vars(report))
        if not own.halved:
            yield clock.now + own.closing
            board.reported(trial.key, {"finished": True, "progress": 1.0, "result": {}})
        board.ended(trial.key, None, halved=own.halved)
        done.add(trial.key)
        running -= 1

    while waiting or events:
        if running < places:
            ready = [trial for trial in waiting if trial.waits_for is None or trial.waits_for in done]
            for trial in ready[: places - running]:
                waiting.remove(trial)
                running += 1
                board.started(trial.key)
                process = live(trial)
                heapq.heappush(events, (next(process), next(counter), process))
        clock.now, _, process = heapq.heappop(events)
        following = next(process, None)
        if following is not None:
            heapq.heappush(events, (following, next(counter), process))
        look(clock.now - began, board)
    board.close()
    return clock.now - began


WIDE = ["corpora=[/x/a,/x/b]", "label_fractions=[0.05,0.1,1.0]", "seeds=[0,1]"]
KINDS = [
    Kind("demo on two places", ["corpora=[/x/a]"], 2),
    Kind("two corpora, three fractions, two seeds on 8 places", WIDE, 8),
    Kind("the same, ended by patience", WIDE, 8, patience=True),
    Kind("the same on GPUs, speed not known before", WIDE, 16, patience=True, guessed=True),
    Kind("bounded by the clock", WIDE, 8, max_minutes=20),
    Kind("eight choices in each cell, halved", ["corpora=[/x/a]", "seeds=[0,1]"], 8, choices=8),
    Kind(
        "paper-sized: three corpora and seeds on 32 places",
        ["corpora=[/x/a,/x/b,/x/c]", "label_fractions=[0.05,0.1,1.0]", "seeds=[0,1,2]"],
        32,
        patience=True,
        guessed=True,
    ),
]


def errors(kind: Kind, seed: int) -> tuple[float, list[float]]:
    """Relative error of the ETA of a drawn grid, see :func:`told`."""
    return told(functools.partial(simulate, kind, seed))


def told(again: Callable[[Look], float], at: float = 0.1) -> tuple[float, list[float]]:
    """Relative error of the ETA after the share ``at`` of the time; and ETAs at other times.

    ``again`` runs the same grid each time. Positive: it took less than was said. The others are shares of the time
    that the grid took.
    """
    took = again(lambda gone, board: None)
    moments = [share * took for share in (at, 0.02, 0.05, 0.25, 0.5, 0.75, 0.95)]
    seen: dict[float, float] = {}

    def look(gone: float, board: Board) -> None:
        for moment in moments:
            if gone >= moment and moment not in seen:
                eta = board.progress().eta
                left = float("nan") if eta is None else eta
                seen[moment] = left / (took - gone) if moment == moments[0] else left / took

    again(look)
    return seen[moments[0]] - 1, [left for moment, left in seen.items() if moment != moments[0]]


@dataclass(frozen=True)
class Recorded:
    """Trials of a real grid that are done, and their ``result.json``."""

    trials: Sequence[Trial]
    results: Mapping[str, Mapping[str, Any]]


def recorded_errors(grid: Recorded, places: int) -> float:
    """Relative error of the ETA after a tenth of the time when a recorded grid runs again, on so many places."""
    plans, truth = {}, {}
    for trial in grid.trials:
        result, stage = grid.results[trial.key], trial.job.settings
        lines = max(result["lines"], stage.min_steps_per_epoch * stage.batch_size)
        plans[trial.key] = Planned(stage.max_epochs * lines / 1000.0, guessed=True)
        reports, before = [], 0.0
        for entry in result["history"]:
            # Of an epoch only its end is recorded; within it, signs of life came every ten seconds.
            length = 60 * entry["minutes"] - before
            for part in range(1, 11):
                progress = (entry["epoch"] + part / 10) / stage.max_epochs
                reports.append(Report(before + length * part / 10, entry["epoch"], progress, part == 10))
            before += length
        truth[trial.key] = Truth(4.0, reports, 5.0)
    return told(functools.partial(run, grid.trials, truth, plans, places))[0]


class _Enough(Exception):
    """The simulation has come far enough."""


def progress_after(kind: Kind, share: float, seed: int = 0) -> GridProgress:
    """What the board says after a share of a grid's time; after 1.0, when it was closed."""
    took = simulate(kind, seed, lambda gone, board: None)
    seen: list[GridProgress] = []
    boards: list[Board] = []

    def look(gone: float, board: Board) -> None:
        boards[:] = [board]
        if share < 1.0 and gone >= share * took:
            seen.append(board.progress())
            raise _Enough

    with suppress(_Enough):
        simulate(kind, seed, look)
    return seen[0] if seen else boards[0].progress()
