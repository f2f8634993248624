"""The machine that this process runs on."""

from __future__ import annotations

import math
import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def cores(group: Path = _GROUP) -> int:
    """CPU cores that this process may use: those that it may run on, or as many as its container has time of."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(group)
    return own if quota is None else max(1, min(own, math.ceil(quota)))


def _quota(group: Path) -> float | None:
    """Cores' worth of time that the container may use (``docker run --cpus``, a pod's limit); None without a bound."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            found = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            continue
        if found > 0:  # version 1 says -1 where there is none
            return found
    return None
