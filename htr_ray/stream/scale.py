"""Bring lines to the network's height and into one array: what training and reading share."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

MIN_WIDTH = 16  # the network needs at least this many columns for one frame
PAPER = 255  # right padding; the encoder maps it to zero


def scaled_width(width: int, height: int, target: int, width_scale: float = 1.0, max_width: int = 2048) -> int:
    """Width in pixels of a ``height`` x ``width`` line after :func:`scale_line`."""
    return int(min(max(round(width * target / max(height, 1) * width_scale), MIN_WIDTH), max_width))


def scale_line(image: np.ndarray, height: int, width_scale: float = 1.0, max_width: int = 2048) -> np.ndarray:
    """Scale a grey line ``[H, W]`` uint8 to ``[height, W']`` uint8.

    The aspect ratio is kept but for ``width_scale``; lines that would be wider than
    ``max_width`` are squeezed to it. Shrinking averages over areas, so thin strokes survive.
    """
    rows, columns = image.shape
    width = scaled_width(columns, rows, height, width_scale, max_width)
    if (rows, columns) == (height, width):
        return np.ascontiguousarray(image)
    shrinking = height < rows
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def pack(images: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Lines uint8 ``[H, W_i]`` in one array ``[B, 1, H, width]``, with paper on their right."""
    packed = np.full((len(images), 1, images[0].shape[0], width), PAPER, np.uint8)
    for row, image in zip(packed, images, strict=True):
        row[0, :, : image.shape[1]] = image
    return packed
