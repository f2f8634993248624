"""Sorting: where in the line did each piece come from? (paper, section 3.2.2, method adaptation)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from htr_ray.config import PretextSettings
from htr_ray.pretext.adapt import whole
from htr_ray.pretext.base import Pretext, Target
from htr_ray.pretext.guard import Cleaned
from htr_ray.pretext.tiles import puzzle
from htr_ray.stream.augment import Grey

if TYPE_CHECKING:
    from torch import nn


class Sorting(Pretext):
    """The whole line, of any width, in vertical pieces; one answer per piece.

    ``target[k]`` is the original index of the piece that now stands at position k. The gap
    between pieces is that of the jigsaw (``jigsaw_gap``).
    """

    name = "sorting"

    def __init__(self, settings: PretextSettings, height: int) -> None:
        super().__init__(settings, height)
        self.classes = self.positions = settings.sorting_pieces

    def make(self, line: Cleaned, rng: np.random.Generator) -> tuple[Grey, Target]:
        image = whole(line, self.classes, rng)
        order = rng.permutation(self.classes).astype(np.int64)
        return puzzle(image, 1, self.classes, order, self.settings.jigsaw_gap, line.paper, rng), order

    def head(self, dim: int) -> nn.Module:
        from htr_ray.pretext.heads import PieceHead

        return PieceHead(dim, self.classes)

    def caption(self, target: Target) -> str:
        return "pieces " + " ".join(str(int(i) + 1) for i in target)
