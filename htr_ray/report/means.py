"""Means over the trials of a cell or task, of what is known."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Iterable, Sequence

from htr_ray.report.results import TrialResult


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known and finite; None for nothing."""
    known = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return plain.fmean(known) if known else None


def gpu_hours(trials: Sequence[TrialResult]) -> float | None:
    """Mean GPU hours of finished trials; None if one of them does not say."""
    hours = [
        None if trial.gpus is None or trial.result.get("minutes") is None else trial.gpus * trial.result["minutes"] / 60
        for trial in trials
    ]
    return None if None in hours else mean(hours)
