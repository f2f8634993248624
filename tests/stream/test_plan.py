"""The order of the lines: whole, repeatable, and with little padding."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.stream.plan import Plan, laps_for, parts_for


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans over units of unequal size, as the row groups of several part files are."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=25))
    widths = draw(st.lists(st.integers(16, 2048), min_size=sum(sizes), max_size=sum(sizes)))
    return Plan(
        widths=np.array(widths, np.int32),
        unit=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        batch_size=draw(st.integers(1, 40)),
        shuffle_lines=draw(st.integers(1, 200)),
        seed=draw(st.integers(0, 2**31)),
        laps=draw(st.integers(1, 3)),
    )


def order(plan: Plan, lap: int) -> list[np.ndarray]:
    """All batches of a pass."""
    return [batch for number, chunk in enumerate(plan.chunks(lap)) for batch in plan.batches(lap, number, chunk)]


def realistic(lines: int = 600, **changes: object) -> Plan:
    """Widths as scaled handwriting has them: a long tail, and each line a unit (cached)."""
    widths = np.clip(np.random.default_rng(7).lognormal(6.0, 0.5, lines), 16, 2048).astype(np.int32)
    plan = Plan(
        widths=widths,
        unit=np.arange(lines, dtype=np.int32),
        batch_size=32,
        shuffle_lines=256,
        seed=3,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(plans(), st.integers(0, 5))
def test_every_line_once_per_lap(plan: Plan, lap: int) -> None:
    lines = np.concatenate(order(plan, lap))
    assert np.array_equal(np.sort(lines), np.arange(plan.lines))


@settings(deadline=None, max_examples=60)
@given(plans(), st.integers(0, 5))
def test_batches_of_a_chunk_are_nearly_equal(plan: Plan, lap: int) -> None:
    for number, chunk in enumerate(plan.chunks(lap)):
        sizes = [len(batch) for batch in plan.batches(lap, number, chunk)]
        assert max(sizes) <= plan.batch_size
        assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1
        assert len(sizes) == math.ceil(len(chunk) / plan.batch_size)


@settings(deadline=None, max_examples=60)
@given(plans(), st.integers(0, 5))
def test_chunks_hold_whole_units_and_a_full_batch(plan: Plan, lap: int) -> None:
    chunks = plan.chunks(lap)
    # Or each chunk of a small unit would cost a step of its own, and workers could go without a line.
    assert all(len(chunk) >= min(plan.batch_size, plan.lines) for chunk in chunks)
    homes = [set(plan.unit[chunk].tolist()) for chunk in chunks]
    assert sum(map(len, homes)) == len(set(plan.unit.tolist()))


@settings(deadline=None, max_examples=60)
@given(plans(), st.integers(0, 3))
def test_steps_is_the_real_number(plan: Plan, epoch: int) -> None:
    laps = range(epoch * plan.laps, (epoch + 1) * plan.laps)
    assert plan.steps(epoch) == sum(len(order(plan, lap)) for lap in laps)


@settings(deadline=None, max_examples=30)
@given(plans(), st.integers(0, 5))
def test_order_depends_on_seed_and_lap_only(plan: Plan, lap: int) -> None:
    """Not on what was asked before, nor on how many passes make an epoch."""
    first = order(plan, lap)
    np.random.default_rng(0).random()
    np.random.seed(1)
    twin = replace(plan, laps=plan.laps + 1)
    order(twin, lap + 1)
    assert [b.tolist() for b in order(twin, lap)] == [b.tolist() for b in first]


@settings(deadline=None, max_examples=60)
@given(plans(), st.integers(1, 30), st.integers(0, 4))
def test_a_pass_cut_into_epochs_is_the_same_pass(plan: Plan, max_steps: int, lap: int) -> None:
    whole = replace(plan, laps=1)
    cut = replace(whole, parts=parts_for(whole, max_steps))
    epochs = [cut.epoch(epoch) for epoch in range(lap * cut.parts, (lap + 1) * cut.parts)]
    assert all(epochs)  # none is empty
    assert sum(epochs, []) == whole.epoch(lap)
    assert sum(cut.steps(lap * cut.parts + part) for part in range(cut.parts)) == whole.steps(lap)


def test_epochs_are_about_as_long_as_asked() -> None:
    plan = realistic(lines=20_000)  # 625 steps in chunks of 8
    for asked in (50, 100, 624):
        cut = replace(plan, parts=parts_for(plan, asked))
        assert max(abs(cut.steps(epoch) - asked) for epoch in range(cut.parts)) <= max(8, asked / 2)
    assert parts_for(plan, 1) == parts_for(plan, 8) == -(-(20_000 - 32) // 257)  # a chunk at the least
    assert parts_for(plan, None) == parts_for(plan, 625) == 1
    assert parts_for(replace(plan, laps=2), 5) == 1  # few lines, which are repeated


def test_laps_and_seeds_differ() -> None:
    plan = realistic()
    orders = [np.concatenate(order(p, lap)).tolist() for p in (plan, realistic(seed=4)) for lap in range(3)]
    assert len({tuple(o) for o in orders}) == 6


def test_partners_change_between_laps() -> None:
    """Sorting by width must not make the same lines meet in every pass."""
    plan = realistic(lines=256)
    partners = [{frozenset(batch.tolist()) for batch in order(plan, lap)} for lap in range(4)]
    assert not set.intersection(*partners)


def test_small_last_chunk_joins_its_neighbour() -> None:
    plan = realistic(lines=256 + 31)
    assert [len(chunk) for chunk in plan.chunks(0)] == [287]
    assert [len(chunk) for chunk in realistic(lines=256 + 32).chunks(0)] == [256, 32]


def test_small_units_do_not_make_small_chunks() -> None:
    """Row groups larger than ``shuffle_lines``, and the short one that ends each part file."""
    sizes = [250, 10, 250, 10, 250]
    plan = Plan(
        widths=np.full(sum(sizes), 100, np.int32),
        unit=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        batch_size=32,
        shuffle_lines=64,
        seed=0,
    )
    for lap in range(10):
        assert min(len(chunk) for chunk in plan.chunks(lap)) >= 32


def padding(plan: Plan, batches: list[np.ndarray]) -> float:
    """Share of the pixels that are padding."""
    area = sum(len(batch) * int(plan.widths[batch].max()) for batch in batches)
    return 1 - int(plan.widths.sum()) / area


def test_sorting_saves_padding() -> None:
    plan = realistic()
    shuffled = np.random.default_rng(0).permutation(plan.lines)
    unsorted = padding(plan, np.array_split(shuffled, len(order(plan, 0))))
    sorted_ = padding(plan, order(plan, 0))
    assert unsorted > 0.4
    assert sorted_ < 0.4 * unsorted


@given(st.integers(1, 5000), st.integers(1, 512), st.integers(1, 500))
def test_laps_for(lines: int, batch_size: int, min_steps: int) -> None:
    laps = laps_for(lines, batch_size, min_steps)
    steps = math.ceil(lines / batch_size)
    assert laps >= 1 and laps * steps >= min_steps
    # No more repetition than that needs; above all, no line of a small test split is read twice.
    assert laps == 1 or (laps - 1) * steps < min_steps


@pytest.mark.parametrize("lines", [8, 20])
def test_min_steps_are_reached(lines: int) -> None:
    plan = realistic(lines=lines, batch_size=16, laps=laps_for(lines, 16, 50))
    assert plan.steps(0) >= 50 and plan.steps(1) >= 50
