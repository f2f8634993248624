"""What a grid left behind, as plain data: all that the report is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from htr_ray.report.attempts import Timeline

State = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class TrialResult:
    """One trial: which, how it ended, its figures."""

    key: str
    """Its path below the grid's folder, the same in every run."""
    stage: Literal["pretrain", "finetune"]
    corpus: str
    pretext: str
    """``none``: from scratch."""
    seed: int
    decoder: str | None
    """None, as the two below: a pre-training."""
    label_fraction: float | None
    protocol: str | None
    state: State
    failure: str | None
    """Why, of a failed one, in one sentence."""
    result: dict[str, Any]
    """``result.json``; empty unless done."""
    readings: list[dict[str, Any]] | None
    """``readings.json`` of a finished fine-tuning; None where it is not there or damaged."""
    gpus: float | None = None
    """GPUs that it held, over all its workers; None: not recorded."""


@dataclass(frozen=True)
class ChoiceResult:
    """One choice of hyperparameters within a search."""

    number: int
    values: dict[str, Any]
    """Setting -> value; empty: the recipe as it was set."""
    state: str
    """``training``, ``done``, ``halved`` or ``failed``."""
    figure: float | None
    progress: float
    """Share of its schedule that it trained, 0 to 1."""
    minutes: float
    failure: str | None = None

    @property
    def spared(self) -> float:
        """Minutes that the rest of its schedule would have taken at its own pace, if it was halved; else 0."""
        return minutes_spared(self.state, self.progress, self.minutes)


def minutes_spared(state: str, progress: float, minutes: float) -> float:
    """Minutes that ending a choice after ``progress`` (0 to 1) of its schedule saved; 0 unless it was halved."""
    return minutes * (1 / progress - 1) if state == "halved" and progress > 0 else 0.0


@dataclass(frozen=True)
class SearchResult:
    """A search among choices of hyperparameters."""

    key: str
    figure: str
    """What decided: ``val_cer`` or ``val_accuracy``, in percent."""
    winner: int | None
    """Number of the choice that won; None while it is open, or where all failed."""
    choices: list[ChoiceResult]


@dataclass(frozen=True)
class GridResults:
    """A grid: its settings, its trials, the corpora's facts."""

    name: str
    settings: dict[str, Any]
    """``grid.json``."""
    trials: list[TrialResult]
    """In the order of the grid, pre-trainings first; behind them finished ones of earlier runs with other settings."""
    corpora: dict[str, dict[str, Any]]
    """By name: ``corpus.json`` and ``uri``; only ``uri`` where the corpus is not there any more."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, for people."""
    searches: list[SearchResult] = field(default_factory=list)
    """Of hyperparameters; ``trials`` has the winners only."""
    timeline: Timeline | None = None
    """When its trials ran; None where that was not recorded."""

    @property
    def states(self) -> dict[State, int]:
        """How many trials are done, failed and missing, in this order."""
        return {state: sum(trial.state == state for trial in self.trials) for state in get_args(State)}
