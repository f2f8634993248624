"""Test lines as they are shown to people: which of them, and what befell each letter."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from rapidfuzz.distance import Levenshtein

from htr_ray.corpus.direction import Direction, direction_of
from htr_ray.report.alignment import align, checked, letters

Reading = Mapping[str, Any]
"""A line of ``readings.json``: id, truth, reading, confidence (0 to 1)."""
Kind = Literal["same", "wrong", "missed", "added"]

_SEED = 0
_FAR, _SURE = 50.0, 0.85
"""CER in percent and confidence of a reading that is far from the truth but sure: mostly the truth of another line."""


@dataclass(frozen=True)
class Part:
    """Neighbouring letters of a line with the same fate."""

    kind: Kind
    truth: str
    reading: str


@dataclass(frozen=True)
class Entry:
    """A test line as it is shown."""

    line: Reading

    @cached_property
    def letters(self) -> list[tuple[str, str]]:
        return letters(align(self.line["truth"], self.line["reading"]))

    @property
    def parts(self) -> list[Part]:
        """Runs of letters that are right, misread, missed or added."""
        found = []
        for kind, run in groupby(self.letters, key=lambda pair: kind_of(*pair)):
            pairs = list(run)
            found.append(Part(kind, "".join(t for t, _ in pairs), "".join(r for _, r in pairs)))
        return found

    @cached_property
    def edits(self) -> int:
        """Edit distance over characters, as the CER counts it."""
        return Levenshtein.distance(self.line["truth"], self.line["reading"])

    @property
    def cer(self) -> float:
        """Percent; of an empty truth, 100 for each character read."""
        return 100.0 * self.edits / max(len(self.line["truth"]), 1)

    @property
    def direction(self) -> Direction:
        return direction_of((self.line["truth"], self.line["reading"]))

    @property
    def facts(self) -> str:
        """CER, edits and confidence in words."""
        length = len(self.line["truth"])
        confidence = self.line.get("confidence")
        edits = f"{self.edits} edit{'s' * (self.edits != 1)} on {length} character{'s' * (length != 1)}"
        told = f"CER {self.cer:.0f} %, {edits}"
        if isinstance(confidence, int | float):
            told += f", confidence {100 * confidence:.0f} %"
        return f"{told}; is the truth right?" if self.doubtful else told

    @property
    def doubtful(self) -> bool:
        """Read as something else, but surely: the transcription may be wrong."""
        confidence = self.line.get("confidence")
        sure = isinstance(confidence, int | float) and confidence >= _SURE
        return bool(sure and self.line["truth"] and self.line["reading"] and self.cer >= _FAR)


def kind_of(truth: str, read: str) -> Kind:
    """What happened to a letter."""
    if truth == read:
        return "same"
    return "missed" if not read else "added" if not truth else "wrong"


def choose(readings: Iterable[Reading], lines: int = 60) -> dict[str, list[Reading]]:
    """The lines of a sheet by heading: worst, best, and a random sample of those between, a third each.

    All of them, worst first, where there are no more than ``lines``. Always the same for the same readings, so that
    only the images of these lines need to be fetched. Raises UserError for a reading without id, truth or text.
    """
    entries = sorted((Entry(line) for line in checked(readings)), key=_badness)
    if len(entries) <= lines:
        return {"All lines, worst first": [entry.line for entry in entries]} if entries else {}
    third = lines // 3
    worst, between, best = entries[: lines - 2 * third], entries[lines - 2 * third : -third or None], []
    if third:
        best = entries[: -third - 1 : -1]
    sample = random.Random(_SEED).sample(between, min(third, len(between)))
    chosen = {"Worst lines": worst, "Best lines": best, "A random sample of the other lines": sample}
    return {heading: [entry.line for entry in found] for heading, found in chosen.items() if found}


def _badness(entry: Entry) -> tuple[float, int, str]:
    """Worst first; among lines without error the shortest, so that the best line is a long one read without error."""
    length = len(entry.line["truth"])
    return -entry.cer, length if not entry.edits else -entry.edits, entry.line["id"]
