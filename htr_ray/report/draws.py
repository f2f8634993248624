"""The test lines of a corpus drawn with replacement, once for all its trials.

Every interval of the report, of a cell or of a difference, is made of the same draws: so all are paired, and a grid
of many comparisons costs one bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from htr_ray.report import statistics
from htr_ray.report.counts import Counts
from htr_ray.report.statistics import Array


@dataclass(frozen=True)
class Draws:
    """Error rates of trials on the same drawn lines."""

    keys: list[str]
    """Of the trials."""
    sums: Array
    """[resamples, 2 + 2 * trials]: characters, words, then character edits and word edits of each trial."""

    def rates(self, keys: Sequence[str], words: bool = False) -> Array:
        """CER (or WER, with ``words``) in percent: [resamples, keys]."""
        lengths = np.maximum(self.sums[:, 1 if words else 0], 1.0)
        return 100.0 * self._edits(keys, words) / lengths[:, None]

    def difference(self, left: Sequence[str], right: Sequence[str]) -> Array:
        """Mean CER of the trials ``left`` minus that of as many, ``right``, in percentage points: [resamples].

        Taken of counts, so that no difference is exactly 0.
        """
        edits = self._edits(left).sum(axis=1) - self._edits(right).sum(axis=1)
        return 100.0 * edits / (len(left) * np.maximum(self.sums[:, 0], 1.0))

    def _edits(self, keys: Sequence[str], words: bool = False) -> Array:
        return self.sums[:, [2 + self.keys.index(key) + (len(self.keys) if words else 0) for key in keys]]


def draw(counts: Counts, clusters: Sequence[object] | None = None) -> Draws:
    """Draw the lines of ``counts``, or whole ``clusters`` of them (one label per line, such as its writer)."""
    keys = list(counts.character_edits)
    columns = [counts.characters, counts.words]
    columns += [edits[key] for edits in (counts.character_edits, counts.word_edits) for key in keys]
    return Draws(keys, statistics.bootstrap_sums(np.stack(columns, axis=1), clusters=clusters))
