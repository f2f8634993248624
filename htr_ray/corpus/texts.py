"""Figures of many texts at once: lengths, repeated characters, how often each character occurs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BATCH_LINES = 16_384


@dataclass(frozen=True)
class TextFigures:
    """What ``measure`` found in n texts."""

    lengths: np.ndarray
    """Characters (code points), int64 [n]; 0 where there is no text."""
    repeats: np.ndarray
    """Characters equal to the one before, int64 [n]."""
    characters: Counter[str]


def measure(texts: pa.ChunkedArray) -> TextFigures:
    """Measure a column of strings, some thousand lines at a time: a million texts never become Python's."""
    lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
    repeats: list[np.ndarray] = [np.zeros(0, np.int64)]
    characters: Counter[str] = Counter()
    for start in range(0, len(texts), _BATCH_LINES):
        batch = pc.fill_null(texts.slice(start, _BATCH_LINES).combine_chunks(), "")
        length = pc.utf8_length(batch).to_numpy(zero_copy_only=False).astype(np.int64)
        points = _code_points(batch)
        ends = np.cumsum(length)
        repeated = np.zeros(len(points) + 1, bool)
        repeated[1:-1] = points[1:] == points[:-1]
        repeated[ends] = False  # what follows is the first character of the next text
        until = np.concatenate([[0], np.cumsum(repeated)])
        lengths.append(length)
        repeats.append(until[ends] - until[ends - length])
        counts = np.bincount(points)
        for point in np.flatnonzero(counts).tolist():
            characters[chr(point)] += int(counts[point])
    return TextFigures(np.concatenate(lengths), np.concatenate(repeats), characters)


def _code_points(texts: pa.StringArray) -> np.ndarray:
    """All characters of all texts, one after the other: uint32."""
    joined = pc.binary_join(pa.ListArray.from_arrays([0, len(texts)], texts), "")[0].as_py()
    return np.frombuffer(joined.encode("utf-32-le"), np.uint32)
