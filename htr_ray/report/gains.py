"""How well the pretext tasks were learnt, and what that gained in reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from htr_ray.report.cells import NONE, Cells, Place
from htr_ray.report.comparisons import Comparison, with_none
from htr_ray.report.means import gpu_hours, mean
from htr_ray.report.results import TrialResult
from htr_ray.report.statistics import Interval


@dataclass(frozen=True)
class Pretraining:
    """A pretext task on a corpus, mean over seeds."""

    corpus: str
    pretext: str
    trials: list[TrialResult]
    accuracy: float | None
    """On held-out lines, percent."""
    chance: float | None
    minutes: float | None
    gpu_hours: float | None


@dataclass(frozen=True)
class Gain:
    """Pretext accuracy against what it gained downstream."""

    place: Place
    pretext: str
    accuracy: float
    chance: float | None
    gain: float
    """CER from scratch minus CER with pre-training, percentage points."""
    interval: Interval | None


def pretrainings_of(
    trials: Sequence[TrialResult], corpora: Sequence[str], pretexts: Sequence[str]
) -> list[Pretraining]:
    """Every task on every corpus where it was asked for."""
    found = []
    for corpus in corpora:
        for pretext in pretexts:
            mine = [t for t in trials if t.stage == "pretrain" and (t.corpus, t.pretext) == (corpus, pretext)]
            if mine:
                done = [trial for trial in mine if trial.state == "done"]
                found.append(
                    Pretraining(
                        corpus,
                        pretext,
                        mine,
                        accuracy=mean(trial.result.get("val_accuracy") for trial in done),
                        chance=mean(trial.result.get("chance") for trial in done),
                        minutes=mean(trial.result.get("minutes") for trial in done),
                        gpu_hours=gpu_hours(done),
                    )
                )
    return found


def gains_of(cells: Cells, pretrainings: Sequence[Pretraining], comparisons: Sequence[Comparison]) -> list[Gain]:
    """For every pre-trained cell whose task's accuracy and row's cell from scratch are known."""
    compared = with_none(comparisons)
    accuracy = {(one.corpus, one.pretext): one for one in pretrainings}
    gains = []
    for (place, pretext), cell in cells.items():
        encoder = accuracy.get((place.corpus, pretext))
        scratch = cells.get((place, NONE))
        if encoder is None or encoder.accuracy is None or scratch is None:
            continue
        if cell.cer is None or scratch.cer is None:
            continue
        # Where seeds differ, the comparison is over those that both have; the figures of the table otherwise.
        comparison = compared.get((place, pretext))
        gain = scratch.cer - cell.cer if comparison is None else -comparison.difference
        ends = None if comparison is None else Interval(-comparison.interval.high, -comparison.interval.low)
        gains.append(Gain(place, pretext, encoder.accuracy, encoder.chance, gain, ends))
    return gains
