"""Batch normalisation folded into the convolutions before it: half the passes over the feature maps when reading."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


class Folded(nn.Identity):
    """Where a batch normalisation was that is folded now."""


def is_folded(module: nn.Module) -> bool:
    """Whether :func:`fold` was there: the weights are no longer those that a file holds."""
    return any(isinstance(part, Folded) for part in module.modules())


def fold(module: Module) -> Module:
    """Make ``module``, in eval mode, faster to read with, and return it: the same up to rounding.

    In eval mode a batch normalisation is a factor and an offset for each channel, which the weights of the
    convolution take up. It is folded wherever it is named ``norm`` beside a ``conv``, or follows a convolution in a
    ``Sequential``; any other stays. What is folded cannot be trained or saved.
    """
    for part in list(module.modules()):
        if isinstance(part, nn.Sequential):
            names = list(part._modules)
            for first, second in zip(names, names[1:], strict=False):
                _fold_pair(part, first, second)
        else:
            _fold_pair(part, "conv", "norm")
    return module


def _fold_pair(part: nn.Module, conv: str, norm: str) -> None:
    first, second = getattr(part, conv, None), getattr(part, norm, None)
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
        setattr(part, conv, fuse_conv_bn_eval(first, second))
        setattr(part, norm, Folded())
