"""Amounts in words, as the plan, the live board and the summary say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``3 s``, ``12 min``, ``5.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def many(count: int, noun: str) -> str:
    """``1 cell``, ``12 cells``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def amount(value: float) -> str:
    """CPUs or GPUs: ``4``, ``0.25``; without the last digits of sums."""
    return f"{round(value, 2) + 0.0:g}"
