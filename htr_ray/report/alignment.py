"""Where a reading departs from the truth, character by character, and what is mistaken for what."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import regex
from rapidfuzz.distance import Levenshtein

from htr_ray.errors import UserError

Pair = tuple[str, str]
"""Something of the truth and what was read for it; "" on one side: missed, or added."""

NOTHING = "∅"
"""Shown where one side has no character."""
BLANK = "␣"

_GRAPHEME = regex.compile(r"\X")
_EXAMPLES = 5
# Control, format, unassigned, private and surrogate code points, and separators, have no shape of their own.
_SHAPELESS = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs")


@dataclass(frozen=True)
class Confusion:
    """One mistake and how often it was made."""

    expected: str
    """Letter (with its marks) of the truth; "" where the reading has one too many."""
    read: str
    """Letter of the reading; "" where it has none."""
    count: int
    examples: tuple[str, ...]
    """Ids of the first lines that have it."""


def align(truth: str, reading: str) -> list[Pair]:
    """A minimal edit script: pairs of characters (code points), "" for the missing side.

    The left sides spell ``truth``, the right sides ``reading``; unequal pairs are as many as the edit distance,
    on which the CER rests. Where several scripts are equally short, it is the one that rapidfuzz finds.
    """
    pairs: list[Pair] = []
    for step in Levenshtein.opcodes(truth, reading):
        expected, read = truth[step.src_start : step.src_end], reading[step.dest_start : step.dest_end]
        if step.tag == "delete":
            pairs += ((character, "") for character in expected)
        elif step.tag == "insert":
            pairs += (("", character) for character in read)
        else:
            pairs += zip(expected, read, strict=True)
    return pairs


def letters(pairs: Iterable[Pair]) -> list[Pair]:
    """Join the pairs of ``align`` to what a reader sees as letters: marks stay with theirs, on both sides.

    The sides still spell both texts. An unequal pair is a letter that is wrong in some part, so that there may be
    fewer of them than edits.
    """
    pairs = list(pairs)
    starts = tuple(_starts("".join(pair[side] for pair in pairs)) for side in (0, 1))
    joined: list[Pair] = []
    left = right = 0
    for expected, read in pairs:
        if joined and not (left in starts[0] and right in starts[1]):
            joined[-1] = (joined[-1][0] + expected, joined[-1][1] + read)
        else:
            joined.append((expected, read))
        left += len(expected)
        right += len(read)
    return joined


def confusions(readings: Iterable[Mapping[str, Any]], top: int | None = 50) -> list[Confusion]:
    """The ``top`` most frequent mistakes of some readings (all for None), most frequent first.

    ``readings`` are dicts with ``id``, ``truth`` and ``reading`` (``readings.json``). Raises UserError where one
    lacks a field.
    """
    found: dict[Pair, list[str]] = {}
    for line in checked(readings):
        for pair in letters(align(line["truth"], line["reading"])):
            if pair[0] != pair[1]:
                found.setdefault(pair, []).append(str(line["id"]))
    ranked = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Confusion(expected, read, len(ids), tuple(dict.fromkeys(ids))[:_EXAMPLES])
        for (expected, read), ids in ranked[:top]
    ]


def visible(text: str) -> str:
    """A text so that all of it is seen: ∅ for none, ␣ for a blank, U+00AD and the like for what has no shape."""
    if not text:
        return NOTHING
    shown = "".join(_visible(character) for character in text)
    # A mark that stands alone would climb on whatever is written before it.
    return f"◌{shown}" if unicodedata.category(text[0]).startswith("M") else shown


def checked(readings: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The readings as a list; UserError if one has no id, truth or reading."""
    lines = list(readings)
    for number, line in enumerate(lines):
        for field in ("id", "truth", "reading"):
            if not isinstance(line.get(field), str):
                where = f"readings.json: entry {number} has no text in {field!r}"
                raise UserError(f"{where}; delete the trial's folder and run the grid again")
    return lines


def _starts(text: str) -> set[int]:
    return {0} | {match.end() for match in _GRAPHEME.finditer(text)}


def _visible(character: str) -> str:
    if character == " ":
        return BLANK
    return f"U+{ord(character):04X}" if unicodedata.category(character) in _SHAPELESS else character
