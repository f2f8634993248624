"""How far a grid is, as plain data: what the live board shows, what ``progress.json`` holds, what the timeline draws.

All of it is immutable: the driver replaces what changed, so that other threads (the screen, the file) read without
waiting for Tune's loop, nor it for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from htr_ray import storage
from htr_ray.errors import UserError

PROGRESS_FILE = "progress.json"

State = Literal["waiting", "training", "done", "halved", "failed"]
STATES: tuple[State, ...] = get_args(State)
OVER: frozenset[State] = frozenset({"done", "halved", "failed"})


@dataclass(frozen=True)
class Attempt:
    """One start of a trial in a process. Times are seconds since 1970, by the driver's clock."""

    began: float
    share: float
    """Of the places of the cluster, as it was then: 0.25 where four such trials fit."""
    ended: float | None = None
    trained_from: float | None = None
    """When its first training step was done; before, it started: imports, data, network. None: not heard of yet."""
    trained_to: float | None = None
    """Last sign of training; after it come the test, the model's files."""
    node: str | None = None
    fault: str | None = None
    """Why it ended too soon, if it did."""


@dataclass(frozen=True)
class TrialProgress:
    """How far one trial is."""

    key: str
    stage: Literal["pretrain", "finetune"]
    corpus: str
    pretext: str
    seed: int
    decoder: str | None
    label_fraction: float | None
    protocol: str | None
    waits_for: str | None
    """Key of the pre-training that it starts from, or of the search among such."""
    takes: str | None
    """Key of the search whose winning hyperparameters it takes."""
    group: str | None
    """Key of the search that it is a choice of; None: it is none."""
    choice: int | None
    probe: bool
    """A fine-tuning that only judges an encoder for a search among pre-trainings."""
    cpus: float
    gpus: float
    planned: float
    """Training seconds of the whole schedule, as planned before anything was measured."""
    guessed: bool
    """``planned`` compares trials with each other, but nobody knows how fast the machine is."""
    expected: float
    """Share of the schedule that it is expected to train, before anything was seen; choices that are raced, less."""
    max_epochs: int
    state: State = "waiting"
    attempts: tuple[Attempt, ...] = ()
    epoch: int | None = None
    """The epoch it is in; the first is 0."""
    progress: float = 0.0
    """Share of the schedule that was trained, 0 to 1; patience and halving end trials below 1."""
    seconds: float = 0.0
    """Of training, over all attempts that are still part of its weights."""
    figures: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def behind(self) -> tuple[str, ...]:
        """Keys of the trials and searches that end before it starts."""
        return tuple(dict.fromkeys(key for key in (self.waits_for, self.takes) if key is not None))

    @property
    def attempt(self) -> Attempt | None:
        """The newest."""
        return self.attempts[-1] if self.attempts else None


def open_counts(trials: Iterable[TrialProgress]) -> Counter[str]:
    """Trials that are not over, by their key and by that of their search: a trial that is behind one of these waits."""
    return Counter(key for trial in trials if not trial.over for key in (trial.key, trial.group) if key is not None)


@dataclass(frozen=True)
class Use:
    """What Ray has, and has free. Other programs on the same cluster count too."""

    nodes: int
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float


@dataclass(frozen=True)
class Session:
    """One run of a driver on the grid; a resumed grid has several."""

    began: float
    ended: float | None
    """None: it runs, or it died."""
    host: str
    pid: int


@dataclass(frozen=True)
class GridProgress:
    """A whole grid at one time."""

    name: str
    heartbeat: float
    """When this was true."""
    every: float
    """Seconds between two heartbeats in the file, as planned."""
    sessions: tuple[Session, ...]
    """The last is the newest."""
    trials: tuple[TrialProgress, ...]
    """Of the settings of the newest session, in the order in which they are started."""
    earlier: tuple[TrialProgress, ...]
    """Of earlier sessions only, for the timeline."""
    use: Use | None
    max_concurrent: int | None
    eta: float | None
    """Seconds left at ``heartbeat``; None: not known yet."""

    @property
    def counts(self) -> dict[State, int]:
        """How many trials are in each state."""
        states = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in STATES}

    @property
    def finished(self) -> bool:
        """Whether no trial waits or runs."""
        return all(trial.over for trial in self.trials)

    @property
    def session(self) -> Session:
        return self.sessions[-1]


_ADAPTER = TypeAdapter(GridProgress)


def write_progress(folder: str, progress: GridProgress) -> None:
    """Write ``progress.json`` of the grid in ``folder``: readers see the old one or the new. Raises UserError."""
    storage.write_bytes(storage.join(folder, PROGRESS_FILE), _ADAPTER.dump_json(progress) + b"\n")


def read_progress(folder: str) -> GridProgress | None:
    """``progress.json`` of the grid in ``folder``; None if it has none (yet). Raises UserError when it is damaged."""
    uri = storage.join(folder, PROGRESS_FILE)
    if not storage.exists(uri):
        return None
    try:
        return _ADAPTER.validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise UserError(
            f"{uri}: {where}: {first['msg']}; was it written by another version of htr-ray? Results do not depend on "
            "it: delete it to go on without"
        ) from error
