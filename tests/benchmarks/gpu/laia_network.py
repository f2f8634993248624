"""PyLaia's own network (``pylaia-htr-create-model`` of PyLaia 1.1 with nothing said but the height) in our harness.

Four 3x3 convolutions of 16, 16, 32 and 32 channels with leaky ReLUs, the first three pooled by two, the columns of what
remains read by three BiLSTM layers of 256 units with half of everything dropped out (Puigcerver, "Are Multidimensional
Recurrent Layers Really Necessary for Handwritten Text Recognition?", ICDAR 2017, made smaller by PyLaia's authors).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.encoder import normalise
from htr_ray.model.recognizer import Recognizer
from htr_ray.train.job import Job

HEIGHT = 128
"""Pixels of a line, as in PyLaia's documentation."""
DROPOUT = 0.5
FRAME = 8
"""Pixels of a line's width per frame."""


class LaiaEncoder(nn.Module):
    """Takes the place of :class:`htr_ray.model.encoder.Encoder` in a recognizer."""

    def __init__(self, height: int = HEIGHT) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, pooled in ((1, 16, True), (16, 16, True), (16, 32, True), (32, 32, False)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU()]
            layers += [nn.MaxPool2d(2)] if pooled else []
        self.conv = nn.Sequential(*layers)
        self.rnn = nn.LSTM(
            32 * (height // FRAME), 256, num_layers=3, dropout=DROPOUT, bidirectional=True, batch_first=True
        )
        self.dim = 512
        """Width of the feature vectors."""

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """As our encoder: uint8 [B, 1, H, W], int [B] on the CPU -> features [B, T, 512], frames int64 [B]."""
        x = self.conv(normalise(images, torch.float32))  # [B, 32, H / 8, W / 8]
        x = x.permute(0, 3, 1, 2).flatten(2)
        frames = (widths.to(torch.int64) // FRAME).clamp(min=1)
        x = functional.dropout(x, DROPOUT, self.training)
        with torch.autocast(x.device.type, enabled=False):  # as htr_ray/model/lstm.py, and why is said there
            packed = pack_padded_sequence(x.float(), frames, batch_first=True, enforce_sorted=False)
            features, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return features, frames


def build(job: Job, alphabet: Alphabet) -> Recognizer:
    """As ``htr_ray.train.finetune.build``, with this network and a CTC decoder."""
    torch.manual_seed(job.seed)
    recognizer = Recognizer(job.model, "ctc", alphabet)
    recognizer.encoder = LaiaEncoder(job.model.height)  # type: ignore[assignment]
    recognizer.dropout = nn.Dropout(DROPOUT)
    assert recognizer.decoder.linear.in_features == recognizer.encoder.dim
    return recognizer
