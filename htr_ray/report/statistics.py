"""Intervals, tests and interpolation on counts of errors, without knowing what they count.

Error rates are micro-averaged: edits over reference length, each summed over lines. Resampling is seeded, so that
the same results always give the same report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve

Array = npt.NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
_SEED = 2404_11585
_CELLS = 4_000_000  # numbers drawn at a time; bounds memory to some 100 MB whatever the size of the test set


@dataclass(frozen=True)
class Interval:
    """A two-sided 95 % interval."""

    low: float
    high: float


def bootstrap_sums(
    values: npt.ArrayLike, clusters: Sequence[object] | None = None, resamples: int = RESAMPLES
) -> Array:
    """Draw lines with replacement and add up their columns.

    ``values``: [lines, columns], all columns drawn together, so that they stay paired. With ``clusters`` (one label
    per line, such as its writer) whole clusters are drawn instead: lines of one writer are not independent.
    Returns [resamples, columns].
    """
    table = np.asarray(values, np.float64)
    if clusters is not None:
        names, member = np.unique(np.asarray([str(name) for name in clusters]), return_inverse=True)
        table = np.stack([np.bincount(member, column, len(names)) for column in table.T], axis=1)
    units = len(table)
    rng = np.random.default_rng(_SEED)
    sums = np.empty((resamples, table.shape[1]))
    step = max(1, _CELLS // max(units, 1))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(units, size=(count, units))
        drawn += units * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        sums[start : start + count] = weights.astype(np.float64) @ table
    return sums


def mean_over_seeds(rates: npt.ArrayLike, draw: bool = True) -> Array:
    """Mean of [resamples, seeds] over seeds that are drawn with replacement too (``draw``); -> [resamples].

    The draws depend on the shape alone: two cells with the same seeds stay paired.
    """
    table = np.asarray(rates, np.float64)
    resamples, seeds = table.shape
    if seeds == 1 or not draw:
        return table.mean(axis=1)
    chosen = np.random.default_rng(_SEED + 1).integers(seeds, size=(resamples, seeds))
    return np.take_along_axis(table, chosen, axis=1).mean(axis=1)


def interval(samples: npt.ArrayLike, level: float = LEVEL) -> Interval:
    """The percentile interval of bootstrap samples; samples may be infinite (open ends)."""
    table = np.sort(np.asarray(samples, np.float64))
    tail = (1.0 - level) / 2.0
    # Nearest ranks: between a number and infinity there is nothing to interpolate.
    low = table[int(math.floor(tail * (len(table) - 1)))]
    high = table[int(math.ceil((1.0 - tail) * (len(table) - 1)))]
    return Interval(float(low), float(high))


def sign_flip_test(differences: npt.ArrayLike) -> float:
    """Two-sided p-value of the paired permutation test: is the sum of ``differences`` (whole numbers) zero?

    If two recognizers were alike, each line's difference could as well have the other sign. All 2^n ways are counted,
    not sampled: lines with differences of one size are a binomial, and these are convolved. So it is exact (to
    rounding, about 1e-12), the same every time, and small enough for a correction over many comparisons.
    ``scipy.stats.permutation_test(permutation_type="samples")`` estimates the same by drawing.
    """
    table = np.asarray(differences)
    whole = np.rint(table).astype(np.int64)
    if not np.array_equal(whole, table):
        raise ValueError("differences are whole numbers; multiply means over seeds by the number of seeds")
    observed = abs(int(whole.sum()))
    sizes, counts = np.unique(np.abs(whole[whole != 0]), return_counts=True)
    if not len(sizes) or observed == 0:
        return 1.0
    divisor = int(np.gcd.reduce(sizes))
    observed, sizes = observed // divisor, sizes // divisor
    # Index k of the distribution stands for the sum 2k - total.
    distribution = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = _binomial_half(count)
        distribution = np.clip(fftconvolve(distribution, spread), 0.0, None)
    total = len(distribution) - 1
    tail = float(distribution[(total + observed + 1) // 2 :].sum())
    return min(1.0, 2.0 * tail)


def _binomial_half(n: int) -> Array:
    """Probabilities of 0..n heads."""
    k = np.arange(n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k.tolist()])
    return np.exp(logs - n * math.log(2.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values after Holm (1979): the chance of one false finding among all stays below the level."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Labels:
    """How many labels from scratch give the same error."""

    kind: Literal["measured", "more", "fewer"]
    """``more``: than were measured, even all of them read worse; ``fewer``: even the fewest measured read better."""
    labels: float
    """The number; of ``more`` the most and of ``fewer`` the fewest that were measured."""


def equal_labels(labels: Sequence[float], errors: Sequence[float], target: float) -> Labels:
    """The fewest labels with which the curve ``errors`` over ``labels`` comes down to ``target``.

    Between neighbouring measurements it runs straight, with labels on a logarithmic scale; outside them nothing is
    claimed. At least one measurement; ``labels`` positive.
    """
    points = sorted(zip(labels, errors, strict=True))
    first = points[0]
    if target > first[1]:
        return Labels("fewer", first[0])
    if target == first[1]:
        return Labels("measured", first[0])
    for (n0, e0), (n1, e1) in zip(points, points[1:], strict=False):
        if e1 <= target:
            share = (e0 - target) / (e0 - e1)
            return Labels("measured", math.exp(math.log(n0) + share * (math.log(n1) - math.log(n0))))
    return Labels("more", points[-1][0])
