"""Right-to-left text: from the order in which it is stored to the order in which it stands on the paper, and back.

Text is stored, compared and counted in logical order: as it is read aloud. A line image is read from left to
right, and CTC knows no other order, so what a decoder learns of a right-to-left corpus is the visual order:
Hebrew and Arabic run backwards, the numbers and Latin words between them forwards.

Unicode's bidirectional algorithm (UAX #9) gives the visual order, but several texts look the same in it: in a
Hebrew line "12 ab" and "ab 12" are both drawn "ab 12". A reading could not be turned back for certain.
:func:`reorder` therefore follows the algorithm's rules for numbers, separators and Latin words only as far as
they look the same from both sides. That makes it its own inverse, for every text. It differs from UAX #9 where

- a number stands before a Latin word ("12 km"): both stay one left-to-right phrase, in either order;
- a Latin phrase has a bracket inside and its partner at an edge: "(ab) cd" stays one phrase, as "ab (cd)" does;
- a line has Latin letters and no others: it is left as it is, also in a right-to-left corpus;
- text has invisible directional controls: embeddings and isolates have no effect, marks (U+200E, U+200F) have.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal

Direction = Literal["ltr", "rtl"]

_PAIRS = tuple(zip("([{<«‹⟨⁅", ")]}>»›⟩⁆", strict=True))
MIRRORED = {**dict(_PAIRS), **{right: left for left, right in _PAIRS}}
"""Characters that are drawn the other way round in right-to-left text, and what they then look like."""

# One letter for each bidirectional class that matters: A Arabic letter, R other right-to-left letter, L
# left-to-right letter, N and n European and Arabic digit, and what may stand in or at a number: c common
# separator (12.5, 3/4), e sign (1914-18), t unit (50%); o is the rest and m a mark on the letter before it.
_CLASSES = {"AL": "A", "R": "R", "L": "L", "EN": "N", "AN": "n", "CS": "c", "ES": "e", "ET": "t"}
_JOINERS = "\u200c\u200d"
# Signs and units belong to European digits only; after Arabic letters those count as Arabic ones (UAX #9, W2).
_ARABIC = str.maketrans("Anet", "RNoo")
_SEGMENT = re.compile("[^R]+")
_NUMBER = re.compile("t*N[Nt]*(?:[ce]t*N[Nt]*)*")
_PHRASE = re.compile("[LN](?:.*[LN])?")


def reorder(text: str, mirrored: Mapping[str, str] = MIRRORED) -> str:
    """Logical to visual order of a line of a right-to-left corpus, or back: its own inverse for any ``text``.

    Combining marks stay behind their letter. ``mirrored`` are the brackets to swap, in pairs.
    """
    return "".join(piece for _, piece in _pieces(text, mirrored))


def order(text: str, mirrored: Mapping[str, str] = MIRRORED) -> list[int]:
    """For each character of ``reorder(text, mirrored)``, its position in ``text``."""
    return [i for start, piece in _pieces(text, mirrored) for i in range(start, start + len(piece))]


def _pieces(text: str, mirrored: Mapping[str, str]) -> list[tuple[int, str]]:
    """Letters with their marks in the other order: where each starts in ``text``, and what becomes of it."""
    head, clusters, starts, kinds = "", [], [], ""
    for i, character in enumerate(text):
        kind = _kind(character)
        if kind != "m":
            clusters.append(character)
            starts.append(i)
            kinds += kind
        elif clusters:
            clusters[-1] += character
        else:  # a mark without a letter has no other place to stand
            head += character
    if "A" in kinds or "n" in kinds:
        kinds = kinds.translate(_ARABIC)
    if "L" in kinds and "R" not in kinds:
        return [(0, text)]
    out = [(0, head)]
    end = len(clusters)
    for start, stop in [*reversed(_forwards(kinds, clusters, mirrored)), (0, 0)]:
        out += ((starts[i], mirrored.get(clusters[i], clusters[i])) for i in range(end - 1, stop - 1, -1))
        out += zip(starts[start:stop], clusters[start:stop], strict=True)
        end = start
    return out


def direction_of(texts: Iterable[str]) -> Direction:
    """Direction in which most letters of ``texts`` run; "ltr" if there are none."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    return direction_of_counts(characters)


def direction_of_counts(characters: Mapping[str, int]) -> Direction:
    """As :func:`direction_of`, of how often each character occurs."""
    kinds: Counter[str] = Counter()
    for character, count in characters.items():
        kinds[_kind(character)] += count
    return "rtl" if kinds["R"] + kinds["A"] > kinds["L"] else "ltr"


def _forwards(kinds: str, clusters: list[str], mirrored: Mapping[str, str]) -> list[tuple[int, int]]:
    """Where the line runs from left to right: a Latin phrase from end to end, numbers elsewhere one by one.

    Seen from the other end the same clusters are found, which is what makes ``reorder`` its own inverse.
    """
    spans = []
    for segment in _SEGMENT.finditer(kinds):
        if "L" in segment[0]:
            spans.append(_phrase(kinds, clusters, mirrored, *segment.span()))
        else:
            spans += [number.span() for number in _NUMBER.finditer(kinds, *segment.span())]
    return spans


def _phrase(kinds: str, clusters: list[str], mirrored: Mapping[str, str], first: int, end: int) -> tuple[int, int]:
    """Where a Latin phrase starts and stops between two right-to-left letters.

    It goes from the first Latin letter or digit to the last; on either side up to the outermost partner of a
    bracket that is single inside of it; and over the units (%, $) right beside.
    """
    core = _PHRASE.search(kinds, first, end)
    assert core is not None
    start, stop = core.span()
    inside = clusters[start:stop]
    before, behind = range(first, start), range(stop, end)
    for left, right in _PAIRS:
        if left in mirrored and inside.count(left) != inside.count(right):
            start = min((i for i in before if clusters[i] == left), default=start)
            stop = max((i + 1 for i in behind if clusters[i] == right), default=stop)
    while start > first and kinds[start - 1] == "t":
        start -= 1
    while stop < end and kinds[stop] == "t":
        stop += 1
    return start, stop


@cache
def _kind(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character).startswith("M"):
        return "m"
    return _CLASSES.get(unicodedata.bidirectional(character), "o")
