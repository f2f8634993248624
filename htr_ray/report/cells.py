"""The cells of a grid, and their figures over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from htr_ray.report import statistics
from htr_ray.report.draws import Draws
from htr_ray.report.means import mean
from htr_ray.report.results import TrialResult
from htr_ray.report.statistics import Array, Interval

NONE = "none"


class Place(NamedTuple):
    """A cell without its pretext: what a row of the tables is."""

    corpus: str
    protocol: str
    decoder: str
    fraction: float


@dataclass
class Cell:
    """One cell: the mean over its seeds."""

    place: Place
    pretext: str
    trials: list[TrialResult]
    labels: float | None = None
    """Labelled training lines, mean over seeds (they draw different lines, but as many)."""
    cer: float | None = None
    wer: float | None = None
    val_cer: float | None = None
    cer_interval: Interval | None = None
    """Over test lines, and over seeds where there are several."""
    wer_interval: Interval | None = None
    cer_by_writer: Interval | None = None
    """As ``cer_interval``, drawing whole writers."""
    best: bool = False
    """Lowest mean CER of its row."""
    cer_samples: Array | None = field(default=None, repr=False)
    """Bootstrap means [resamples], paired between the cells of a corpus that have the same seeds."""

    @property
    def done(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "done"]

    @property
    def failed(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "failed"]

    @property
    def missing(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "missing"]


Cells = Mapping[tuple[Place, str], Cell]
"""By place and pretext."""


def cells_of(
    trials: Sequence[TrialResult], corpora: Sequence[str], pretexts: Sequence[str]
) -> dict[tuple[Place, str], Cell]:
    """Cells with their means, in the order of the tables: corpus, protocol, decoder as they come, labels ascending,
    pretexts. Intervals: :func:`add_intervals`."""
    cells: dict[tuple[Place, str], Cell] = {}
    for trial in trials:
        if trial.stage == "finetune":
            assert trial.protocol is not None and trial.decoder is not None and trial.label_fraction is not None
            place = Place(trial.corpus, trial.protocol, trial.decoder, trial.label_fraction)
            cells.setdefault((place, trial.pretext), Cell(place, trial.pretext, [])).trials.append(trial)
    order = [list(dict.fromkeys(place[axis] for place, _ in cells)) for axis in (1, 2)]

    def rank(key: tuple[Place, str]) -> tuple[int, int, int, float, int]:
        place, pretext = key
        return (
            corpora.index(place.corpus),
            order[0].index(place.protocol),
            order[1].index(place.decoder),
            place.fraction,
            pretexts.index(pretext),
        )

    for cell in cells.values():
        cell.trials.sort(key=lambda trial: trial.seed)
        cell.labels = mean(trial.result.get("lines") for trial in cell.done)
        cell.cer = mean(trial.result.get("test_cer") for trial in cell.done)
        cell.wer = mean(trial.result.get("test_wer") for trial in cell.done)
        cell.val_cer = mean(trial.result.get("val_cer") for trial in cell.done)
    ordered = {key: cells[key] for key in sorted(cells, key=rank)}
    _mark_lowest(ordered)
    return ordered


def _mark_lowest(cells: Cells) -> None:
    for place in dict.fromkeys(place for place, _ in cells):
        row = [cell for (where, _), cell in cells.items() if where == place and cell.cer is not None]
        if len(row) > 1:
            lowest = min(round(cell.cer or 0.0, 6) for cell in row)
            for cell in row:
                cell.best = round(cell.cer or 0.0, 6) == lowest


def add_intervals(cells: Iterable[Cell], by_line: Draws, by_writer: Draws | None) -> None:
    """Fill in the intervals of a corpus' cells, where all their finished trials read these lines."""
    for cell in cells:
        keys = [trial.key for trial in cell.done]
        if keys and all(key in by_line.keys for key in keys):
            cell.cer_samples = statistics.mean_over_seeds(by_line.rates(keys))
            cell.cer_interval = statistics.interval(cell.cer_samples)
            cell.wer_interval = statistics.interval(statistics.mean_over_seeds(by_line.rates(keys, words=True)))
            if by_writer is not None:
                cell.cer_by_writer = statistics.interval(statistics.mean_over_seeds(by_writer.rates(keys)))
