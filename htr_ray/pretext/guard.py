"""What keeps a pretext task from being solved without looking at the writing.

A network takes the cheapest way to the answer: writing starts at the left margin, lines end
in blank paper, rulings lie below the letters, the lamp stood on one side, a JPEG's 8 x 8
blocks stay aligned, strokes run on across a cut. (Doersch et al. 2015 and Noroozi & Favaro
2016 describe such shortcuts; the paper, section 3.2, inherits the tasks.) The guard takes
these away *before* the task transforms the view:

* ``clean`` flattens the illumination, takes out borders and long rulings, levels lines that
  climb and evens out ink that fades;
* ``ink_columns`` finds where the writing is; all else is replaced by even paper, with
  margins of the same law at both ends;
* ``place`` cuts, rescales by a fraction of a pixel and shifts in a single warp, with the
  writing's own top and bottom placed by the same law.

Everything here expects dark ink on light paper, uint8 ``[H, W]``, and survives blank lines
and images one pixel wide.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from htr_ray.stream.augment import Grey, background

PAPER_TOLERANCE = 1.04
"""Paper is lifted by this much before it is clipped, so that its grain is not mistaken for ink."""

FAINT = 5
"""Grey levels below the paper from which a ruling or a border counts as one."""

RULING = 3
"""A ruling is a dark row longer than this many line heights; narrower images are left alone."""

CROSSING = np.uint8(30)
"""Ink this much darker than the ruling that it crosses is a letter's."""

_LEVELS = np.arange(256, dtype=np.float32)


class Cleaned(NamedTuple):
    """A line without illumination, climb and rulings."""

    image: Grey
    """uint8 ``[H, W]``."""
    paper: int
    """Grey level of the paper, everywhere the same."""
    ink: Grey
    """uint8 ``[H, W]``: 1 where there is ink, else 0."""


class Span(NamedTuple):
    """A horizontal stretch of a line in source pixels; may reach beyond the image, into paper."""

    left: float
    right: float

    @property
    def width(self) -> float:
        return self.right - self.left


def is_negative(image: Grey) -> bool:
    """Whether the line shows light ink on dark paper."""
    paper = background(image)
    return paper < 128 and float(image.mean()) > paper


def clean(image: Grey) -> Cleaned:
    """Flatten the illumination, level the line, take out long horizontal rulings, find the ink."""
    height, width = image.shape
    paper = background(image)

    # The brightest neighbour within a letter's height is paper; its local mean is the lamp.
    reach = max(3, height // 5) | 1
    lamp = cv2.blur(cv2.dilate(image, _rectangle(reach, reach)), (2 * reach + 1, 2 * reach + 1))
    flat = np.asarray(cv2.divide(image, lamp, scale=float(paper)), dtype=np.uint8)
    # The brightest neighbour overshoots grainy paper: bring the median back.
    gain = paper * PAPER_TOLERANCE / max(1, background(flat))
    flat = np.minimum(np.asarray(cv2.convertScaleAbs(flat, alpha=gain), dtype=np.uint8), np.uint8(paper))

    _remove_borders(flat, paper)
    wide = width > RULING * height
    if wide:
        _remove_rulings(flat, paper)
    some = flat[:: max(1, height // 24)]
    cumulated = np.cumsum(cv2.calcHist([some], [0], None, [256], [0, 256]))
    depth = paper - float(np.searchsorted(cumulated, 0.01 * some.size))
    threshold = paper - max(20.0, 0.35 * depth)
    if wide:
        levelled = _level(flat, paper, threshold)
        if levelled is not flat:  # rulings that climbed together with the line lie straight only now
            _remove_rulings(levelled, paper)
            flat = levelled
    flat = _even_ink(flat, paper)
    flat = np.asarray(cv2.LUT(flat, _bleach(paper, max(10.0, 0.12 * depth))), dtype=np.uint8)
    ink = np.asarray(cv2.threshold(flat, threshold, 1, cv2.THRESH_BINARY_INV)[1], dtype=np.uint8)
    return Cleaned(flat, paper, ink)


def add_grain(view: Grey, rng: np.random.Generator) -> Grey:
    """Give a view, margins and all, one even grain of random strength, as paper has."""
    coarseness = int(rng.integers(0, 13))
    if coarseness < 2:
        return view
    grain = rng.integers(0, coarseness, view.shape, dtype=np.uint8)
    # Lifted by the grain's mean, as far as white allows.
    lifted = np.minimum(view, np.uint8(255 - coarseness // 2)) + np.uint8(coarseness // 2)
    return lifted - np.minimum(grain, lifted)


def _bleach(paper: int, faint: float) -> Grey:
    """Table that turns all within ``faint`` of the paper into paper, and fades in what is darker.

    Grain, blocks of compression and what is left of a lamp or ruling would show where the scan
    ends and a margin begins.
    """
    depth = paper - _LEVELS
    share = np.clip(depth / faint - 1, 0, 1)
    return np.clip(np.rint(paper - depth * share), 0, 255).astype(np.uint8)


def _even_ink(image: Grey, paper: int) -> Grey:
    """Bring the ink to one darkness along the line: pens run dry from left to right."""
    depth = np.uint8(paper) - image
    # Mean depth weighted by itself, over four letters' width: the ink's, whatever its amount.
    reach = (4 * image.shape[0] | 1, 1)
    values = depth[::2].astype(np.float32)
    sums = np.stack([values.sum(0), np.einsum("hw,hw->w", values, values)])
    total, squares = np.asarray(cv2.blur(sums, reach, borderType=cv2.BORDER_CONSTANT), dtype=np.float32)
    local = squares / np.maximum(total, 1e-3)
    usual = float(squares.sum() / max(float(total.sum()), 1e-3))
    # Stretches of bare paper have no ink to even out.
    gain = np.where(local > 0.35 * usual, np.clip(usual / np.maximum(local, 1.0), 0.6, 1.7), 1.0)
    if gain.min() > 0.95 and gain.max() < 1.05:
        return image
    # Fixed point: 255 * 1.7 * 128 still fits 16 bits.
    scaled = np.multiply(depth, np.rint(gain * 128).astype(np.uint16), dtype=np.uint16) >> 7
    return np.uint8(paper) - np.minimum(scaled, paper).astype(np.uint8)


def _level(image: Grey, paper: int, threshold: float) -> Grey:
    """Shear a line that climbs or falls: its height above the edge would number its parts."""
    height, width = image.shape
    # Every second row will do.
    moments = cv2.moments(cv2.threshold(image[::2], threshold, 1, cv2.THRESH_BINARY_INV)[1], True)
    if 2 * moments["m00"] < height:
        return image
    # The regression of y on x over the ink; steeper ones are sketches and stains.
    slope = min(max(2 * moments["mu11"] / max(moments["mu20"], 1e-6), -0.15), 0.15)
    if abs(slope) * width < 0.08 * height:
        return image
    matrix = np.array([[1.0, 0.0, 0.0], [slope, 1.0, -slope * (width - 1) / 2]])
    return np.asarray(
        cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(paper),
        ),
        dtype=np.uint8,
    )


def _remove_rulings(image: Grey, paper: int) -> None:
    """Paint rulings over with paper, in place: a line below the letters would tell up from down."""
    height, width = image.shape
    # The darkest of every `step` columns: a bright pixel, where compression set a halo around a
    # letter, does not break a ruling, and the rest costs a fraction.
    step = max(2, height // 16)
    darkest = np.asarray(cv2.erode(image, _rectangle(step, 1), anchor=(0, 0)), dtype=np.uint8)
    coarse = np.ascontiguousarray(darkest[:, ::step])
    # A closing along the line leaves only what is dark for longer than any letter's stroke.
    length = (RULING * height // step) | 1
    ruling = np.asarray(cv2.morphologyEx(coarse, cv2.MORPH_CLOSE, _rectangle(length, 1)), dtype=np.uint8)
    if paper - int(ruling.min()) <= FAINT:
        return
    # Dense letters side by side are as long, but taller.
    tall = cv2.morphologyEx(ruling, cv2.MORPH_CLOSE, _rectangle(1, height // 8 | 1))
    ruling[np.asarray(tall) < max(0, paper - FAINT)] = paper
    if paper - int(ruling.min()) <= FAINT:
        return
    # A ruling's rows and those that blur and compression smeared it over.
    smear = max(1, round(height / 24))
    ruling = np.asarray(cv2.erode(ruling, _rectangle(1, 2 * smear + 1)), dtype=np.uint8)
    # Letters that cross are darker than the ruling, and stay.
    limit = np.where(ruling < max(0, paper - FAINT), np.maximum(ruling, CROSSING) - CROSSING, np.uint8(255))
    np.copyto(image, np.uint8(paper), where=image > np.repeat(limit, step, axis=1)[:, :width])


def _remove_borders(image: Grey, paper: int) -> None:
    """Paint the page's edge, or the scanner's, over with paper, in place: it has a side."""
    reach = max(3, image.shape[0] // 12)
    dark = max(0, paper - 2 * FAINT)
    for view in (image, image[::-1], image.T, image.T[::-1]):
        edge = np.flatnonzero((view[:reach] < dark).mean(1) > 0.8)
        if edge.size:
            view[: int(edge[-1]) + 2] = paper


def ink_columns(ink: Grey) -> npt.NDArray[np.intp]:
    """Columns that hold ink, ascending; all columns of a line that is nearly blank.

    Specks do not count: a column needs two ink pixels more than the emptiest columns have.
    """
    counts = np.asarray(cv2.reduce(ink, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)).ravel()
    base = min(int(np.partition(counts, counts.size // 20)[counts.size // 20]), max(1, ink.shape[0] // 16))
    columns = np.flatnonzero(counts >= base + 2)
    return columns if columns.size >= max(3, ink.shape[0] // 12) else np.arange(ink.shape[1])


def trimmed(columns: npt.NDArray[np.intp], height: int, rng: np.random.Generator) -> Span:
    """The writing's horizontal extent, less a few random pixels at each end.

    Segmentation clips first letters more often than last ones, so clipped ends must not mean
    anything.
    """
    left, right = float(columns[0]), float(columns[-1] + 1)
    most = min(0.1 * height, 0.1 * (right - left))
    cut = most * rng.random(2)
    return Span(left + cut[0], right - cut[1])


def with_margins(span: Span, share: float, height: int, rng: np.random.Generator) -> Span:
    """Add margins of one law, up to ``share`` of the height, at both ends."""
    margin = share * height * rng.random(2)
    return Span(span.left - margin[0], span.right + margin[1])


def place(line: Cleaned, writing: Span, view: Span, width: int, rng: np.random.Generator) -> Grey:
    """Cut ``view`` out of a line and warp it to ``[H, width]``.

    Only what lies within ``writing`` is taken from the line, the rest is paper. The writing's
    top and bottom are found and set by one law for both: scaled so that they fit, shifted
    with equal room above and below. Returns uint8 ``[H, width]``.
    """
    image, paper, ink = line
    height, source_width = image.shape
    first = min(max(0, int(np.floor(max(writing.left, view.left)))), source_width - 1)
    last = max(first + 1, min(source_width, int(np.ceil(min(writing.right, view.right)))))
    u = rng.random(6)

    # Ruled lines that survived count as paper here: they fill nearly all of a row.
    rows = np.asarray(cv2.reduce(ink[:, first:last], 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)).ravel()
    inked = np.flatnonzero((rows >= 1) & (rows < max(2.0, 0.8 * (last - first))))
    top, bottom = (float(inked[0]), float(inked[-1] + 1)) if inked.size else (0.0, float(height))
    # Writing as tall as the line is shrunk or cut a little, by a law without a favourite size:
    # a fixed one would keep the rows, and the blocks that compression left, where they were.
    scale = min(0.85 + 0.25 * u[0], (0.9 + 0.12 * u[1]) * height / (bottom - top))
    room = height - (bottom - top) * scale
    # Within a third of the free room: any law that is symmetric hides where the line was cut.
    target_top = room * (0.5 + (u[2] - 0.5) * 0.67) + (u[3] - 0.5) * 0.1 * height

    cut = (0.03 * height * u[4:6]).astype(int)
    piece = image[int(cut[0]) : height - int(cut[1]), first:last]
    # Shrinking far needs an average over the pixels that are left out; a warp would skip them.
    squeeze = view.width / width
    factor = 1.0
    if squeeze > 1.5:
        target = max(1, round((last - first) / squeeze))
        factor = (last - first) / target
        size = (target, piece.shape[0])
        piece = np.asarray(cv2.resize(piece, size, interpolation=cv2.INTER_AREA), np.uint8)
    step_x, step_y = squeeze / factor, 1 / scale
    matrix = np.array(
        [
            [step_x, 0.0, (view.left - first) / factor + 0.5 * step_x - 0.5],
            [0.0, step_y, top - cut[0] + (0.5 - target_top) * step_y - 0.5],
        ]
    )
    return np.asarray(
        cv2.warpAffine(
            piece,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(paper),
        ),
        dtype=np.uint8,
    )


def frame(image: Grey, paper: int, share: float, rng: np.random.Generator) -> Grey:
    """Paint a paper frame of random thickness, one law for all four sides, over the view (in place)."""
    height, width = image.shape
    top, bottom = (share * height * rng.random(2)).astype(int)
    left, right = (share * width * rng.random(2)).astype(int)
    image[:top] = paper
    image[height - bottom :] = paper
    image[:, :left] = paper
    image[:, width - right :] = paper
    return image


def _rectangle(width: int, height: int) -> Grey:
    return np.ones((height, width), np.uint8)
