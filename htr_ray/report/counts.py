"""Errors line by line, of all trials of a corpus, on the test lines that they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from htr_ray.train.metrics import ErrorCount

Ints = npt.NDArray[np.int64]
_MOST = 0.9  # a trial that read less of the others' lines is left out, rather than these lines

Place = tuple[str, str]
"""Id and truth: a line whose truth was corrected between two trials is not the same line."""


@dataclass(frozen=True)
class Counts:
    """What every trial got wrong. All arrays are [lines], in one order."""

    ids: list[str]
    characters: Ints
    words: Ints
    character_edits: dict[str, Ints]
    """By the trial's key."""
    word_edits: dict[str, Ints]
    writers: list[str] | None
    """One per line; None unless all are known."""
    left_out_trials: list[str]
    """Keys of trials that read other lines than most."""
    left_out_lines: int
    """Lines that some of the others did not read."""


def count(readings: Mapping[str, Sequence[Mapping[str, Any]]], writers: Mapping[str, str]) -> Counts | None:
    """Count the errors of ``readings`` (by the trial's key); ``writers`` by line id.

    None where no two trials could be compared line by line because there are no lines.
    """
    tables = {key: {(r["id"], r["truth"]): r["reading"] for r in lines} for key, lines in readings.items()}
    shared, left_out, dropped = _shared({key: table.keys() for key, table in tables.items()})
    if not shared:
        return None
    order = sorted(shared)
    truths = [ErrorCount() for _ in order]
    for truth, (_, text) in zip(truths, order, strict=True):
        truth.add(text, "")
    edits: dict[str, Ints] = {}
    word_edits: dict[str, Ints] = {}
    for key, table in tables.items():
        if key not in left_out:
            found = [_errors(text, table[line_id, text]) for line_id, text in order]
            edits[key], word_edits[key] = np.array(found, np.int64).T
    known = [writers.get(line_id) for line_id, _ in order]
    return Counts(
        ids=[line_id for line_id, _ in order],
        characters=np.array([truth.characters for truth in truths], np.int64),
        words=np.array([truth.words for truth in truths], np.int64),
        character_edits=edits,
        word_edits=word_edits,
        writers=[str(name) for name in known] if all(name is not None for name in known) else None,
        left_out_trials=left_out,
        left_out_lines=dropped,
    )


def _errors(truth: str, reading: str) -> tuple[int, int]:
    errors = ErrorCount()
    errors.add(truth, reading)
    return errors.character_edits, errors.word_edits


def _shared(places: Mapping[str, Iterable[Place]]) -> tuple[set[Place], list[str], int]:
    """Lines in common, the trials left out for it, and how many lines most trials have beyond these."""
    sets = {key: frozenset(lines) for key, lines in places.items()}
    ranked = Counter(lines for lines in sets.values() if lines).most_common()
    if not ranked:
        return set(), list(sets), 0
    # Of equally many trials, those that read more.
    most = max(ranked, key=lambda item: (item[1], len(item[0])))[0]
    left_out = [key for key, lines in sets.items() if len(lines & most) < _MOST * len(most)]
    shared = set(most)
    for key, lines in sets.items():
        if key not in left_out:
            shared &= lines
    return shared, left_out, len(most) - len(shared)
