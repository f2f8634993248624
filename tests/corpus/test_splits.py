"""No writer on two sides, and shares as near as writers allow."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from htr_ray.corpus.schema import Split
from htr_ray.corpus.splits import Known, SplitBy, assign_splits, carve, choose_splits
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
@example([29, 1, 12, 18, 40, 5, 14], 2)  # moves of single groups stop 7 lines short of the best
def test_shares_are_the_best_there_are_for_few_groups(sizes: list[int], seed: int) -> None:
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
    assert got == pytest.approx(best)


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


# --- splits of the source ---------------------------------------------------------------------------------


def known(official: list[Split | None], writers: list[str | None] | None = None) -> Known:
    ids = [str(i) for i in range(len(official))]
    return Known(ids, writers or [None] * len(ids), [None] * len(ids), official)


def test_the_sources_own_splits_are_kept() -> None:
    official: list[Split | None] = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    warnings: list[str] = []
    assert choose_splits(known(official), 0, (80, 10, 10), "auto", warnings) == (official, "official")
    assert warnings == []


def test_lines_in_no_split_go_to_train_and_are_counted() -> None:
    warnings: list[str] = []
    splits, by = choose_splits(known(["train", None, "val", "test"]), 0, (80, 10, 10), "auto", warnings)
    assert (splits, by) == (["train", "train", "val", "test"], "official")
    assert warnings == ["1 lines are in no split of the source; they are in train"]


def test_a_missing_validation_split_is_whole_writers_of_train() -> None:
    writers: list[str | None] = [f"w{i % 20}" for i in range(400)]
    official: list[Split | None] = ["test" if i % 20 < 4 else "train" for i in range(400)]
    warnings: list[str] = []
    splits, _ = choose_splits(known(official, writers), 0, (80, 10, 10), "official", warnings)
    sides: dict[str | None, set[str]] = {}
    for writer, split, asked in zip(writers, splits, official, strict=True):
        assert (split == "test") == (asked == "test")
        sides.setdefault(writer, set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert 20 <= splits.count("val") <= 60
    assert len(warnings) == 1 and "the source has no val split" in warnings[0]


def test_writers_in_several_splits_of_the_source_are_named() -> None:
    warnings: list[str] = []
    choose_splits(known(["train", "val", "test"], ["a", "a", "b"]), 0, (80, 10, 10), "auto", warnings)
    assert warnings == ["1 writers are in several splits of the source"]


def test_asking_for_writers_overrules_the_source() -> None:
    writers: list[str | None] = [f"w{i % 10}" for i in range(100)]
    official: list[Split | None] = ["train" if i % 2 else "test" for i in range(100)]
    _, by = choose_splits(known(official, writers), 0, (80, 10, 10), "writer", [])
    assert by == "writer"


@pytest.mark.parametrize(("split_by", "message"), [("official", "names no splits"), ("writer", "three writers")])
def test_what_cannot_be_had_is_said(split_by: SplitBy, message: str) -> None:
    with pytest.raises(UserError, match=f"--split-by {split_by}: .*{message}"):
        choose_splits(known([None] * 9), 0, (80, 10, 10), split_by, [])


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=200), st.floats(0.01, 0.6), st.integers(0, 5))
def test_carving_takes_whole_groups_and_never_all(groups: list[str], share: float, seed: int) -> None:
    if len(set(groups)) < 2:
        with pytest.raises(UserError):
            carve(groups, share, seed)
        return
    taken = carve(groups, share, seed)
    assert taken and taken < set(groups)
    assert carve(list(reversed(groups)), share, seed) == taken
    held = sum(group in taken for group in groups)
    assert abs(held - share * len(groups)) <= max(groups.count(name) for name in set(groups))
