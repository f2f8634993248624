"""Heads of the pretext tasks: from the encoder's frames to classes.

All take features ``[B, T, D]`` with ``frames [B]`` of them valid, the rest padding, and
return logits ``[B, K, C]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pool_segments(features: Tensor, frames: Tensor, segments: int) -> Tensor:
    """Mean of each of ``segments`` equal stretches of the valid frames.

    ``[B, T, D]``, ``[B]`` -> ``[B, segments, D]``. Frames on a border count in part on both
    sides, so fewer frames than segments are fine. Padding never counts.
    """
    # float32: a border of bfloat16 positions would round to whole frames beyond 256.
    length = frames.to(device=features.device, dtype=torch.float32, non_blocking=True).clamp(min=1)[:, None, None]
    share = torch.arange(segments + 1, device=features.device, dtype=torch.float32) / segments
    edge = share[None, :, None] * length
    time = torch.arange(features.shape[1], device=features.device, dtype=torch.float32)[None, None, :]
    overlap = (torch.minimum(edge[:, 1:], time + 1) - torch.maximum(edge[:, :-1], time)).clamp(min=0)
    weights = overlap * (segments / length)
    return torch.bmm(weights.to(features.dtype), features)


class LineHead(nn.Module):
    """One answer per line: mean over its frames, then a linear classifier."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(dim, classes)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        return self.classify(pool_segments(features, frames, 1))


class GridHead(nn.Module):
    """One answer per line from the *arrangement* of its columns: their means side by side, an MLP."""

    def __init__(self, dim: int, columns: int, classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.columns = columns
        self.classify = nn.Sequential(nn.Linear(dim * columns, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        return self.classify(pool_segments(features, frames, self.columns).flatten(1))[:, None]


class PieceHead(nn.Module):
    """One answer per piece: the mean of its frames, then one linear classifier for all pieces.

    The pieces know of each other through the encoder's BiLSTM alone (paper, section 3.2.2).
    """

    def __init__(self, dim: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.classify = nn.Linear(dim, pieces)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        return self.classify(pool_segments(features, frames, self.pieces))
