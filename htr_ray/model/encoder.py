"""Encoder: line image -> sequence of feature vectors (ResNet, then BiLSTM). What pre-training teaches."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from htr_ray.config import ModelSettings
from htr_ray.model import resnet
from htr_ray.model.lstm import BiLSTM
from htr_ray.model.resnet import FRAME_WIDTH, Columns, ResNet


class Encoder(nn.Module):
    """ResNet, the remaining height averaged away, then ``lstm_layers`` of BiLSTM."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.resnet = ResNet(settings.channels, settings.blocks)
        self.lstm = BiLSTM(settings.channels, settings.lstm_hidden, settings.lstm_layers, settings.lstm_skip)
        self.dim = self.lstm.dim
        """Width of the feature vectors."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @overload
    def frames_of(self, width: int) -> int: ...
    @overload
    def frames_of(self, width: Tensor) -> Tensor: ...
    def frames_of(self, width):
        """Frames that a line of ``width`` pixels becomes (int, or an int tensor of any shape); at least 2."""
        return resnet.frames_of(width)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch of lines.

        ``images``: uint8 [B, 1, H, W], dark ink on light paper, padded on the right; or floating
        point, already normalised to 1 for ink and 0 for paper. H >= 16; any height works, because
        what remains of it is averaged. ``widths``: int [B], valid pixels of each line; on the CPU,
        or wherever, but then a GPU is waited for.

        Returns ``(features [B, T, dim], frames int64 [B])``; features are zero beyond ``frames``,
        which lie where ``widths`` do. A line's features do not depend on the lines that share its
        batch (in eval mode).
        """
        x = normalise(images, self.resnet.close1.conv.weight.dtype)
        frames = self.frames_of(widths.to(torch.int64))
        shortest = int(widths.min())
        widths = widths.to(x.device, torch.int64, non_blocking=True)
        x = Columns(widths, x.shape[3], shortest).clear(x)
        if x.shape[3] < FRAME_WIDTH:
            x = functional.pad(x, (0, FRAME_WIDTH - x.shape[3]))
        # A line narrower than a frame still fills one.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.resnet(x, widths.clamp(min=FRAME_WIDTH), max(shortest, FRAME_WIDTH))
        return self.lstm(x.mean(dim=2).transpose(1, 2), frames), frames


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (255 is paper) -> (255 - x) / 255 in autocast's dtype, or ``dtype`` without autocast."""
    device = images.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if images.dtype == torch.uint8:
        # All of 0..255 is exact in bfloat16, so the conversion comes before the division.
        return (255 - images).to(dtype) / 255
    return images.to(dtype, copy=True)  # a copy, since padding is cleared in place
