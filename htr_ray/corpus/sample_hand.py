"""The writers of the sample corpus: what makes one synthetic hand differ from another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from htr_ray.corpus.sample_glyphs import Face

# Small letters that many writers of a joined hand print all the same.
_OFTEN_PRINTED = "bfprsz"
# Capitals whose school form is hard to tell from another's today: G looks like S.
_MISREAD = "G"
STYLES: tuple[str, ...] = ("cursive", "cursive", "mixed", "cursive", "print")


@dataclass(frozen=True)
class Hand:
    """One writer. Lengths are in units of the glyph frame unless a comment says pixels."""

    seed: int
    small: Face  # face of the small letters
    capitals: Face
    printed: frozenset[str]  # small letters printed in a cursive hand
    slant: float  # shear, tangent; positive leans right
    width: float  # horizontal scale
    ascent: float  # height of ascenders over the x-height, relative to the school model
    descent: float
    spacing: float  # added between letters
    word_space: float  # width of a space
    slope: float  # standard deviation of a line's slope
    wave: float  # amplitude of the baseline's wave
    wobble: float  # amplitude of the smooth displacement of strokes
    tremor: float  # amplitude of the fast displacement
    jitter: float  # scale of what changes from letter to letter: turn, size, height
    haste: int  # passes of corner rounding
    dot_drift: float  # how far dots and bars stray to the right
    pen: float  # stroke width in pixels
    contrast: float  # how much wider down-strokes are
    pressure: float  # slow change of width and darkness along the line
    ink: float  # grey value
    soft: float  # blur of the scan, pixels
    paper: float  # grey value
    grain: float  # standard deviation of the paper's grain
    stain: float  # amplitude of slow changes of the paper
    ruled: bool
    scale: float  # size of the writing; 1 fills the line
    habits: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def habit(self, character: str) -> np.ndarray:
        """How this hand always bends this letter: 6 standard normal numbers (its own letter form)."""
        if character not in self.habits:
            rng = np.random.default_rng([self.seed, ord(character)])
            self.habits[character] = np.clip(rng.standard_normal(6), -2, 2)
        return self.habits[character]

    def face(self, character: str) -> Face:
        """The face from which this hand takes a character (without accent)."""
        if character.isupper():
            return "print" if character in _MISREAD else self.capitals
        if character.isdigit() or character in self.printed:
            return "print"
        return self.small


def make_hand(number: int, seed: int) -> Hand:
    """The hand of writer ``number``; the same for the same ``seed``, whoever else writes."""
    rng = np.random.default_rng([seed, 1, number])

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    style = STYLES[number % len(STYLES)]
    small: Face = "print" if style == "print" else "cursive"
    printed = frozenset(c for c in _OFTEN_PRINTED if small == "cursive" and rng.random() < 0.15)
    nib = rng.random() < 0.4  # a steel nib, else a pencil or a ball-point pen
    return Hand(
        seed=int(rng.integers(2**31)),
        small=small,
        capitals="cursive" if style == "cursive" else "print",
        printed=printed,
        # The cursive model already leans by some 20 degrees.
        slant=between(-0.2, 0.26) if small == "cursive" else between(-0.04, 0.34),
        width=between(0.78, 0.98) if small == "cursive" else between(0.86, 1.04),
        ascent=between(0.82, 1.12),
        descent=between(0.8, 1.05),
        spacing=between(0.1, 1.5) if small == "cursive" else between(-0.1, 1.4),
        word_space=between(8, 13),
        slope=between(0.002, 0.016),
        wave=between(0.1, 0.6),
        wobble=between(0.22, 0.52),
        tremor=between(0.08, 0.16) if rng.random() < 0.25 else between(0, 0.05),
        jitter=between(0.35, 0.85),
        haste=int(rng.integers(0, 4)),
        dot_drift=between(0, 2.2),
        pen=between(1.7, 2.9),
        contrast=between(0.35, 0.9) if nib else between(0, 0.2),
        pressure=between(0.06, 0.24),
        ink=between(12, 45) if nib else between(20, 80),
        soft=between(0.35, 0.75),
        paper=between(200, 246),
        grain=between(0.8, 3.5),
        stain=between(1, 6),
        ruled=bool(rng.random() < 0.3),
        scale=between(0.84, 1.0),
    )
