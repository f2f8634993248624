"""Character, grapheme and word error rates: edit distance over reference length, micro-averaged, in percent."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import editdistance
import regex

_GRAPHEME = regex.compile(r"\X")


@dataclass
class ErrorCount:
    """Edits and reference lengths, summed over lines (and, in DDP, over workers)."""

    character_edits: int = 0
    characters: int = 0
    word_edits: int = 0
    words: int = 0
    lines: int = 0

    def add(self, truth: str, reading: str) -> int:
        """Count one line; returns its character edits."""
        edits = editdistance.eval(truth, reading)
        self.character_edits += edits
        self.characters += len(truth)
        self.word_edits += editdistance.eval(truth.split(), reading.split())
        self.words += len(truth.split())
        self.lines += 1
        return edits

    def as_list(self) -> list[int]:
        return [self.character_edits, self.characters, self.word_edits, self.words, self.lines]

    @property
    def cer(self) -> float:
        """Character error rate in percent; against no characters, 100 for each that was read."""
        return 100.0 * self.character_edits / max(self.characters, 1)

    @property
    def wer(self) -> float:
        """Word error rate in percent; against no words, 100 for each that was read."""
        return 100.0 * self.word_edits / max(self.words, 1)


def count_errors(pairs: Iterable[tuple[str, str]]) -> ErrorCount:
    """Errors of (truth, reading) pairs."""
    count = ErrorCount()
    for truth, reading in pairs:
        count.add(truth, reading)
    return count


def grapheme_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """Error rate of (truth, reading) pairs over what a reader sees as one letter, in percent.

    A letter with all its marks (an extended grapheme cluster) is right or wrong as a whole. The CER counts code
    points, so that a wrong accent costs more or less by the Unicode normal form of the corpus; here it does not.
    """
    edits = length = 0
    for truth, reading in pairs:
        expected = _graphemes(truth)
        edits += editdistance.eval(expected, _graphemes(reading))
        length += len(expected)
    return 100.0 * edits / max(length, 1)


def _graphemes(text: str) -> list[str]:
    return _GRAPHEME.findall(unicodedata.normalize("NFC", text))
