"""What a network costs: parameters and floating-point operations, for the tables of the report."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from htr_ray.config import ModelSettings
from htr_ray.model.encoder import Encoder
from htr_ray.model.recognizer import make_decoder

Part = Literal["convolution", "encoder", "ctc", "transformer"]


class Cost(NamedTuple):
    """Of one line."""

    parameters: int
    gflops: float
    """10^9 operations, a multiply-add being two."""


def cost(settings: ModelSettings, part: Part, height: int, width: int, *, classes: int = 100, length: int = 10) -> Cost:
    """Cost of one forward pass of a line of ``height`` x ``width`` pixels.

    ``part``: ``convolution`` (the ResNet alone), ``encoder``, or a decoder's name for the encoder
    with that decoder. A decoder has ``classes`` classes; the transformer is counted with teacher
    forcing over ``length`` characters. Counted on torch's ``meta`` device: nothing is computed.
    """
    widths = torch.tensor([width])
    with torch.device("meta"):
        encoder = Encoder(settings)
        images = torch.empty(1, 1, height, width)
        decoder: Any = nn.Identity()
        if part in ("ctc", "transformer"):
            decoder = make_decoder(settings, part, encoder.dim, classes)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = encoder.resnet(images, widths, width)
        if part != "convolution":
            frames = encoder.frames_of(widths).to("meta")
            features = encoder.lstm(maps.mean(dim=2).transpose(1, 2), frames)
            if part == "ctc":
                decoder.log_probs(features)
            elif part == "transformer":
                decoder.logits(features, frames, frames.new_empty(1, length))
    counted: tuple[nn.Module, ...] = (encoder.resnet,) if part == "convolution" else (encoder, decoder)
    parameters = sum(p.numel() for module in counted for p in module.parameters())
    return Cost(parameters, counter.get_total_flops() / 1e9)
