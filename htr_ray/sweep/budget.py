"""Limits in hours, GPU hours and money, as a Ray Tune stopper."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Stopper

from htr_ray.config import BudgetSettings


class Budget(Stopper):
    """Ends the whole run when a limit is reached; trials in flight go on from their checkpoints the next time.

    Args:
        settings: the limits.
        gpu_hours: gives the GPU hours that trials have held so far in this run.
        clock: seconds.
    """

    def __init__(
        self, settings: BudgetSettings, gpu_hours: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._gpu_hours, self._clock = settings, gpu_hours, clock
        self._began = clock()
        self.reached: str | None = None
        """Which limit, once it is reached."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for Tuner.restore(), which is not used: see GridCallback

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self.reached is None:
            self.reached = self._check()
        return self.reached is not None

    def _check(self) -> str | None:
        limits = self._settings
        if limits.max_hours is not None and (self._clock() - self._began) / 3600.0 >= limits.max_hours:
            return f"budget.max_hours = {limits.max_hours:g}"
        if limits.max_gpu_hours is None and limits.max_cost is None:
            return None
        hours = self._gpu_hours()
        if limits.max_gpu_hours is not None and hours >= limits.max_gpu_hours:
            return f"budget.max_gpu_hours = {limits.max_gpu_hours:g}"
        cost = hours * (limits.gpu_hour_price or 0.0)
        if limits.max_cost is not None and cost >= limits.max_cost:
            return f"budget.max_cost = {limits.max_cost:g}"
        return None
