"""How many frames a line will have after the encoder, and whether its text fits into them."""

from __future__ import annotations

import numpy as np

from htr_ray.config import ModelSettings

# The rules of stream/scale.py and model/resnet.py, said again because a corpus imports neither: a test holds
# the two together.
_MIN_WIDTH = 16
_FRAME_WIDTH = 4


def frames(widths: np.ndarray, heights: np.ndarray, settings: ModelSettings) -> np.ndarray:
    """Frames int64 [n] that the encoder makes of lines of ``widths`` x ``heights`` pixels (int [n] each)."""
    scaled = np.rint(widths * settings.height / np.maximum(heights, 1) * settings.width_scale)
    scaled = np.clip(scaled, _MIN_WIDTH, settings.max_width).astype(np.int64)
    return scaled // _FRAME_WIDTH + 1


def too_long_for_ctc(available: np.ndarray, lengths: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Lines that CTC cannot learn: bool [n].

    ``available`` frames, ``lengths`` characters and ``repeats`` characters equal to the one before, int [n]
    each. A character takes a frame, and a repeated one another, for the blank between the two.
    """
    return lengths + repeats > available
