"""Small models and batches for this folder's tests."""

from __future__ import annotations

from typing import Any

import torch

from htr_ray.config import DecoderName, ModelSettings, TransformerSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.recognizer import Recognizer

ALPHABET = Alphabet("abcdefgh")


def small_settings(**changes: Any) -> ModelSettings:
    values: dict[str, Any] = {
        "height": 32,
        "channels": 32,
        "lstm_hidden": 16,
        "lstm_layers": 2,
        "transformer": TransformerSettings(dim=32, layers=2, heads=4, feedforward=64, label_smoothing=0.0),
    }
    return ModelSettings(**{**values, **changes})


def small_recognizer(decoder: DecoderName, **changes: Any) -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(small_settings(**changes), decoder, ALPHABET)


def lines(widths: list[int], height: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise as images uint8 [B, 1, H, W], white beyond ``widths``."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((len(widths), 1, height, max(widths)), 255, dtype=torch.uint8)
    for image, width in zip(images, widths, strict=True):
        image[:, :, :width] = torch.randint(0, 256, (1, height, width), generator=generator)
    return images, torch.tensor(widths, dtype=torch.int32)


def batch(widths: list[int], texts: list[str], seed: int = 0) -> dict[str, Any]:
    images, width = lines(widths, seed=seed)
    encoded = [torch.tensor(ALPHABET.encode(text), dtype=torch.int64) for text in texts]
    return {
        "images": images,
        "widths": width,
        "targets": torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True),
        "lengths": torch.tensor([len(text) for text in texts]),
        "ids": [str(i) for i in range(len(texts))],
        "texts": texts,
    }
