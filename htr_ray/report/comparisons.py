"""Paired comparisons of recognizers: each pretext task with none, and decoders with each other."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from htr_ray.report import statistics
from htr_ray.report.cells import NONE, Cell, Cells, Place
from htr_ray.report.counts import Counts
from htr_ray.report.draws import Draws
from htr_ray.report.statistics import Interval

ALPHA = 0.05

Kind = Literal["pretext", "decoder"]
Verdict = Literal["better", "worse", "no clear difference"]


@dataclass(frozen=True)
class Comparison:
    """Two kinds of recognizers on the same test lines. Negative differences: ``name`` has the lower CER."""

    kind: Kind
    corpus: str
    protocol: str
    decoder: str | None
    """None where decoders are compared."""
    fraction: float
    name: str
    reference: str
    difference: float
    """CER of ``name`` minus CER of ``reference``, percentage points, over the seeds that both have."""
    interval: Interval
    p: float
    p_corrected: float
    """After Holm, over all comparisons of the report."""
    lines: int
    seeds: int
    seeds_agreeing: int
    """Seeds in which the difference has the sign of the mean."""
    writers: int | None
    writers_agreeing: int | None

    @property
    def verdict(self) -> Verdict:
        if self.p_corrected >= ALPHA or self.difference == 0:
            return "no clear difference"
        return "better" if self.difference < 0 else "worse"

    @property
    def place(self) -> Place:
        """The row of the tables; of a comparison of pretexts, decoders are compared across rows."""
        assert self.decoder is not None
        return Place(self.corpus, self.protocol, self.decoder, self.fraction)


def with_none(comparisons: Sequence[Comparison]) -> dict[tuple[Place, str], Comparison]:
    """The comparisons of cells with their row's cell from scratch, by place and pretext."""
    return {(c.place, c.name): c for c in comparisons if c.kind == "pretext"}


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """All comparisons of a report, each p-value corrected for all of them."""
    adjusted = statistics.holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_corrected=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


class _About(NamedTuple):
    kind: Kind
    corpus: str
    protocol: str
    decoder: str | None
    fraction: float
    name: str
    reference: str


def compare_cells(
    corpus: str, cells: Cells, pretexts: Sequence[str], counts: Counts, by_line: Draws
) -> list[Comparison]:
    """Every pretext with none, and decoders with each other over all pretexts; not yet corrected.

    ``cells``: those of ``corpus``; ``by_line``: draws of the lines of ``counts``.
    """
    found = []
    for (place, pretext), cell in cells.items():
        scratch = cells.get((place, NONE))
        if pretext != NONE and scratch is not None:
            pairs = _pairs([cell], [scratch], counts)
            about = _About("pretext", corpus, place.protocol, place.decoder, place.fraction, pretext, NONE)
            found.append(_compare(about, pairs, counts, by_line))
    rows = dict.fromkeys((place.protocol, place.fraction) for place, _ in cells)
    decoders = list(dict.fromkeys(place.decoder for place, _ in cells))
    for protocol, fraction in rows:
        for number, reference in enumerate(decoders):
            for name in decoders[number + 1 :]:
                both = [
                    tuple(cells.get((Place(corpus, protocol, which, fraction), pretext)) for which in (name, reference))
                    for pretext in pretexts
                ]
                whole = [(a, b) for a, b in both if a is not None and b is not None]
                pairs = _pairs([a for a, _ in whole], [b for _, b in whole], counts)
                about = _About("decoder", corpus, protocol, None, fraction, name, reference)
                found.append(_compare(about, pairs, counts, by_line))
    return [comparison for comparison in found if comparison is not None]


def _pairs(left: Sequence[Cell], right: Sequence[Cell], counts: Counts) -> dict[int, list[tuple[str, str]]]:
    """Keys of the trials to compare, by seed: the same pretext and seed on both sides (so the same labels)."""
    pairs: dict[int, list[tuple[str, str]]] = {}
    for a, b in zip(left, right, strict=True):
        other = {trial.seed: trial.key for trial in b.done if trial.key in counts.character_edits}
        for trial in a.done:
            if trial.seed in other and trial.key in counts.character_edits:
                pairs.setdefault(trial.seed, []).append((trial.key, other[trial.seed]))
    return pairs


def _compare(
    about: _About, pairs: Mapping[int, list[tuple[str, str]]], counts: Counts, by_line: Draws
) -> Comparison | None:
    if not pairs:
        return None
    edits = counts.character_edits
    characters = counts.characters.sum()
    seeds = [
        100.0 * sum(int((edits[a] - edits[b]).sum()) for a, b in found) / float(len(found) * characters)
        for found in pairs.values()
    ]
    drawn = [by_line.difference([a for a, _ in found], [b for _, b in found]) for found in pairs.values()]
    difference = plain.fmean(seeds)
    # The mean over seeds, of which some may have fewer pretexts, times what makes it whole: the test is the same.
    whole = math.lcm(*map(len, pairs.values()))
    total = np.sum(
        [(edits[a] - edits[b]) * (whole // len(found)) for found in pairs.values() for a, b in found], axis=0
    )
    writers = agreeing = None
    if counts.writers is not None:
        names, member = np.unique(np.array(counts.writers), return_inverse=True)
        signs = np.sign(np.bincount(member, total, len(names)))
        writers, agreeing = len(names), int((signs == np.sign(difference)).sum())
    return Comparison(
        **about._asdict(),
        difference=difference,
        interval=statistics.interval(statistics.mean_over_seeds(np.stack(drawn, axis=1))),
        p=statistics.sign_flip_test(total),
        p_corrected=1.0,
        lines=len(counts.ids),
        seeds=len(pairs),
        seeds_agreeing=sum(bool(np.sign(seed) == np.sign(difference)) for seed in seeds),
        writers=writers,
        writers_agreeing=agreeing,
    )
