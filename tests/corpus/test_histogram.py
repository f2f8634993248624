"""Histograms: every value counted once, edges round, bars to scale."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.histogram import bars, histogram


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=200))
def test_every_value_is_counted_where_it_belongs(values: list[int]) -> None:
    found = histogram(np.array(values))
    edges, counts = found["edges"], found["counts"]
    assert sum(counts) == len(values) and len(edges) == len(counts) + 1 <= 14
    assert edges == sorted(edges) and edges[0] <= min(values) and edges[-1] == max(values)
    for low, high, count in zip(edges[:-2], edges[1:-1], counts[:-1], strict=True):
        assert count == sum(low <= value < high for value in values)
    steps = set(np.diff(edges[:-1]).tolist())
    assert len(steps) <= 1 and all(str(step).rstrip("0") in ("1", "2", "5") for step in steps)


def test_a_long_tail_spoils_nothing() -> None:
    found = histogram(np.array([*range(1000), 100_000]))
    assert found == {"edges": [*range(0, 1000, 100), 100_000], "counts": [100] * 9 + [101]}


def test_bars() -> None:
    shown = bars({"edges": [0, 10, 20, 25], "counts": [1000, 500, 1]}, width=4)
    assert shown == [("0-9", "████", 1000), ("10-19", "██", 500), ("20-25", "▏", 1)]
    assert bars(histogram(np.array([256, 256])))[0][0] == "256"
    assert bars(histogram(np.array([], np.int64))) == []
