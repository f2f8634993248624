"""Labels saved: how many from scratch read as well as fewer with pre-training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from htr_ray.report import statistics
from htr_ray.report.cells import NONE, Cells, Place
from htr_ray.report.comparisons import Comparison, Verdict, with_none
from htr_ray.report.statistics import Array, Labels


@dataclass(frozen=True)
class Saving:
    """How many labels from scratch read as well as ``labels`` with pre-training."""

    place: Place
    pretext: str
    labels: float
    equal: Labels
    low: Labels
    high: Labels
    verdict: Verdict | None
    """Of the comparison with as many labels from scratch; None where there was none."""


def savings_of(cells: Cells, comparisons: Sequence[Comparison]) -> list[Saving]:
    """For every pre-trained cell whose row's protocol and decoder have a curve from scratch."""
    compared = with_none(comparisons)
    found = []
    for (place, pretext), cell in cells.items():
        if pretext == NONE or cell.cer is None or not cell.labels:
            continue
        curve = [
            other
            for (where, name), other in cells.items()
            if name == NONE and where[:3] == place[:3] and other.cer is not None and other.labels
        ]
        if not curve:
            continue
        labels = [other.labels or 0.0 for other in curve]
        equal = statistics.equal_labels(labels, [other.cer or 0.0 for other in curve], cell.cer)
        low = high = equal
        errors = [other.cer_samples for other in curve if other.cer_samples is not None]
        if cell.cer_samples is not None and len(errors) == len(curve):
            low, high = _between(labels, errors, cell.cer_samples)
        comparison = compared.get((place, pretext))
        verdict = comparison.verdict if comparison else None
        found.append(Saving(place, pretext, cell.labels, equal, low, high, verdict))
    return found


def _between(labels: Sequence[float], errors: Sequence[Array], targets: Array) -> tuple[Labels, Labels]:
    """Ends of the 95 % interval of the equal number of labels, open where the curve ends."""
    drawn = [
        statistics.equal_labels(labels, row.tolist(), float(target))
        for row, target in zip(np.stack(errors, axis=1), targets, strict=True)
    ]
    ends = {"fewer": 0.0, "more": math.inf}
    ranks = statistics.interval([ends.get(one.kind, one.labels) for one in drawn])

    def end(value: float) -> Labels:
        if value == 0.0:
            return Labels("fewer", min(labels))
        return Labels("more", max(labels)) if math.isinf(value) else Labels("measured", value)

    return end(ranks.low), end(ranks.high)
