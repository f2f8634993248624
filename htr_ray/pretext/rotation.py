"""Rotation: by how many quarter turns was the window turned? (Gidaris et al. 2018; paper, section 3.2.1)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from htr_ray.pretext.adapt import fixed
from htr_ray.pretext.base import Pretext, Target
from htr_ray.pretext.guard import Cleaned, frame
from htr_ray.stream.augment import Grey

if TYPE_CHECKING:
    from torch import nn


def turn(image: Grey, quarter_turns: int) -> Grey:
    """Turn counter-clockwise; moves pixels and makes none, so it leaves no trace of interpolation."""
    return np.rot90(image, quarter_turns)


class Rotation(Pretext):
    """0, 90, 180 or 270 degrees counter-clockwise, of a square, whose shape tells nothing."""

    name = "rotation"
    classes = 4

    def make(self, line: Cleaned, rng: np.random.Generator) -> tuple[Grey, Target]:
        square = fixed(line, self.height, self.settings.adaptation, rng)
        # Strokes cut at the left and right edge, but not above and below, would tell half the answer.
        square = frame(square, line.paper, 0.12, rng)
        quarter_turns = int(rng.integers(4))
        return turn(square, quarter_turns), np.array([quarter_turns], np.int64)

    def head(self, dim: int) -> nn.Module:
        from htr_ray.pretext.heads import LineHead

        return LineHead(dim, self.classes)

    def caption(self, target: Target) -> str:
        return f"turned {90 * int(target[0])} degrees counter-clockwise"
