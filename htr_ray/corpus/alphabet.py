"""Characters as numbers: what a decoder predicts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from htr_ray.corpus.direction import MIRRORED, Direction, order, reorder
from htr_ray.errors import UserError


class Alphabet:
    """The characters that a recognizer can write, numbered.

    0 is the blank (CTC's blank, the transformer's padding); characters are 1..n in code point order. A
    character is one Unicode code point, so a combining mark is a character of its own, and any Unicode normal
    form is as good as another.

    Texts are in logical order. With ``direction`` "rtl" their numbers are in visual order, from the left of the
    line image to its right (see ``corpus/direction.py``); what was encoded is always decoded to the same text.
    """

    BLANK = 0

    def __init__(self, characters: Iterable[str], direction: Direction = "ltr") -> None:
        unique = sorted(set(characters))
        wrong = [c for c in unique if len(c) != 1]
        if wrong:
            raise UserError(f"alphabet: {wrong[0]!r} is not a single character")
        self.characters = "".join(unique)
        self.direction = direction
        self._number = {c: i for i, c in enumerate(self.characters, start=1)}
        # A bracket can only turn into its partner where that is a class too.
        self._mirrored = {c: m for c, m in MIRRORED.items() if c in self._number and m in self._number}

    def __len__(self) -> int:
        """Number of classes: the characters and the blank."""
        return len(self.characters) + 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Alphabet):
            return False
        return (self.characters, self.direction) == (other.characters, other.direction)

    def __hash__(self) -> int:
        return hash((self.characters, self.direction))

    def __contains__(self, character: object) -> bool:
        return character in self._number

    def __repr__(self) -> str:
        return f"Alphabet({self.characters!r}, {self.direction!r})"

    @property
    def form(self) -> Literal["NFC", "NFD"]:
        """The Unicode normal form that its texts have: NFD where letters and their marks are apart throughout."""
        # Each by itself: marks in code point order are in no order of a text.
        apart = all(unicodedata.is_normalized("NFD", character) for character in self.characters)
        return "NFD" if apart and any(map(unicodedata.combining, self.characters)) else "NFC"

    def encode(self, text: str) -> list[int]:
        """Number the characters of ``text``. Raises UserError naming the first unknown character."""
        try:
            return [self._number[c] for c in self.visual(text)]
        except KeyError as error:
            character = error.args[0]
            raise UserError(
                f"alphabet: character {character!r} (U+{ord(character):04X}) of the text {text!r} is unknown"
                f" to the {len(self.characters)} characters of this alphabet"
            ) from None

    def visual(self, text: str) -> str:
        """``text`` in the order in which it is numbered: from the left of the line to its right. Its own inverse."""
        return text if self.direction == "ltr" else reorder(text, self._mirrored)

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of ``numbers``; blanks are dropped, repeats are kept.

        Raises ValueError for a number that is no class of this alphabet.
        """
        return self.visual(self._characters(numbers))

    def order(self, numbers: Sequence[int]) -> list[int]:
        """For each character of ``decode(numbers)``, its position in ``numbers``: for what goes with a character."""
        kept = [i for i, number in enumerate(numbers) if number != self.BLANK]
        if self.direction == "ltr":
            return kept
        return [kept[i] for i in order(self._characters(numbers), self._mirrored)]

    def _characters(self, numbers: Iterable[int]) -> str:
        """The characters in the order of ``numbers``, without blanks."""
        out = []
        for number in numbers:
            if not 0 <= number <= len(self.characters):
                raise ValueError(f"{number} is no class of an alphabet of {len(self)} (blank counted)")
            if number != self.BLANK:
                out.append(self.characters[number - 1])
        return "".join(out)

    def covers(self, text: str) -> set[str]:
        """Return the characters of ``text`` that this alphabet lacks; empty: it covers the text."""
        return set(text) - self._number.keys()

    def to_json(self) -> list[str]:
        """The characters as a list, class 1 first."""
        return list(self.characters)

    @classmethod
    def from_json(cls, characters: Sequence[str], direction: Direction = "ltr") -> Alphabet:
        """Inverse of ``to_json``. Raises UserError when the order is not the one that numbers mean."""
        alphabet = cls(characters, direction)
        if alphabet.to_json() != list(characters):
            raise UserError("alphabet: not in code point order, each character once; was it changed?")
        return alphabet
