"""Input adaptation: how a line of any width becomes a view of a fixed one (paper, section 3.2.1).

``window`` crops a stretch that holds writing; ``resize`` warps all of the writing. Both end in
:func:`htr_ray.pretext.guard.place`, so both are guarded. ``whole`` serves method adaptation
(section 3.2.2), which keeps the line's width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from htr_ray.pretext.guard import Cleaned, Span, ink_columns, place, trimmed, with_margins
from htr_ray.stream.augment import Grey
from htr_ray.stream.scale import MIN_WIDTH

MARGIN = 0.25
"""Largest margin at either end, as a share of the height."""

MAX_STRETCH = 2.0
"""A word shorter than a filled view is widened this far at most; the rest is paper."""


def fixed(
    line: Cleaned,
    width: int,
    adaptation: Literal["window", "resize"],
    rng: np.random.Generator,
    *,
    fill: bool = False,
) -> Grey:
    """Fit a line to ``[H, width]`` by the adaptation that the settings name.

    ``fill`` (puzzles): writing reaches from end to end, because a blank tile would give its
    place away. Otherwise margins of one law are allowed at both ends.
    """
    height = line.image.shape[0]
    columns = ink_columns(line.ink)
    writing = trimmed(columns, height, rng)
    span = writing if fill else with_margins(writing, MARGIN, height, rng)
    if adaptation == "window":
        size = width * float(np.exp(rng.uniform(-0.1, 0.1)))
        if span.width > size:
            # Somewhere around a random ink column, so that a word gap is never all there is.
            centre = columns[int(rng.random() * columns.size)]
            left = centre - size * rng.uniform(0.2, 0.8)
            left = min(max(left, span.left), span.right - size)
            return place(line, writing, Span(left, left + size), width, rng)
        if not fill:
            left = span.left - (size - span.width) * rng.random()
            return place(line, writing, Span(left, left + size), width, rng)
    least = width / MAX_STRETCH
    if span.width < least:
        left = span.left - (least - span.width) * rng.random()
        span = Span(left, left + least)
    return place(line, writing, span, width, rng)


def whole(line: Cleaned, parts: int, rng: np.random.Generator) -> Grey:
    """All of the writing at about its own width, a multiple of ``parts``.

    Never wider than the line came, so that bounds on memory hold, but for the least width of
    a quarter of the height per part.
    """
    height, source_width = line.image.shape
    writing = trimmed(ink_columns(line.ink), height, rng)
    wanted = min(writing.width * float(np.exp(rng.uniform(-0.1, 0.1))), source_width)
    part = max(height // 4, -(-MIN_WIDTH // parts), int(wanted / parts))
    return place(line, writing, writing, part * parts, rng)
