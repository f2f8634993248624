"""A list of words: what is on it is read more readily than what is not."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import regex

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.direction import Direction
from htr_ray.errors import UserError

WEIGHT, BONUS, PENALTY = 1.0, 0.0, 5.0
"""The penalty is the best on validation lines: tests/benchmarks/results/reading.md."""
_WORD = regex.compile(r"[\p{L}\p{M}'’׳״\u200c\u200d]+")


class WordList:
    """A ``LanguageModel``: a word that is not on the list costs ``penalty`` once, where it leaves the list.

    That is a penalty and no ban, and not a probability: words of the list are equals, and cost nothing. Words are
    made of letters, marks and apostrophes; everything else (digits, punctuation, spaces) parts them and is free.
    Listed in lower case, a word may also be written with a capital or in capitals. A state is the beginning of the
    word so far, None once it has left the list. The list is sorted, which makes it a prefix tree: the words
    with a common beginning stand side by side.
    """

    def __init__(
        self,
        words: Iterable[str],
        direction: Direction = "ltr",
        weight: float = WEIGHT,
        bonus: float = BONUS,
        penalty: float = PENALTY,
    ) -> None:
        """``words`` as on the line from left to right."""
        self.words = sorted({form for word in words for form in (word, word[:1].upper() + word[1:], word.upper())})
        self.direction, self.weight, self.bonus, self.penalty = direction, weight, bonus, penalty

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        alphabet: Alphabet,
        weight: float = WEIGHT,
        bonus: float = BONUS,
        penalty: float = PENALTY,
    ) -> WordList:
        """The words of ``texts`` (running text or a word per line) for a recognizer with ``alphabet``.

        Raises UserError when there is none.
        """
        words = {alphabet.visual(word) for text in texts for word in _WORD.findall(text)}
        if not words:
            raise UserError("language model: there is no word to list")
        return cls(words, alphabet.direction, weight, bonus, penalty)

    def start(self) -> str:
        return ""

    def step(self, state: str | None, character: str) -> tuple[float, str | None]:
        if not _WORD.match(character):
            return self.end(state), ""
        if state is None:
            return 0.0, None
        longer = state + character
        return (0.0, longer) if self._next(longer).startswith(longer) else (-self.penalty, None)

    def end(self, state: str | None) -> float:
        return 0.0 if not state or self._next(state) == state else -self.penalty

    def _next(self, beginning: str) -> str:
        """The first word of the list that is not before ``beginning``; empty: there is none."""
        i = bisect_left(self.words, beginning)
        return self.words[i] if i < len(self.words) else ""
