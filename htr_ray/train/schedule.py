"""Learning rate over the progress of a stage, and the clock that says how far it has come."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from htr_ray.config import StageSettings


def rate(progress: float, *, warmup: float, final: float) -> float:
    """Share of the peak rate at ``progress`` in [0, 1]: linear warm-up, then cosine decay to ``final``."""
    if warmup > 0 and progress < warmup:
        # Never zero: the first step would be lost.
        return max(progress / warmup, 0.01)
    position = min(1.0, (progress - warmup) / max(1.0 - warmup, 1e-9))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * position))


@dataclass
class Clock:
    """Progress by epochs or by wall clock, whichever is further; survives a resume.

    spent: seconds that earlier attempts of the same trial have trained already.
    """

    settings: StageSettings
    spent: float = 0.0

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self._start

    def progress(self, epochs: float) -> float:
        """How much of the stage is done after ``epochs`` (fractional) epochs, in [0, 1]."""
        done = epochs / self.settings.max_epochs
        if self.settings.max_minutes is not None:
            done = max(done, self.seconds / (60.0 * self.settings.max_minutes))
        return min(done, 1.0)
