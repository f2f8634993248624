"""What a beam search asks of a language model, and how it does.

Two are here: ``ngrams.py`` knows which characters follow which, ``wordlist.py`` which words there are.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.direction import Direction
from htr_ray.errors import UserError

BEAM = 10
"""Beam with a language model, where neither the caller nor the settings ask for a wider one."""
BEAM_CHARACTERS = 16
"""Most likely classes that a beam search goes on with, of each frame or hypothesis."""


class LanguageModel(Protocol):
    """A model of texts, character by character, in visual order: from the left of the line to its right.

    That is the order in which decoders write. For right-to-left corpora it is not the order in which one reads,
    so such a model is trained on texts that were turned round likewise (``Alphabet.visual``).
    """

    direction: Direction
    """Of the corpora that it may read."""
    weight: float
    """What the log probabilities are multiplied by before they join the decoder's; 0: as without the model."""
    bonus: float
    """Added for every character, since each costs probability, which favours short readings. Without effect in
    the transformer decoder, which compares likelihoods per character."""

    def start(self) -> Hashable:
        """The state before the first character; states that are equal continue alike."""
        ...

    def step(self, state: Any, character: str) -> tuple[float, Hashable]:
        """The log probability of ``character`` in ``state``, finite for any, and the state behind it."""
        ...

    def end(self, state: Any) -> float:
        """The log probability, finite, that the line ends in ``state``."""
        ...


class Fusion:
    """A language model as a decoder sees it: classes instead of characters, weighted, each answer kept."""

    def __init__(self, language: LanguageModel, alphabet: Alphabet) -> None:
        """Raises UserError when the two are made for different directions of writing."""
        if language.direction != alphabet.direction:
            raise UserError(
                f"language model: made for {language.direction} texts, but the recognizer reads {alphabet.direction};"
                " train it with the recognizer's alphabet"
            )
        self.language, self.characters = language, alphabet.characters
        self._steps: dict[tuple[Hashable, int], tuple[float, Hashable]] = {}

    def start(self) -> Hashable:
        return self.language.start()

    def step(self, state: Hashable, number: int) -> tuple[float, Hashable]:
        """What to add to the decoder's log probability of class ``number``, and the state behind it."""
        known = self._steps.get((state, number))
        if known is None:
            log_prob, after = self.language.step(state, self.characters[number - 1])
            known = self._steps[state, number] = self.language.weight * log_prob + self.language.bonus, after
        return known

    def end(self, state: Hashable) -> float:
        """What to add when the line ends in ``state``."""
        return self.language.weight * self.language.end(state)
