"""Splitting a corpus so that no writer is on two sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from htr_ray.corpus.schema import SPLITS, Split
from htr_ray.errors import UserError

# Work is bounded: many tries when groups are few and coarse, a few when they are many and any order is good.
_TRIES = 64
_WORK = 400_000


def assign_splits(
    groups: Sequence[str], seed: int, shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> dict[str, Split]:
    """Assign each group (writer or page) to a split.

    ``groups`` holds the group of every line, so that the ``shares`` (train, val, test; any positive
    numbers, scaled to sum 1) are met in lines as nearly as whole groups allow. Every split gets a group.
    Depends on the number of lines of each group and the seed, not on the order. Raises UserError for fewer
    than three groups, or shares that are not three positive numbers.
    """
    if len(shares) != 3 or not all(share > 0 for share in shares):
        raise UserError(f"--splits {','.join(map(str, shares))}: give three positive numbers")
    sizes = Counter(groups)
    if len(sizes) < 3:
        raise UserError(f"splits: three groups are needed (train, val, test), there are {len(sizes)}")
    targets = [share / sum(shares) * len(groups) for share in shares]
    names = sorted(sizes)
    rng = random.Random(f"htr-ray splits {seed}")
    best: tuple[float, dict[str, int]] | None = None
    for _ in range(max(2, min(_TRIES, _WORK // len(names)))):
        rng.shuffle(names)
        side = _fill(names, sizes, targets)
        off = _improve(names, sizes, targets, side)
        if best is None or off < best[0] - 1e-9:
            best = off, side
    assert best is not None
    return {name: SPLITS[best[1][name]] for name in sorted(sizes)}


def _fill(names: list[str], sizes: Counter[str], targets: list[float]) -> dict[str, int]:
    """Give each group, in order, to the split that lacks most lines; the last ones to splits without any."""
    missing = list(targets)
    empty = {0, 1, 2}
    side = {}
    for position, name in enumerate(names):
        choices = empty if len(names) - position <= len(empty) else (0, 1, 2)
        chosen = max(choices, key=lambda k: (missing[k], k))
        side[name] = chosen
        missing[chosen] -= sizes[name]
        empty.discard(chosen)
    return side


def _improve(names: list[str], sizes: Counter[str], targets: list[float], side: dict[str, int]) -> float:
    """Move single groups while that brings splits nearer to their targets; return the lines still off."""
    over = [-target for target in targets]
    members = [0, 0, 0]
    for name in names:
        over[side[name]] += sizes[name]
        members[side[name]] += 1
    moved = True
    while moved:
        moved = False
        for name in names:
            here, size = side[name], sizes[name]
            if members[here] == 1:
                continue
            gain, there = max(
                (abs(over[here]) - abs(over[here] - size) + abs(over[k]) - abs(over[k] + size), k)
                for k in range(3)
                if k != here
            )
            if gain > 1e-9:
                side[name] = there
                over[here] -= size
                over[there] += size
                members[here] -= 1
                members[there] += 1
                moved = True
    return sum(abs(value) for value in over)
