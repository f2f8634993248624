"""Flip: was the window mirrored left-right, upside down, both or not at all? (paper, section 3.2.1)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from htr_ray.pretext.adapt import fixed
from htr_ray.pretext.base import Pretext, Target
from htr_ray.pretext.guard import Cleaned
from htr_ray.stream.augment import Grey
from htr_ray.stream.scale import MIN_WIDTH

if TYPE_CHECKING:
    from torch import nn

FLIPS = ("none", "horizontal", "vertical", "both")


def flip(image: Grey, kind: int) -> Grey:
    """Mirror by the index into ``FLIPS``; bit 0 is left-right, bit 1 upside down."""
    if kind & 1:
        image = image[:, ::-1]
    if kind & 2:
        image = image[::-1]
    return image


class Flip(Pretext):
    """The writing stays horizontal, which is why it suits CTC (paper, section 6.1)."""

    name = "flip"
    classes = len(FLIPS)

    def make(self, line: Cleaned, rng: np.random.Generator) -> tuple[Grey, Target]:
        width = max(MIN_WIDTH, round(self.settings.window_aspect * self.height))
        window = fixed(line, width, self.settings.adaptation, rng)
        kind = int(rng.integers(len(FLIPS)))
        return flip(window, kind), np.array([kind], np.int64)

    def head(self, dim: int) -> nn.Module:
        from htr_ray.pretext.heads import LineHead

        return LineHead(dim, self.classes)

    def caption(self, target: Target) -> str:
        return f"flip {FLIPS[int(target[0])]}"
