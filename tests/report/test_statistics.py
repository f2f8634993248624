"""Intervals, tests and interpolation against hand-computed values, scipy, and what must always hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from htr_ray.report.statistics import (
    Interval,
    bootstrap_sums,
    equal_labels,
    holm,
    interval,
    mean_over_seeds,
    sign_flip_test,
)

DIFFERENCES = st.lists(st.integers(-6, 6), min_size=1, max_size=10)
P_VALUES = st.lists(st.floats(0, 1), max_size=12)
CURVES = st.dictionaries(st.integers(1, 10**6), st.floats(0, 200), min_size=1, max_size=6)


def test_sign_flips_by_hand() -> None:
    # 2^3 ways: only all positive and all negative reach 6.
    assert sign_flip_test([1, 2, 3]) == pytest.approx(2 / 8)
    assert sign_flip_test([5]) == pytest.approx(1.0)
    # The eight sums are 4, 2, 2, 0, 0, -2, -2, -4; six reach 2.
    assert sign_flip_test([2, 1, -1]) == pytest.approx(6 / 8)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_test([0, 0, 0]) == 1.0
    assert sign_flip_test([]) == 1.0
    assert sign_flip_test([3, -3]) == 1.0


@given(DIFFERENCES)
def test_sign_flips_are_the_count_of_all_ways(differences: list[int]) -> None:
    observed = abs(sum(differences))
    ways = itertools.product((1, -1), repeat=len(differences))
    sums = [sum(sign * d for sign, d in zip(way, differences, strict=True)) for way in ways]
    assert sign_flip_test(differences) == pytest.approx(sum(abs(s) >= observed for s in sums) / len(sums))


@pytest.mark.parametrize("shift", [0.0, 0.06, 0.2])
def test_sign_flips_agree_with_scipy(shift: float) -> None:
    rng = np.random.default_rng(7)
    differences = np.rint(rng.normal(shift, 1.2, 400))
    reference = stats.permutation_test(
        (differences, np.zeros(400)),
        lambda x, y, axis=-1: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=4999,
        batch=500,
        rng=np.random.default_rng(0),
    )
    assert sign_flip_test(differences) == pytest.approx(reference.pvalue, abs=4 * math.sqrt(0.25 / 4999))


def test_sign_flips_of_many_lines_are_precise() -> None:
    """All lines off by one: twice the chance of all heads, which drawing could never find."""
    assert sign_flip_test([1] * 30) == pytest.approx(2.0**-29, rel=1e-3)
    assert sign_flip_test([2] * 20_000) < 1e-9


def test_sign_flips_need_whole_numbers() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        sign_flip_test([0.5, 1])


@given(DIFFERENCES)
def test_sign_flips_do_not_care_who_is_first_or_for_scale(differences: list[int]) -> None:
    p = sign_flip_test(differences)
    assert 0.0 < p <= 1.0
    assert sign_flip_test([-d for d in differences]) == pytest.approx(p)
    assert sign_flip_test([3 * d for d in differences]) == pytest.approx(p)
    assert sign_flip_test([*differences, 0, 0]) == pytest.approx(p)


def test_holm_by_hand() -> None:
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 (not below the one before).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(P_VALUES)
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1.0 for p, a in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)
    if p_values:
        assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


@given(P_VALUES)
def test_holm_finds_no_more_than_uncorrected_and_no_less_than_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, a in zip(p_values, adjusted, strict=True):
        assert not (a < 0.05 and p >= 0.05)
        assert not (len(p_values) * p < 0.05 and a >= 0.05)


def test_the_interval_agrees_with_scipys_bootstrap() -> None:
    rng = np.random.default_rng(3)
    lengths = rng.integers(5, 40, 300)
    edits = rng.binomial(lengths, 0.2)
    sums = bootstrap_sums(np.stack([edits, lengths], axis=1), resamples=6000)
    ours = interval(sums[:, 0] / sums[:, 1])
    theirs = stats.bootstrap(
        (edits, lengths),
        lambda e, n, axis=-1: e.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=6000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.002)
    assert ours.high == pytest.approx(theirs.high, abs=0.002)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        edits = rng.binomial(20, 0.1, 150)
        sums = bootstrap_sums(np.stack([edits, np.full(150, 20)], axis=1), resamples=400)
        ends = interval(sums[:, 0] / sums[:, 1])
        inside += ends.low <= 0.1 <= ends.high
    assert 0.89 <= inside / 200 <= 0.99


def test_columns_stay_paired_and_the_same_each_time() -> None:
    values = np.arange(12).reshape(6, 2)
    sums = bootstrap_sums(values, resamples=50)
    np.testing.assert_allclose(sums[:, 1] - sums[:, 0], 6)  # the second is the first + 1, in every line
    np.testing.assert_array_equal(sums, bootstrap_sums(values, resamples=50))


def test_clusters_are_drawn_whole() -> None:
    """Two writers with two lines each: a draw has both, or one of them twice."""
    sums = bootstrap_sums([[1], [1], [10], [10]], clusters=["a", "a", "b", "b"], resamples=300)
    assert set(sums[:, 0]) == {4.0, 22.0, 40.0}


def test_drawing_clusters_widens_the_interval_where_their_lines_are_alike() -> None:
    edits = np.repeat([0, 2, 9, 4, 1, 7], 50)
    table = np.stack([edits, np.full(300, 20)], axis=1)
    lines = interval((s := bootstrap_sums(table))[:, 0] / s[:, 1])
    writers = interval((s := bootstrap_sums(table, clusters=np.repeat(list("abcdef"), 50).tolist()))[:, 0] / s[:, 1])
    assert writers.high - writers.low > 3 * (lines.high - lines.low)


def test_few_lines_are_drawn_in_one_step_and_many_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htr_ray.report.statistics._CELLS", 100)
    sums = bootstrap_sums(np.ones((30, 1)), resamples=11)
    assert sums.tolist() == [[30.0]] * 11


def test_seeds_are_drawn_too() -> None:
    rates = np.tile([10.0, 20.0, 30.0], (1000, 1))
    means = mean_over_seeds(rates)
    assert means.min() == 10.0 and means.max() == 30.0
    assert means.mean() == pytest.approx(20.0, abs=1.0)
    assert mean_over_seeds(rates, draw=False).tolist() == [20.0] * 1000
    assert mean_over_seeds(rates[:, :1]).tolist() == [10.0] * 1000


def test_an_interval_may_be_open() -> None:
    assert interval([*range(98), math.inf, math.inf, math.inf]) == Interval(2, math.inf)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_an_interval_lies_within_its_samples(samples: list[float]) -> None:
    ends = interval(samples)
    assert min(samples) <= ends.low <= ends.high <= max(samples)


def test_equal_labels_by_hand() -> None:
    labels, errors = [100, 1000, 10_000], [50.0, 30.0, 20.0]
    assert equal_labels(labels, errors, 30.0).labels == pytest.approx(1000)
    # Half of the way in CER is half of the way in log labels.
    assert equal_labels(labels, errors, 40.0).labels == pytest.approx(math.sqrt(100 * 1000))
    assert equal_labels(labels, errors, 50.0).labels == 100
    assert equal_labels(labels, errors, 19.9).kind == "more"
    assert equal_labels(labels, errors, 19.9).labels == 10_000
    assert equal_labels(labels, errors, 50.1).kind == "fewer"
    assert equal_labels([500], [30.0], 20.0).kind == "more"


def test_a_curve_that_rises_again_counts_where_it_first_comes_down() -> None:
    assert equal_labels([10, 100, 1000], [50.0, 20.0, 40.0], 30.0).labels < 100
    assert equal_labels([1000, 10, 100], [40.0, 50.0, 20.0], 30.0).labels < 100


@given(CURVES, st.floats(0, 200))
def test_nothing_is_extrapolated(curve: dict[int, float], target: float) -> None:
    found = equal_labels(list(curve), list(curve.values()), target)
    assert min(curve) * (1 - 1e-9) <= found.labels <= max(curve) * (1 + 1e-9)
    if found.kind == "more":
        assert target < min(curve.values())
    elif found.kind == "fewer":
        assert target > curve[min(curve)]
    else:
        assert min(curve.values()) <= target


@given(CURVES, st.floats(0, 200), st.floats(0, 200))
def test_fewer_errors_equal_no_fewer_labels(curve: dict[int, float], a: float, b: float) -> None:
    rank = {"fewer": 0.0, "more": math.inf}
    low, high = (equal_labels(list(curve), list(curve.values()), target) for target in (max(a, b), min(a, b)))
    assert rank.get(low.kind, low.labels) <= rank.get(high.kind, high.labels) * (1 + 1e-9)
