"""Splitting a corpus: as its source says, else so that no writer is on two sides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

from htr_ray.corpus.schema import SPLITS, Split
from htr_ray.errors import UserError

SplitBy = Literal["auto", "official", "writer", "page", "line"]
_FEW_WRITERS = 10

# Work is bounded: many tries when groups are few and coarse, a few when they are many and any order is good.
_TRIES = 64
_WORK = 400_000
# So few groups are tried in every way (3**8 ways, hundredths of a second): moves of single groups may miss the best.
_EVERY_WAY = 8


class Known(NamedTuple):
    """What is known of each line, in four columns of equal length."""

    ids: Sequence[str]
    writers: Sequence[str | None]
    pages: Sequence[str | None]
    official: Sequence[Split | None]
    """The split that the source puts a line in."""


def choose_splits(
    known: Known, seed: int, shares: tuple[float, float, float], split_by: SplitBy, warnings: list[str]
) -> tuple[list[Split], str]:
    """The split of each line, and what decided it: official, writer, page or line.

    ``auto`` takes the source's own splits where it has some, else keeps writers whole, else pages,
    else splits by line: the first that makes three groups. What a user should know is added to ``warnings``.
    Raises UserError when the corpus cannot be split as asked.
    """
    if split_by == "official" and not any(known.official):
        raise UserError("--split-by official: the input names no splits; use auto, writer, page or line")
    if split_by in ("auto", "official") and any(known.official):
        return _official(known, seed, shares, warnings), "official"
    columns = {"writer": known.writers, "page": known.pages}
    if split_by == "auto":
        by = next((by for by, names in columns.items() if len(set(names) - {None}) >= 3), "line")
    else:
        by = split_by
        if by in columns and len(set(columns[by]) - {None}) < 3:
            raise UserError(f"--split-by {by}: three {by}s are needed, {len(set(columns[by]) - {None})} are known")
    groups = _groups(known, by)
    _warn(known, by, split_by, warnings)
    side = assign_splits(groups, seed, shares)
    return [side[group] for group in groups], by


def _groups(known: Known, by: str) -> list[str]:
    """The group of each line that must stay whole."""
    if by == "line":
        return [f"line {id_}" for id_ in known.ids]
    names = known.writers if by == "writer" else known.pages
    return [
        f"{by} {name}" if name else f"page {page}" if page else f"line {id_}"
        for name, page, id_ in zip(names, known.pages, known.ids, strict=True)
    ]


def _warn(known: Known, by: str, split_by: SplitBy, warnings: list[str]) -> None:
    writers, pages = (len(set(names) - {None}) for names in (known.writers, known.pages))
    if by == "line":
        why = "as asked" if split_by == "line" else f"for there are only {writers} writers and {pages} pages"
        need = "" if split_by == "line" else " (three are needed)"
        warnings.append(
            f"split by single line, {why}{need}: the same hand is on all sides, so test figures will be too good"
            " for unknown hands"
        )
        return
    nameless = (known.writers if by == "writer" else known.pages).count(None)
    if nameless:
        warnings.append(f"{nameless} lines have no {by}; they are split by page or singly")
    if by == "page" and writers:
        why = "as asked" if split_by == "page" else "fewer than three writers"
        warnings.append(f"{why}: split by page, the same hand is on several sides")
    if by == "writer" and writers < _FEW_WRITERS:
        warnings.append(
            f"only {writers} writers: shares are coarse, and figures of val and test depend on who is in them"
        )


def _official(known: Known, seed: int, shares: tuple[float, float, float], warnings: list[str]) -> list[Split]:
    """The source's splits; a split that it lacks is taken from its training lines, whole writers if possible."""
    splits: list[Split] = [split or "train" for split in known.official]
    without = known.official.count(None)
    if without:
        warnings.append(f"{without} lines are in no split of the source; they are in train")
    for missing, share in (("val", shares[1]), ("test", shares[2])):
        if missing in splits:
            continue
        places = [i for i, split in enumerate(splits) if split == "train"]
        mine = Known(
            [known.ids[i] for i in places],
            [known.writers[i] for i in places],
            [known.pages[i] for i in places],
            [None] * len(places),
        )
        by = next(by for by in ("writer", "page", "line") if len(set(_groups(mine, by))) >= 2 or by == "line")
        groups = _groups(mine, by)
        taken = carve(groups, share / (shares[0] + share), seed)
        for place, group in zip(places, groups, strict=True):
            if group in taken:
                splits[place] = missing  # type: ignore[call-overload]
        warnings.append(f"the source has no {missing} split: {len(taken)} {by}(s) of its training lines are {missing}")
    for column, names in (("writer", known.writers), ("page", known.pages)):
        sides = {(name, split) for name, split in zip(names, splits, strict=True) if name is not None}
        twice = sum(count > 1 for count in Counter(name for name, _ in sides).values())
        if twice:
            warnings.append(f"{twice} {column}s are in several splits of the source")
    return splits


def carve(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """Choose whole groups that hold about ``share`` of the lines; at least one, and never all.

    Depends on the number of lines of each group and the seed, not on the order. Raises UserError for fewer
    than two groups.
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise UserError("splits: nothing to take a missing split from, all training lines are one group")
    names = sorted(sizes)
    random.Random(f"htr-ray carve {seed}").shuffle(names)
    missing = share * len(groups)
    taken: set[str] = set()
    for name in names:
        if len(taken) + 1 < len(names) and sizes[name] <= 2 * missing:
            taken.add(name)
            missing -= sizes[name]
    return taken or {min(names, key=lambda name: (sizes[name], name))}


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
    side = best[1]
    if len(names) <= _EVERY_WAY:
        side = _search(names, sizes, targets, side)
    return {name: SPLITS[side[name]] for name in sorted(sizes)}


def _search(names: list[str], sizes: Counter[str], targets: list[float], side: dict[str, int]) -> dict[str, int]:
    """Of all assignments one that is nearest to the targets: ``side`` itself where none is nearer."""
    best, least = side, _off(names, sizes, targets, side) - 1e-9
    for chosen in product(range(3), repeat=len(names)):
        if len(set(chosen)) == 3:
            other = dict(zip(names, chosen, strict=True))
            if (off := _off(names, sizes, targets, other)) < least:
                best, least = other, off - 1e-9
    return best


def _off(names: list[str], sizes: Counter[str], targets: list[float], side: dict[str, int]) -> float:
    """Lines that are too many or too few, over all splits."""
    return sum(map(abs, _over(names, sizes, targets, side)))


def _over(names: list[str], sizes: Counter[str], targets: list[float], side: dict[str, int]) -> list[float]:
    """Lines that each split has above its target."""
    over = [-target for target in targets]
    for name in names:
        over[side[name]] += sizes[name]
    return over


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
    over = _over(names, sizes, targets, side)
    members = Counter(side.values())
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
