"""Letter shapes of the sample corpus: Hershey stroke fonts in one common frame.

Two faces of the public-domain Hershey fonts (A. V. Hershey, NBS, 1967; PyPI package
`Hershey-Fonts`) look like a pen: `cursive`, a joined school hand, and `futural`, single-stroke
print. Both are brought to the same frame so that a hand may mix them: baseline at y = 0, y
pointing down, small letters `X_HEIGHT` high, ascenders and capitals `ASCENT`, tails `DESCENT`.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Literal

import numpy as np
from HersheyFonts import HersheyFonts

X_HEIGHT, ASCENT, DESCENT = 10.0, 20.0, 8.5
STEP = 2.0  # longest distance between two points of a stroke, in units of the frame

Face = Literal["cursive", "print"]


@dataclass(frozen=True)
class Glyph:
    """One letter: its points, where each stroke starts, and how far the pen moves on."""

    points: np.ndarray  # float64 [N, 2]
    starts: tuple[int, ...]  # index of each stroke's first point
    advance: float
    joins: bool  # whether it is joined to its neighbours

    def strokes(self, points: np.ndarray) -> list[np.ndarray]:
        """Cut ``points``, a changed copy of ``self.points``, into the glyph's strokes."""
        return np.split(points, self.starts[1:])


@dataclass(frozen=True)
class _Frame:
    """Where a face of Hershey's has its lines (its y points down, its baseline is y = 9)."""

    font: str
    x_height: float
    descent: float
    width: float  # horizontal scale of small letters


_FRAMES: dict[str, _Frame] = {
    "cursive": _Frame("cursive", x_height=9, descent=12, width=1.0),
    "print": _Frame("futural", x_height=14, descent=7, width=0.76),
}
_BASELINE, _CAPITAL = 9, 21


@functools.cache
def glyphs(face: Face) -> dict[str, Glyph]:
    """All letters, digits and marks of a face, by character (no accents; see ``accent``)."""
    frame = _FRAMES[face]
    font = HersheyFonts()
    font.load_default_font(frame.font)
    return {
        character: _convert(character, glyph, frame, face)
        for character, glyph in font.all_glyphs.items()
        if character.isascii() and character.isalnum() or character in " ."
    }


def accent(character: str) -> tuple[str, list[np.ndarray]]:
    """Split off what stands above a letter: ``'ü'`` -> ``'u'`` and two short strokes.

    The strokes are centred on x = 0, at the right height above a small letter. A letter
    without an accent comes back with no strokes.
    """
    parts = unicodedata.normalize("NFD", character)
    return parts[0], [stroke.copy() for mark in parts[1:] for stroke in _ACCENTS[mark]]


def _stroke(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, np.float64)


_ACCENTS = {
    "\u0308": (  # diaeresis, written as two ticks
        _stroke((-1.9, -14.6), (-2.2, -13.4), (-2.5, -12.4)),
        _stroke((2.5, -14.8), (2.2, -13.6), (1.9, -12.6)),
    ),
    "\u0301": (_stroke((2.3, -15.8), (0.8, -14.0), (-1.0, -12.4)),),  # acute
}


def _convert(character: str, glyph: object, frame: _Frame, face: Face) -> Glyph:
    small = character.islower() and character.isalpha()
    offset, advance = float(glyph.left_offset), float(glyph.char_width)  # type: ignore[attr-defined]
    wide = frame.width if small else 0.68 if character.isdigit() else 0.85
    strokes = []
    for raw in glyph.strokes:  # type: ignore[attr-defined]
        points = np.array(list(raw), np.float64)
        if len(points) < 2:
            continue
        x, y = points[:, 0] - offset, points[:, 1] - _BASELINE
        if small:
            above = np.maximum(-y - frame.x_height, 0) * (ASCENT - X_HEIGHT) / (_CAPITAL - frame.x_height)
            middle = np.clip(-y, 0, frame.x_height) * X_HEIGHT / frame.x_height
            below = np.maximum(y, 0) * DESCENT / frame.descent
            points = np.stack([x * wide, below - middle - above], axis=1)
        else:
            points = np.stack([x * wide, y * ASCENT / _CAPITAL], axis=1)
        strokes.append(_densify(points))
    starts = tuple(int(n) for n in np.cumsum([0] + [len(s) for s in strokes[:-1]])) if strokes else ()
    return Glyph(
        points=np.concatenate(strokes) if strokes else np.zeros((0, 2)),
        starts=starts,
        advance=advance * wide,
        joins=face == "cursive" and character.isalpha() and character.isascii(),
    )


def _densify(points: np.ndarray) -> np.ndarray:
    """Put points between, so that a straight stroke can be bent as a hand bends it."""
    pieces = []
    for a, b in zip(points[:-1], points[1:], strict=True):
        count = max(1, int(np.ceil(np.hypot(*(b - a)) / STEP)))
        pieces.append(a + (b - a) * (np.arange(count) / count)[:, None])
    return np.concatenate([*pieces, points[-1:]])
