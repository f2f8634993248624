"""Label fractions are nested, seeded, and the same on every machine."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.fractions import label_subset
from htr_ray.errors import UserError

IDS = st.lists(st.text(max_size=8), min_size=1, max_size=60, unique=True)
FRACTION = st.floats(0.001, 1.0)


@given(IDS, FRACTION, FRACTION, st.integers(0, 3))
def test_nested(ids: list[str], one: float, other: float, seed: int) -> None:
    small, large = (label_subset(ids, f, "c", seed) for f in sorted((one, other)))
    assert small <= large <= set(ids)
    assert small


@given(IDS, FRACTION, st.randoms(use_true_random=False))
def test_order_does_not_matter(ids: list[str], fraction: float, rng: random.Random) -> None:
    shuffled = list(ids)
    rng.shuffle(shuffled)
    assert label_subset(ids, fraction, "c", 0) == label_subset(shuffled, fraction, "c", 0)


@given(st.integers(1, 500), FRACTION)
def test_size(count: int, fraction: float) -> None:
    ids = [str(i) for i in range(count)]
    assert abs(len(label_subset(ids, fraction, "c", 0)) - max(1, fraction * count)) <= 0.5 + 1e-9


def test_seed_and_corpus_choose_others() -> None:
    ids = [f"line{i}" for i in range(1000)]
    subsets = [label_subset(ids, 0.1, name, seed) for name in ("a", "b") for seed in (0, 1)]
    for i, one in enumerate(subsets):
        for other in subsets[:i]:
            # Independent subsets of 10 % share 10 % of their lines.
            assert len(one & other) < 30


def test_adding_lines_keeps_the_ranking() -> None:
    ids = [f"line{i}" for i in range(1000)]
    assert label_subset(ids, 0.1, "c", 0) & set(ids[:500]) <= label_subset(ids[:500], 0.2, "c", 0)


def test_same_in_another_process() -> None:
    """Python's own hash of strings differs from process to process."""
    code = (
        "from htr_ray.corpus.fractions import label_subset;"
        "print(sorted(label_subset([str(i) for i in range(40)], 0.1, 'c', 7)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    )
    assert out.stdout.strip() == str(sorted(label_subset([str(i) for i in range(40)], 0.1, "c", 7)))


def test_edges() -> None:
    assert label_subset([], 0.5, "c", 0) == set()
    assert len(label_subset(["a", "b"], 0.01, "c", 0)) == 1
    for wrong in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="label_fractions"):
            label_subset(["a"], wrong, "c", 0)
