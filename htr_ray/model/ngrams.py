"""Character n-grams: how likely a character is after the few before it. Counted and smoothed by NLTK."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
from nltk.lm import NgramCounter, Vocabulary
from nltk.lm.smoothing import WittenBell
from nltk.util import ngrams, pad_sequence

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.direction import Direction
from htr_ray.errors import UserError

ORDER, WEIGHT, BONUS = 6, 0.5, 1.0
"""Within 0.1 of the lowest CER on validation lines that no text repeats: tests/benchmarks/results/reading.md."""
START, END = "<s>", "</s>"
ROWS = 50_000
"""Contexts whose probabilities are kept at hand; some 30 MB for an alphabet of 70."""

Context = tuple[str, ...]


class CharacterNgrams:
    """A ``LanguageModel``: the probability of a character given the ``order - 1`` before it.

    Witten-Bell smoothing (Chen & Goodman 1999, section 2.4), which for characters is as good as Kneser-Ney and does
    without NLTK's, whose every score walks all contexts (12 ms). A state is the longest end of the text so far that
    occurs in the training texts; START fills what is missing before the line.
    """

    def __init__(
        self,
        counts: Counter[Context],
        order: int,
        direction: Direction = "ltr",
        weight: float = WEIGHT,
        bonus: float = BONUS,
    ) -> None:
        """``counts``: how often each n-gram of length ``order`` occurs, of lines padded as by ``train``."""
        self.counts, self.order, self.direction, self.weight, self.bonus = counts, order, direction, weight, bonus
        self._counter = NgramCounter()
        for ngram, count in counts.items():
            self._counter.unigrams[ngram[-1]] += count
            for n in range(2, order + 1):
                self._counter[n][ngram[-n:-1]][ngram[-1]] += count
        self._smoothing = _Smoothing(Vocabulary(dict(self._counter.unigrams)), self._counter)
        self._column = {c: i for i, c in enumerate(sorted(self._counter.unigrams))}
        self._contexts = [self._counter[n + 1] for n in range(order)]  # by their length
        self._rows: dict[Context, np.ndarray] = {}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        alphabet: Alphabet,
        order: int = ORDER,
        weight: float = WEIGHT,
        bonus: float = BONUS,
    ) -> CharacterNgrams:
        """Count the n-grams of ``texts``, one line each, for a recognizer with ``alphabet``; empty ones are skipped.

        Raises UserError when there is no text or ``order`` is not positive.
        """
        if order < 1:
            raise UserError(f"language model: order must be at least 1, not {order}")
        counts: Counter[Context] = Counter()
        for text in texts:
            if text:
                padded = [*pad_sequence(alphabet.visual(text), order, pad_left=True, left_pad_symbol=START), END]
                counts.update(ngrams(padded, order))
        if not counts:
            raise UserError("language model: there is no text to train it from")
        return cls(counts, order, alphabet.direction, weight, bonus)

    def start(self) -> Context:
        return self._seen((START,) * (self.order - 1))

    def step(self, state: Context, character: str) -> tuple[float, Context]:
        longer = (*state, character)
        return self._log_prob(state, character), self._seen(longer if len(longer) < self.order else longer[1:])

    def end(self, state: Context) -> float:
        return self._log_prob(state, END)

    def _log_prob(self, context: Context, character: str) -> float:
        column = self._column.get(character, len(self._column))
        return math.log(self._row(context)[column])

    def _row(self, context: Context) -> np.ndarray:
        """Probabilities of all characters known, the end, and any one that is unknown: float64 [known + 1]."""
        row = self._rows.get(context)
        if row is None:
            score = self._smoothing
            if context:
                _, rest = score.alpha_gamma(END, context)
                row = rest * self._row(context[1:])
                for character in self._contexts[len(context)][context]:
                    row[self._column[character]] += score.alpha_gamma(character, context)[0]
            else:
                row = np.array([score.unigram_score(c) for c in self._column] + [score.unigram_score("")])
            if len(self._rows) >= ROWS:
                self._rows.clear()
            self._rows[context] = row
        return row

    def _seen(self, context: Context) -> Context:
        """The longest end of ``context`` that occurs in the training texts."""
        while context and context not in self._contexts[len(context)]:
            context = context[1:]
        return context


class _Smoothing(WittenBell):
    """NLTK's stops at the unigrams, and an unseen character would be impossible; here, as in the paper, these are
    smoothed by the uniform distribution, of which one share is for all that is unknown."""

    def unigram_score(self, word: str) -> float:
        unigrams = self.counts.unigrams
        known, total = len(unigrams), unigrams.N()
        return (unigrams[word] + known / (known + 1)) / (known + total)
