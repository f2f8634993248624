"""Histograms with round edges, as numbers and as bars of text."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

_BINS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Histogram(TypedDict):
    """``counts[i]`` values are at least ``edges[i]`` and below ``edges[i + 1]``; the last bin has its edge too."""

    edges: list[int]
    counts: list[int]


def histogram(values: np.ndarray) -> Histogram:
    """Count ``values`` (int [n]) in about ten bins of equal, round width; a long tail goes into the last bin."""
    if not len(values):
        return {"edges": [], "counts": []}
    low, high, largest = int(values.min()), int(np.ceil(np.percentile(values, 99))), int(values.max())
    step = _round_up((high - low + 1) / _BINS)
    first = low // step * step
    edges = list(range(first, high + step, step))
    edges = [*edges[: max(1, len(edges) - 1)], largest]
    return {"edges": edges, "counts": np.histogram(values, bins=edges)[0].tolist()}


def bars(shown: Histogram, width: int = 24) -> list[tuple[str, str, int]]:
    """``(range, bar, count)`` for each bin; the longest bar has ``width`` characters."""
    most = max(shown["counts"], default=0)
    rows = []
    last = len(shown["counts"]) - 1
    for number, count in enumerate(shown["counts"]):
        low, high = shown["edges"][number], shown["edges"][number + 1] - (number != last)
        whole, part = divmod(round(8 * width * count / max(most, 1)), 8)
        bar = ("█" * whole + _EIGHTHS[part]).rstrip()
        # A few lines among thousands still show.
        rows.append((f"{low}-{high}" if low < high else str(low), bar or ("▏" if count else ""), count))
    return rows


def _round_up(value: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= value:
                return factor * step
        step *= 10
