"""Jigsaw: which of a set of permutations shuffled the tiles? (Noroozi & Favaro 2016; paper, section 3.2.1)"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from htr_ray.config import PretextSettings
from htr_ray.pretext.adapt import fixed
from htr_ray.pretext.base import Pretext, Target
from htr_ray.pretext.guard import Cleaned
from htr_ray.pretext.tiles import puzzle
from htr_ray.stream.augment import Grey
from htr_ray.stream.scale import MIN_WIDTH

if TYPE_CHECKING:
    from torch import nn

ENUMERATED = 7
"""Up to this many tiles all permutations are candidates; beyond, a fixed random pool is."""
POOL = 20000


@lru_cache(maxsize=8)
def permutation_set(tiles: int, size: int) -> npt.NDArray[np.int64]:
    """Choose permutations greedily so that the least Hamming distance among them is large.

    Returns int64 ``[min(size, tiles!), tiles]``, all different, read-only; the same on every
    machine for the same arguments.
    """
    if tiles <= ENUMERATED:
        pool = np.array(list(permutations(range(tiles))), np.int64)
    else:
        # No global generator: the classes must mean the same on every worker and when resuming.
        own = np.random.Generator(np.random.PCG64([tiles, 2016]))
        pool = np.unique(np.argsort(own.random((POOL, tiles)), axis=1).astype(np.int64), axis=0)
    size = min(size, math.factorial(tiles), len(pool))
    chosen = [0]
    nearest = (pool != pool[0]).sum(1)
    total = nearest.copy()
    while len(chosen) < size:
        # Farthest from its nearest neighbour; among those the farthest from all; then the first.
        # Chosen ones are at distance 0 and everything else at 2 or more, so none comes twice.
        following = int(np.argmax(nearest * (tiles * size + 1) + total))
        chosen.append(following)
        distance = (pool != pool[following]).sum(1)
        nearest = np.minimum(nearest, distance)
        total += distance
    result = pool[chosen]
    result.setflags(write=False)
    return result


class Jigsaw(Pretext):
    """A window cut into a grid of tiles with gaps; the permutation is one class."""

    name = "jigsaw"

    def __init__(self, settings: PretextSettings, height: int) -> None:
        super().__init__(settings, height)
        self.rows, self.columns = settings.jigsaw_rows, settings.jigsaw_columns
        self.permutations = permutation_set(self.rows * self.columns, settings.jigsaw_permutations)
        self.classes = len(self.permutations)

    def make(self, line: Cleaned, rng: np.random.Generator) -> tuple[Grey, Target]:
        width = max(MIN_WIDTH, self.settings.window_aspect * self.height)
        tile_width = math.ceil(width / self.columns)
        window = fixed(line, tile_width * self.columns, self.settings.adaptation, rng, fill=True)
        # Heights that the rows do not divide: what is left over stays paper at the bottom.
        cut_height = self.height // self.rows * self.rows
        kind = int(rng.integers(self.classes))
        window[:cut_height] = puzzle(
            window[:cut_height],
            self.rows,
            self.columns,
            self.permutations[kind],
            self.settings.jigsaw_gap,
            line.paper,
            rng,
        )
        window[cut_height:] = line.paper
        return window, np.array([kind], np.int64)

    def head(self, dim: int) -> nn.Module:
        from htr_ray.pretext.heads import GridHead

        # The encoder averages the height away: a segment of frames is a column of tiles.
        return GridHead(dim, self.columns, self.classes)

    def caption(self, target: Target) -> str:
        return "tiles " + " ".join(str(int(i) + 1) for i in self.permutations[int(target[0])])
