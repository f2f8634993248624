"""How the report writes numbers and names."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence

from htr_ray.report.statistics import Interval, Labels

UNKNOWN = "-"


def number(value: float | None, digits: int = 1) -> str:
    """``12.345`` -> ``12.3``; a dash where nothing is known. Never ``-0.0``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{round(value, digits) + 0.0:,.{digits}f}"


def signed(value: float) -> str:
    """``-1.25`` -> ``-1.2``, ``3`` -> ``+3.0``."""
    text = number(value)
    return text if text.startswith("-") or text == "0.0" else f"+{text}"


def count(value: float) -> str:
    """``4709`` -> ``4,709``."""
    return f"{round(value):,}"


def many(value: int, one: str, more: str = "") -> str:
    """``1, "seed"`` -> ``1 seed``; ``2`` -> ``2 seeds``."""
    return f"{value:,} {one if value == 1 else more or one + 's'}"


def interval(ends: Interval | None) -> str:
    return "" if ends is None else f"[{number(ends.low)}, {number(ends.high)}]"


def percent(fraction: float) -> str:
    """A label fraction: ``0.05`` -> ``5 %``."""
    return f"{100 * fraction:g} %"


def labels_of(labels: float | None, fraction: float) -> str:
    """``471, 0.1`` -> ``10 % (471)``."""
    return percent(fraction) if labels is None else f"{percent(fraction)} ({count(labels)})"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def equal_labels(equal: Labels) -> str:
    if equal.kind == "measured":
        return count(equal.labels)
    return f"{equal.kind} than {count(equal.labels)}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def anchor(*parts: object) -> str:
    """An id for links and files, of letters, digits and dashes; unlike parts give unlike ids.

    A part with anything else in it (or with a dash, which parts the parts) costs the id its reading: a few characters
    made of the parts follow.
    """
    names = [str(part) for part in parts]
    text = "-".join(re.sub(r"[^\w]+", "-", name).strip("-") or "x" for name in names)
    if text == "-".join(names) and not any("-" in name for name in names):
        return text
    return f"{text}-{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]}"


def scratch(protocol: str) -> str:
    """What ``none`` is under a protocol."""
    return "with a random, fixed encoder" if protocol == "frozen" else "from scratch"
