"""No writer on two sides, and shares as near as writers allow."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.splits import assign_splits
from htr_ray.errors import UserError

SIZES = st.lists(st.integers(1, 60), min_size=3, max_size=25)


def _lines(sizes: list[int]) -> list[str]:
    return [f"w{i}" for i, size in enumerate(sizes) for _ in range(size)]


def _off(sizes: Counter[str], side: dict[str, str], total: int, shares: tuple[float, ...]) -> float:
    lines = Counter({split: 0 for split in ("train", "val", "test")})
    for name, split in side.items():
        lines[split] += sizes[name]
    return sum(abs(lines[s] - share * total) for s, share in zip(("train", "val", "test"), shares, strict=True))


@given(SIZES, st.integers(0, 5))
def test_every_group_has_one_side_and_every_side_a_group(sizes: list[int], seed: int) -> None:
    side = assign_splits(_lines(sizes), seed)
    assert set(side) == {f"w{i}" for i in range(len(sizes))}
    assert set(side.values()) == {"train", "val", "test"}


@given(SIZES, st.integers(0, 5), st.randoms(use_true_random=False))
def test_depends_on_sizes_and_seed_alone(sizes: list[int], seed: int, rng: random.Random) -> None:
    lines = _lines(sizes)
    shuffled = list(lines)
    rng.shuffle(shuffled)
    assert assign_splits(lines, seed) == assign_splits(shuffled, seed)


@given(st.lists(st.integers(1, 40), min_size=3, max_size=7), st.integers(0, 3))
def test_shares_are_near_the_best_there_is(sizes: list[int], seed: int) -> None:
    """Against all assignments that leave no split empty."""
    lines, shares = _lines(sizes), (0.8, 0.1, 0.1)
    counts = Counter(lines)
    names = sorted(counts)
    best = min(
        _off(counts, dict(zip(names, sides, strict=True)), len(lines), shares)
        for sides in itertools.product(("train", "val", "test"), repeat=len(names))
        if len(set(sides)) == 3
    )
    got = _off(counts, assign_splits(lines, seed, shares), len(lines), shares)
    assert got <= best + 0.05 * len(lines) + 1


def test_seeds_differ_and_shares_are_met() -> None:
    lines = _lines([random.Random(i).randint(50, 200) for i in range(40)])
    results = [assign_splits(lines, seed) for seed in range(4)]
    assert len({tuple(sorted(r.items())) for r in results}) == 4
    for side in results:
        share = Counter(side[name] for name in lines)
        assert abs(share["train"] / len(lines) - 0.8) < 0.02
        assert abs(share["val"] / len(lines) - 0.1) < 0.02


def test_other_shares() -> None:
    lines = [str(i) for i in range(1000)]
    assert Counter(assign_splits(lines, 0, (60, 30, 10)).values()) == {"train": 600, "val": 300, "test": 100}


def test_many_groups() -> None:
    shares = Counter(assign_splits([str(i) for i in range(100_000)], 0).values())
    assert shares == {"train": 80_000, "val": 10_000, "test": 10_000}


def test_errors() -> None:
    with pytest.raises(UserError, match="there are 2"):
        assign_splits(["a", "b"], 0)
    with pytest.raises(UserError, match="three positive numbers"):
        assign_splits(["a", "b", "c"], 0, (0.9, 0.1, 0.0))
