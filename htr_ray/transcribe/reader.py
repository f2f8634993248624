"""The recognizer at work: lines in, readings out, batched by width."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import torch

from htr_ray.config import TranscribeSettings
from htr_ray.model.language import LanguageModel
from htr_ray.model.recognizer import Reading
from htr_ray.stream.batch import padded_width
from htr_ray.stream.scale import pack
from htr_ray.train.worker import autocast_dtype, local_device
from htr_ray.transcribe.lines import Chunk, Line
from htr_ray.transcribe.model import Bundle

_GPU_BATCH = 64
_CPU_PIXELS = 1 << 18
"""Of a batch on CPUs, padding included: 64 lines of 32 x 128. Fewer pay more for each step of a BiLSTM and of a beam
search; of more, the feature maps leave the caches."""
NO_MEMORY = "not enough memory to read it"


class Reader:
    """A recognizer in this process, on the GPU if it has one."""

    def __init__(
        self, bundle: Bundle, settings: TranscribeSettings, language: LanguageModel | None = None, side_by_side: int = 1
    ) -> None:
        """``side_by_side``: batches that are read at a time, each by a thread of its own; on CPUs only."""
        device = local_device()
        self._side_by_side = side_by_side if device.type == "cpu" else 1
        self._recognizer = bundle.load(device)
        self._device = device
        self._batch = settings.batch_size or (_GPU_BATCH if device.type == "cuda" else None)
        self._beam, self._language = settings.beam, language
        self._dtype = autocast_dtype(settings.precision, device)

    def read(self, chunk: Chunk) -> Chunk:
        """Put a reading into every line that has an image, and take the image out."""
        lines = sorted((line for line in chunk.lines if line.image is not None), key=_width)
        batches = list(self._batches(lines))
        if self._side_by_side == 1:
            for batch in batches:
                self._read(batch)
        else:
            with ThreadPoolExecutor(self._side_by_side) as pool:
                # The widest first: no thread is left alone with it at the end.
                list(pool.map(self._read, reversed(batches)))
        return chunk

    def _batches(self, lines: list[Line]) -> Iterator[list[Line]]:
        """Cut lines, sorted by width, into batches; none is left without one of those that are read side by side."""
        most = self._batch or max(1, -(-len(lines) // self._side_by_side))
        batch: list[Line] = []
        for line in lines:
            assert line.image is not None
            height, width = line.image.shape
            too_large = self._batch is None and (len(batch) + 1) * height * padded_width(width) > _CPU_PIXELS
            if batch and (too_large or len(batch) == most):
                yield batch
                batch = []
            batch.append(line)
        if batch:
            yield batch

    def _read(self, lines: list[Line]) -> None:
        images, widths = _pack([line.image for line in lines if line.image is not None])
        found = None
        # What comes next is not for the handler: until it is left, the error holds the feature maps that were too many.
        with suppress(torch.OutOfMemoryError):
            found = self._readings(images, widths)
        if found is not None:
            for line, reading in zip(lines, found, strict=True):
                line.reading, line.image = reading, None
        elif len(lines) > 1:
            torch.cuda.empty_cache()
            half = len(lines) // 2
            self._read(lines[:half])
            self._read(lines[half:])
        else:
            lines[0].reason, lines[0].detail = NO_MEMORY, f"{images.shape[-1]} pixels wide"
            lines[0].image = None

    def _readings(self, images: np.ndarray, widths: np.ndarray) -> list[Reading]:
        device = self._device
        with (
            torch.inference_mode(),
            torch.autocast(device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None),
        ):
            return self._recognizer.read(
                torch.from_numpy(images).to(device), torch.from_numpy(widths), self._beam, self._language
            )


def _width(line: Line) -> int:
    assert line.image is not None
    return line.image.shape[1]


def _pack(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lines ``uint8 [H, W_i]`` -> images ``uint8 [B, 1, H, W]``, paper on the right, and widths ``int32 [B]``."""
    widths = np.array([image.shape[1] for image in images], np.int32)
    return pack(images, padded_width(int(widths.max()))), widths
