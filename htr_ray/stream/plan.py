"""Which lines meet in which batch: the order of an epoch, as a pure function of the seed.

Lines are reached in *units* (a Parquet row group, or a single line where the corpus is
cached). A pass over the corpus permutes the units, joins them into *chunks* of about
``shuffle_lines`` lines, and cuts each chunk into batches of lines of like width. Nothing
here depends on the machine, the number of workers or the order of their work, so a run
can be continued at any epoch, on any cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plan:
    """Order of the lines of one split.

    widths: int32 ``[N]``, scaled width of every line in pixels.
    unit: int32 ``[N]``, the unit that each line is read with, ascending.
    batch_size: lines of a global batch (over all training workers).
    laps: passes over the lines that make up one epoch (few labels are repeated).
    parts: epochs that one pass is cut into, between chunks (a large corpus); only with ``laps`` = 1.
    """

    widths: np.ndarray
    unit: np.ndarray
    batch_size: int
    shuffle_lines: int
    seed: int
    laps: int = 1
    parts: int = 1

    @property
    def lines(self) -> int:
        return len(self.widths)

    def _bounds(self) -> np.ndarray:
        """Start of each unit, and the end: int64 ``[units + 1]``."""
        return np.concatenate([[0], np.flatnonzero(np.diff(self.unit)) + 1, [self.lines]])

    def chunks(self, lap: int) -> list[np.ndarray]:
        """Line numbers of every chunk of pass ``lap`` (counted from the start of training)."""
        bounds = self._bounds()
        order = np.random.default_rng([self.seed, 1, lap]).permutation(len(bounds) - 1)
        sizes = np.diff(bounds)[order]
        ends = np.cumsum(sizes)
        # A chunk closes with the unit that fills it. A last chunk too small for one batch joins its neighbour.
        full = max(self.shuffle_lines, self.batch_size)
        cuts: list[int] = []
        while (closing := np.searchsorted(ends, (cuts[-1] if cuts else 0) + full)) < len(ends):
            cuts.append(int(ends[closing]))
        if cuts and self.lines - cuts[-1] < self.batch_size:
            cuts.pop()
        lines = np.repeat(bounds[:-1][order] - (ends - sizes), sizes) + np.arange(self.lines)
        return np.split(lines, cuts)

    def batches(self, lap: int, chunk: int, lines: np.ndarray) -> list[np.ndarray]:
        """Cut a chunk into batches of nearly equal size, lines of like width together.

        The widths are jittered by up to 5 % before sorting, so that the same lines do
        not meet in every epoch, and the order of the batches is random.
        """
        rng = np.random.default_rng([self.seed, 2, lap, chunk])
        lines = rng.permutation(lines)
        keys = self.widths[lines] * rng.uniform(0.95, 1.05, len(lines))
        lines = lines[np.argsort(keys, kind="stable")]
        parts = np.array_split(lines, max(1, -(-len(lines) // self.batch_size)))
        return [parts[i] for i in rng.permutation(len(parts))]

    def epoch(self, epoch: int) -> list[tuple[int, int, int]]:
        """Chunks of an epoch (counted from 0), in order: the pass, the number in that pass, and how many lines."""
        lap, part = divmod(epoch, self.parts)
        pieces = [
            (lap, number, len(chunk))
            for lap in range(lap * self.laps, (lap + 1) * self.laps)
            for number, chunk in enumerate(self.chunks(lap))
        ]
        bounds = [len(pieces) * piece // self.parts for piece in range(self.parts + 1)]
        return pieces[bounds[part] : bounds[part + 1]]

    def steps(self, epoch: int) -> int:
        """Optimizer steps of an epoch (counted from 0)."""
        return sum(-(-lines // self.batch_size) for _, _, lines in self.epoch(epoch))


def laps_for(lines: int, batch_size: int, min_steps: int) -> int:
    """Passes per epoch so that an epoch has at least ``min_steps`` optimizer steps."""
    steps = max(1, -(-lines // batch_size))  # of one pass, at the least
    return max(1, -(-min_steps // steps))


def parts_for(plan: Plan, max_steps: int | None) -> int:
    """Epochs per pass so that each has about ``max_steps`` optimizer steps; a chunk is never cut, so it may be more."""
    if max_steps is None or plan.laps > 1:
        return 1
    steps = max(1, -(-plan.lines // plan.batch_size))
    # A chunk closes with the unit that fills it, and the last may take in one too small for a batch.
    largest = max(plan.shuffle_lines, plan.batch_size) + int(np.diff(plan._bounds()).max())
    chunks = max(1, -(-(plan.lines - plan.batch_size) // largest))
    return min(-(-steps // max_steps), chunks)
