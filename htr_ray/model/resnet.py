"""The ResNet for text recognition (29 layers in the paper): image -> one feature vector per column of frames.

The network of Cheng et al., "Focusing Attention" (ICCV 2017, table 1), as the field knows it from
Baek et al., "What Is Wrong With Scene Text Recognition Model Comparisons?" (ICCV 2019, appendix).
Of its three poolings the first two halve height and width, the third halves the height alone; so
does the first of the two closing 2x2 convolutions. A frame is four pixels wide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAME_WIDTH = 4
"""Pixels of the image's width per frame."""


class Columns:
    """Which columns of the feature maps belong to lines and which are padding.

    A line must be read the same whatever lines share its batch, so the columns beyond its end
    are kept at zero after every layer, where a line alone would have the convolution's border.
    """

    def __init__(self, widths: Tensor, width: int, shortest: int) -> None:
        """``widths`` [B] int: valid columns of each line, ``shortest`` their least; ``width``: of the map."""
        # A compiler puts the mask into the kernels before and after, where it costs nothing, and does not look at
        # ``shortest``: it would make other kernels for every value.
        shortest = 0 if torch.compiler.is_compiling() else shortest
        self.widths, self.width, self.shortest = widths, width, shortest
        self.start = min(width, shortest)
        beyond = torch.arange(self.start, width, device=widths.device)
        self.mask = (beyond < widths[:, None]).view(len(widths), 1, 1, -1)

    def halved(self) -> Columns:
        return Columns(self.widths // 2, self.width // 2, self.shortest // 2)

    def widened(self, by: int) -> Columns:
        return Columns(self.widths + by, self.width + by, self.shortest + by)

    def clear(self, x: Tensor) -> Tensor:
        """``x`` [B, C, H, width], changed in place: zero beyond each line's end."""
        if torch.compiler.is_compiling():
            return x * self.mask
        if self.start == self.width:
            return x
        cleared: Tensor = _Clear.apply(x, self.start, self.mask)
        return cleared


class _Clear(torch.autograd.Function):
    """Lines of like width share a batch, so only a narrow strip on the right is padding:
    ``x * mask`` would read and write the whole of every feature map for it."""

    @staticmethod
    def forward(ctx, x: Tensor, start: int, mask: Tensor) -> Tensor:
        ctx.start = start
        ctx.save_for_backward(mask)
        x[..., start:] *= mask
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        # In place: the backward of what follows (ReLU, convolution) has just made this tensor, for us alone.
        gradient[..., ctx.start :] *= mask
        return gradient, None, None


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, columns: Columns) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', columns.width]."""
        return functional.relu(columns.clear(self.norm(self.conv(x))), inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the way around them (He et al., CVPR 2016, figure 5 left)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(inputs, outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor, columns: Columns) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        y = self.norm(self.conv(self.first(x, columns)))
        y += self.shortcut(x)  # in place: neither convolution nor normalisation wants its output again
        return functional.relu(columns.clear(y), inplace=True)


class ResNet(nn.Module):
    """``channels`` is the width of the last two stages (paper: 512), ``blocks`` the residual blocks of each of the
    four (paper: 1-2-5-3, which are 29 layers with the seven convolutions between them)."""

    def __init__(self, channels: int, blocks: Sequence[int] = (1, 2, 5, 3), image_channels: int = 1) -> None:
        super().__init__()
        self.dim = channels
        c = channels
        self.stem = nn.ModuleList([ConvNormReLU(image_channels, c // 16), ConvNormReLU(c // 16, c // 8)])
        self.stage1 = self._stage(c // 8, c // 4, blocks[0])
        self.stage2 = self._stage(c // 4, c // 2, blocks[1])
        self.stage3 = self._stage(c // 2, c, blocks[2])
        # The last stage ends in the closing convolutions, not in a 3x3 one.
        self.stage4 = nn.ModuleList(BasicBlock(c, c) for _ in range(blocks[3]))
        self.close1 = ConvNormReLU(c, c, kernel=2, stride=(2, 1), padding=(0, 1))
        self.close2 = ConvNormReLU(c, c, kernel=2, padding=0)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                # Every block starts as the way around it (Goyal et al. 2017, section 5.1): 29 layers learn
                # from the first lines on. dhsd, three CPU minutes: validation CER 27.6 instead of 44.8 %.
                nn.init.zeros_(module.norm.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int) -> nn.ModuleList:
        stage = [BasicBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
        return nn.ModuleList([*stage, ConvNormReLU(outputs, outputs)])

    def forward(self, images: Tensor, widths: Tensor, shortest: int) -> Tensor:
        """``images`` float [B, image_channels, H >= 16, W >= 4], zero beyond ``widths`` (int64 [B], >= 4; the least of
        them is ``shortest``) -> [B, channels, H', T], zero beyond each line's frames.

        H' is H // 16 - 1 (1 below 32 pixels), T is ``frames_of(W)``.
        """
        columns = Columns(widths, images.shape[3], shortest)
        x = images
        for layer in self.stem:
            x = layer(x, columns)
        for stage in (self.stage1, self.stage2):
            columns = columns.halved()
            x = columns.clear(_halve(x))
            for layer in stage:
                x = layer(x, columns)
        # Stride 1 with one column of padding on either side: the map grows by a column.
        x, columns = functional.max_pool2d(x, 2, stride=(2, 1), padding=(0, 1)), columns.widened(1)
        for layer in (*self.stage3, *self.stage4):
            x = layer(x, columns)
        columns = columns.widened(1)
        x = self.close1(x, columns)
        if x.shape[2] == 1:  # images below 32 pixels: the last kernel is two rows high
            x = functional.pad(x, (0, 0, 0, 1))
        closed: Tensor = self.close2(x, columns.widened(-1))
        return closed


def _halve(x: Tensor) -> Tensor:
    """2x2 max pooling: [B, C, H, W] -> [B, C, H // 2, W // 2].

    On CPUs torch's own also writes down where each maximum was, and is slow with few channels: a sixth of the time to
    read a line in bfloat16. Only a gradient needs those places (and with one, torch's own is as fast as any).
    """
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return functional.max_pool2d(x, 2)
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, :height:2, :width], x[:, :, 1:height:2, :width])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def frames_of(width: int | Tensor) -> int | Tensor:
    """Frames (T) that the network makes of a line of ``width`` pixels (int, or an int tensor)."""
    if isinstance(width, Tensor):
        return width.clamp(min=FRAME_WIDTH) // FRAME_WIDTH + 1
    return max(width, FRAME_WIDTH) // FRAME_WIDTH + 1
