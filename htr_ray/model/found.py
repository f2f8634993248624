"""What a decoder finds in the features of a line."""

from __future__ import annotations

from typing import NamedTuple


class Found(NamedTuple):
    """A line as classes (visual order, see ``corpus/direction.py``), and how sure the decoder is of them."""

    classes: list[int]
    confidence: float
    """Likelihood of the classes per character (geometric mean), 0 to 1."""
    scores: list[float]
    """Per class, its probability given the classes before it, 0 to 1."""
