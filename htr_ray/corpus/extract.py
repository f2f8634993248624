"""Cutting text lines out of page images: straightened along the baseline, with the neighbours painted over.

A line that slopes or bends is sampled in the frame of its baseline, so that its letters keep height and
upright stand whatever its direction. What lies outside its polygon becomes paper, of the brightness that
the paper has there, and not white: a recognizer should see no edges that no pen drew. But polygons cut
letters, so strokes that leave them are followed a little, and accents and commas beside them are kept, where
no other line's polygon is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

MAX_SIDE = 32_000
"""OpenCV resamples no longer side (16-bit coordinates)."""
_MAX_PIXELS = 40_000_000
# Paper brightness is mapped in cells of this side, on a page shrunk by this factor; in pixels.
_CELL, _SHRINK = 64, 4
# The share of pixels of a cell that are darker than its paper: ink, its blurred edges, half of the paper's noise.
_DARKER_THAN_PAPER = 0.75
# How much darker than the rest, in grey levels, the paper of one line may be.
_UNEVEN = 25
# Ink is darker than paper by this share of the contrast between them, which is at least so many grey levels.
_INK, _FAINTEST = 0.35, 20.0
# A stroke belongs to a line if this share of what is seen of it is in the polygon, or this in or close beside it.
_MOSTLY, _WHOLLY = 0.5, 0.9
# Strokes are looked for on lines of about this height, in pixels.
_COARSE_HEIGHT = 40
# There, a spot of no more pixels than this is dust.
_SPECK = 3
# Width of the transition from the line to painted paper, in pixels.
_FEATHER = 5
# Thinner or shorter than this, in pixels, nothing can be read.
_SMALLEST = 3
# A baseline much longer than the way from end to end and across runs to and fro: no pen did.
_MAX_DETOUR = 3.0
# A baseline that covers less of its polygon's length tells no direction.
_MIN_COVER = 0.2
# A line without a baseline is turned upright only when it is this many times higher than wide; a "1" is not.
_VERTICAL = 5.0
# Of the distance between lines, how much a line has above and below its baseline.
_ABOVE, _BELOW = 0.75, 0.35
# That distance, where a page has but one line: a share of the page's height.
_SPACING = 0.04
# A line without a baseline, this many times longer than high, tells its direction; and this many: its bend.
_DIRECTED, _BENT = 3.0, 5.0
_COARSE = 512
# A baseline is smoothed over this many line heights, so that neighbouring columns do not fan out at its corners.
_SMOOTHING = 1.5
_MAX_SAMPLES = 400


class NoGeometry(ValueError):
    """A line that cannot be found on its page; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How much more than its polygon is taken for a line, in shares of its height."""

    around: float = 0.06
    """On all sides."""
    beside: float = 0.2
    """How far off are dots, accents and commas that still belong to the line."""
    strokes: float = 0.25
    """How far strokes that leave the polygon are followed: hand-drawn and automatic outlines cut the tops of
    capitals and the ends of first and last letters."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """Where a line is on its page, in pixels; at least one of the first three."""

    polygon: np.ndarray | None = None
    """``float [N, 2]`` (x, y)."""
    baseline: np.ndarray | None = None
    """``float [N, 2]`` (x, y), in reading direction."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom."""
    spacing: float | None = None
    """Distance of the lines around: gives the height of a line of which only the baseline is known."""


class Page:
    """A page image that lines are cut out of."""

    def __init__(self, image: np.ndarray, outlines: Iterable[Outline] = (), margins: Margins | None = None) -> None:
        """``image``: grey, ``uint8 [H, W]``; ``outlines``: all lines of the page, so that none takes from another."""
        self._image = image
        self._margins = margins or Margins()
        self._paper = _paper(image)
        self._taken = np.zeros(image.shape, np.uint8)
        limit = np.array(image.shape[::-1]) - 1
        for outline in outlines:
            if outline.polygon is not None:
                _fill(self._taken, np.clip(outline.polygon, 0, limit))

    def cut(self, outline: Outline, height: int | None = None) -> np.ndarray:
        """Return the image of a line, ``uint8 [h, w]``, scaled to ``height`` if given.

        Raises NoGeometry when the outline is degenerate or outside the page.
        """
        line = self._straighten(_strip(outline, self._image.shape))
        if height is None or line.shape[0] == height:
            return line
        width = min(max(round(line.shape[1] * height / line.shape[0]), 1), MAX_SIDE)
        method = cv2.INTER_AREA if height < line.shape[0] else cv2.INTER_CUBIC
        return cv2.resize(line, (width, height), interpolation=method)

    def _straighten(self, strip: _Strip) -> np.ndarray:
        thickness = strip.bottom - strip.top
        margin = self._margins.around * thickness
        reach = margin + (self._margins.strokes * thickness if strip.polygon is not None else 0)
        along = np.arange(np.floor(strip.start - reach), np.ceil(strip.end + reach) + 1)
        across = np.arange(np.floor(strip.top - reach), np.ceil(strip.bottom + reach) + 1)
        if max(len(along), len(across)) > MAX_SIDE or len(along) * len(across) > _MAX_PIXELS:
            raise NoGeometry(f"a line of {len(along)}x{len(across)} pixels")
        x, y = self._clip(*strip.curve.grid(along, across))
        # Only this part of the page is looked at: resampling has a limit to the size of its source.
        left, top = max(int(x.min()), 0), max(int(y.min()), 0)
        window = np.s_[top : int(y.max()) + 2, left : int(x.max()) + 2]
        patch = self._image[window]
        x -= left
        y -= top
        line = cv2.remap(patch, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if strip.polygon is None:
            return line
        own = cv2.remap(_filled(strip.polygon - (left, top), patch.shape), x, y, cv2.INTER_NEAREST)
        if not own.any():
            raise NoGeometry("polygon without area")
        # Strokes are followed on every n-th pixel, the darkest of those around it, so that no hairline breaks.
        step = max(round(thickness / _COARSE_HEIGHT), 1)
        coarse = np.s_[::step, ::step]
        darkest = cv2.erode(line, np.ones((step, step), np.uint8))[coarse]
        taken = cv2.remap(self._taken[window], x[coarse], y[coarse], cv2.INTER_NEAREST)
        strokes = _strokes(darkest, own[coarse], taken, round(self._margins.beside * thickness / step))
        own = cv2.max(own, cv2.resize(strokes, own.shape[::-1], interpolation=cv2.INTER_NEAREST))
        part = _around(own, round(margin))
        own = cv2.blur(own[part], (_FEATHER, _FEATHER))
        return _blend(line[part], self._paper_at(x[part] + left, y[part] + top), own)

    def _clip(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drop the rows and columns that are wholly outside the page."""
        height, width = self._image.shape
        if x.min() >= 0 and y.min() >= 0 and x.max() <= width - 1 and y.max() <= height - 1:
            return x, y
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if len(rows) < _SMALLEST or len(columns) < _SMALLEST:
            raise NoGeometry(f"outside the page of {width}x{height} pixels")
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return np.ascontiguousarray(x[part]), np.ascontiguousarray(y[part])

    def _paper_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Paper brightness at some points of the page, ``uint8``; smooth, so every 16th point will do."""
        coarse_x, coarse_y = (np.ascontiguousarray(axis[::16, ::16]) / _CELL - 0.5 for axis in (x, y))
        paper = cv2.remap(self._paper, coarse_x, coarse_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # Beside the edge of a sheet a cell may show the dark ground that the sheet was scanned on.
        paper = np.maximum(paper, max(int(np.median(paper)) - _UNEVEN, 0)).astype(np.uint8)
        return cv2.resize(paper, x.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _paper(image: np.ndarray) -> np.ndarray:
    """A small map of paper brightness, ``uint8``, one value for each cell of the page."""
    height, width = image.shape
    small = cv2.resize(image, (max(width // _SHRINK, 1), max(height // _SHRINK, 1)), interpolation=cv2.INTER_AREA)
    side = _CELL // _SHRINK
    down, right = -small.shape[0] % side, -small.shape[1] % side
    small = cv2.copyMakeBorder(small, 0, down, 0, right, cv2.BORDER_REFLECT)
    rows, columns = small.shape[0] // side, small.shape[1] // side
    cells = small.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, side * side)
    place = int(_DARKER_THAN_PAPER * side * side)
    paper = np.ascontiguousarray(np.partition(cells, place, axis=2)[:, :, place])
    # A cell full of ink - a capital, a seal - is lighter than it looks.
    return cv2.medianBlur(paper, 3) if min(paper.shape) >= 3 else paper


def _fill(mask: np.ndarray, polygon: np.ndarray) -> None:
    """Set a mask to 255 inside a polygon."""
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 255)


def _filled(polygon: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """255 inside a polygon, 0 elsewhere."""
    mask = np.zeros(shape, np.uint8)
    _fill(mask, polygon)
    # Where the outline crosses itself, filling leaves holes.
    outer, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, outer, -1, 255, cv2.FILLED)
    return mask


def _strokes(line: np.ndarray, own: np.ndarray, taken: np.ndarray, near: int) -> np.ndarray:
    """The strokes of a line that leave its mask ``own``, or stand beside it: 255 there, 0 elsewhere.

    They are its own when they are mostly inside, or wholly within ``near`` pixels beside it: accents, commas.
    Nothing is had from the masks of others, ``taken``.
    """
    inside = line[own > 0]
    if not inside.size:
        return np.zeros_like(own)
    places = inside.size // 50, inside.size * 3 // 4
    darkest, paper = np.partition(inside, places)[list(places)].astype(float)
    ink = line < paper - _INK * max(paper - darkest, _FAINTEST)
    count, labels = cv2.connectedComponents(ink.view(np.uint8), ltype=cv2.CV_32S)
    free = (taken == 0) | (own > 0)
    close = (cv2.dilate(own, np.ones((2 * near + 1, 2 * near + 1), np.uint8)) > 0) & free
    everywhere, within, beside = (
        np.bincount(some, minlength=count) for some in (labels.ravel(), labels[own > 0], labels[close])
    )
    kept = ((within > _MOSTLY * everywhere) | (beside > _WHOLLY * everywhere)) & (everywhere > _SPECK)
    kept[0] = False
    return cv2.dilate((kept[labels] & free).view(np.uint8) * 255, np.ones((_FEATHER, _FEATHER), np.uint8))


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The rows and columns of a mask that are not empty, and some more."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + 1 + margin),
        slice(max(columns[0] - margin, 0), columns[-1] + 1 + margin),
    )


def _blend(line: np.ndarray, paper: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``line`` where the mask is 255, ``paper`` where it is 0."""
    share = mask.astype(np.float32) / 255
    return cv2.blendLinear(line, paper, share, 1 - share)


# --- the frame of a line ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Curve:
    """A smooth line to straighten along; beyond its ends it goes on straight."""

    points: np.ndarray
    """``[M, 2]`` (x, y), M >= 2."""
    lengths: np.ndarray
    """``[M]``, from the first point."""
    tangents: np.ndarray
    """``[M, 2]``, of length 1."""

    def grid(self, along: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points of the page (x and y, ``float32 [len(across), len(along)]``) of a straightened image."""
        on_curve = np.clip(along, 0, self.lengths[-1])
        tx, ty = (np.interp(on_curve, self.lengths, self.tangents[:, i]) for i in (0, 1))
        norm = np.hypot(tx, ty)
        tx, ty = tx / norm, ty / norm
        px, py = (np.interp(on_curve, self.lengths, self.points[:, i]) for i in (0, 1))
        px, py = px + (along - on_curve) * tx, py + (along - on_curve) * ty
        # Down is to the right of the direction of writing, for y grows downwards.
        down = across.astype(np.float32)[:, None]
        return px.astype(np.float32) - down * ty.astype(np.float32), py.astype(np.float32) + down * tx.astype(
            np.float32
        )

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far along and across (down is positive) points of the page are."""
        nearest = np.square(points[:, None] - self.points[None]).sum(2).argmin(1)
        away = points - self.points[nearest]
        (tx, ty) = self.tangents[nearest].T
        return self.lengths[nearest] + away[:, 0] * tx + away[:, 1] * ty, away[:, 1] * tx - away[:, 0] * ty


@dataclass(frozen=True, eq=False)
class _Strip:
    """The part of a curve's surroundings that is a line."""

    curve: _Curve
    start: float
    end: float
    top: float
    bottom: float
    polygon: np.ndarray | None = None
    """What is outside is not of the line; None: nothing is known of that."""


def _strip(outline: Outline, shape: tuple[int, ...]) -> _Strip:
    limit = np.array([shape[1] - 1, shape[0] - 1], np.float64)
    polygon, baseline = _usable_polygon(outline.polygon, limit), _usable_baseline(outline.baseline, limit)
    box = _usable_box(outline.box, limit)
    if polygon is not None:
        if baseline is None or not _belongs(baseline, polygon):
            baseline = _centre_line(polygon)
        return _along_polygon(polygon, baseline)
    if baseline is not None:
        return _beside_baseline(baseline, box, outline.spacing or _SPACING * shape[0])
    if box is not None:
        return _around_box(*box)
    given = [name for name in ("polygon", "baseline", "box") if getattr(outline, name) is not None]
    raise NoGeometry(f"{' and '.join(given)} degenerate or outside the page" if given else "none given")


def _along_polygon(polygon: np.ndarray, baseline: np.ndarray) -> _Strip:
    length = max(float(_lengths(baseline)[-1]), float(np.ptp(polygon, axis=0).max()))
    curve = _curve(baseline, smooth_over=_SMOOTHING * _area(polygon) / length)
    along, across = curve.project(_dense(polygon, max(length / 100, 2.0)))
    leftwards = _runs_across(baseline) and baseline[-1, 0] < baseline[0, 0]
    if leftwards and -across.min() <= across.max():
        # Drawn from right to left under upright text. Under text that stands on its head it would be above.
        return _along_polygon(polygon, baseline[::-1])
    start, end, top, bottom = (float(edge) for edge in (along.min(), along.max(), across.min(), across.max()))
    return _Strip(curve, start, end, top, bottom, polygon)


def _beside_baseline(baseline: np.ndarray, box: np.ndarray | None, spacing: float) -> _Strip:
    across = _runs_across(baseline)
    if across and baseline[-1, 0] < baseline[0, 0]:
        baseline = baseline[::-1]
    start, end = 0.0, float(_lengths(baseline)[-1])
    top, bottom = -_ABOVE * spacing, _BELOW * spacing
    if box is not None and across:
        # The highest letters touch the box where the baseline is highest, the lowest where it is lowest.
        above, below = box[1] - baseline[:, 1].min(), box[3] - baseline[:, 1].max()
        if below - above >= _SMALLEST:
            top, bottom = float(above), float(below)
            start = min(start, float(box[0] - baseline[0, 0]))
            end = max(end, end + float(box[2] - baseline[-1, 0]))
    return _Strip(_curve(baseline, smooth_over=_SMOOTHING * (bottom - top)), start, end, top, bottom)


def _around_box(left: float, top: float, right: float, bottom: float) -> _Strip:
    width, height = right - left, bottom - top
    if height >= _VERTICAL * width:
        return _Strip(_curve(np.array([[right, top], [right, bottom]])), 0, height, 0, width)
    return _Strip(_curve(np.array([[left, top], [right, top]])), 0, width, 0, height)


def _usable_polygon(polygon: np.ndarray | None, limit: np.ndarray) -> np.ndarray | None:
    if polygon is None or len(polygon) < 3:
        return None
    # OpenCV knows polygons of float32; one pixel is accurate enough, and leaves few corners.
    inside = np.clip(polygon, 0, limit).astype(np.float32)
    if min(cv2.minAreaRect(inside)[1]) < _SMALLEST:
        return None
    simple = cv2.approxPolyDP(inside, 1.0, True)
    return (simple[:, 0] if len(simple) >= 3 else inside).astype(np.float64)


def _usable_baseline(baseline: np.ndarray | None, limit: np.ndarray) -> np.ndarray | None:
    if baseline is None:
        return None
    inside = np.clip(baseline, 0, limit).astype(np.float64)
    inside = inside[np.append(True, (np.diff(inside, axis=0) != 0).any(1))]
    extent = float(np.hypot(*np.ptp(inside, axis=0)))
    return inside if extent >= 2 * _SMALLEST and _lengths(inside)[-1] <= _MAX_DETOUR * extent else None


def _usable_box(box: tuple[float, float, float, float] | None, limit: np.ndarray) -> np.ndarray | None:
    if box is None:
        return None
    corners = np.round(np.clip(np.reshape(box, (2, 2)), 0, limit))
    return corners.ravel() if (corners[1] - corners[0]).min() >= _SMALLEST else None


def _belongs(baseline: np.ndarray, polygon: np.ndarray) -> bool:
    """Whether a baseline is long enough for its polygon, and there."""
    sides = cv2.minAreaRect(polygon.astype(np.float32))[1]
    near = (baseline.max(0) + min(sides) >= polygon.min(0)) & (baseline.min(0) - min(sides) <= polygon.max(0))
    return bool(near.all()) and _lengths(baseline)[-1] >= _MIN_COVER * max(sides)


def _centre_line(polygon: np.ndarray) -> np.ndarray:
    """A line through the middle of a polygon, from left to right, or downwards where that is vertical."""
    low, extent = polygon.min(0), np.ptp(polygon, axis=0)
    scale = min(1.0, _COARSE / float(extent.max()))
    mask = np.zeros((int(extent[1] * scale) + 1, int(extent[0] * scale) + 1), np.uint8)
    cv2.fillPoly(mask, [np.round((polygon - low) * scale).astype(np.int32)], 255)
    inside = np.argwhere(mask)[:, ::-1] / scale + low
    middle = inside.mean(0)
    spread, axes = np.linalg.eigh(np.cov((inside - middle).T) + np.eye(2) * 1e-6)
    ratio, axis = float(np.sqrt(spread[1] / spread[0])), axes[:, 1]
    steep = abs(axis[1]) > abs(axis[0])
    if ratio < (_VERTICAL if steep else _DIRECTED):
        axis, steep, ratio = np.array([1.0, 0.0]), False, 1.0
    axis = axis * np.sign(axis[1] if steep else axis[0])
    normal = np.array([-axis[1], axis[0]])
    along, across = (inside - middle) @ axis, (inside - middle) @ normal
    steps = np.linspace(along.min(), along.max(), 16)
    bend = np.polynomial.Polynomial.fit(along, across, 3)(steps) if ratio >= _BENT else np.zeros_like(steps)
    return middle + steps[:, None] * axis + bend[:, None] * normal


# --- curves -----------------------------------------------------------------------------------------------


def _curve(points: np.ndarray, smooth_over: float = 0.0) -> _Curve:
    """A curve along some points, smoothed by a moving average over so many pixels, twice."""
    lengths = _lengths(points)
    chord = points[-1] - points[0]
    distance = float(np.hypot(*chord))
    off = np.abs((points - points[0]) @ [-chord[1], chord[0]]) / distance if distance else np.ones(1)
    if off.max() < 0.5:
        return _Curve(points[[0, -1]], np.array([0.0, distance]), np.stack([chord, chord]) / distance)
    step = max(smooth_over / 12, lengths[-1] / _MAX_SAMPLES, 1.0)
    places = np.linspace(0, lengths[-1], max(int(lengths[-1] / step), 4))
    samples = np.stack([np.interp(places, lengths, points[:, i]) for i in (0, 1)], axis=1)
    half = min(round(smooth_over / 2 / places[1]), len(samples) - 1)
    for _ in range(2 if half else 0):
        # Mirrored at its ends, a line keeps them, and its direction there.
        before, after = 2 * samples[0] - samples[half:0:-1], 2 * samples[-1] - samples[-2 : -2 - half : -1]
        sums = np.cumsum(np.concatenate([np.zeros((1, 2)), before, samples, after]), axis=0)
        samples = (sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1)
    tangents = np.gradient(samples, axis=0)
    norms = np.hypot(*tangents.T)
    # A curve that turns back on itself stands still for a moment.
    tangents[norms < 1e-6] = (1.0, 0.0)
    return _Curve(samples, _lengths(samples), tangents / np.maximum(norms, 1e-6)[:, None])


def _lengths(points: np.ndarray) -> np.ndarray:
    """How far along a polyline its points are, ``[N]``."""
    return np.append(0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))


def _dense(polygon: np.ndarray, step: float) -> np.ndarray:
    """The corners of a polygon, and points on its sides at most ``step`` apart."""
    sides = np.roll(polygon, -1, axis=0) - polygon
    counts = np.ceil(np.hypot(*sides.T) / step).astype(int) + 1
    first = np.repeat(np.cumsum(counts) - counts, counts)
    share = (np.arange(counts.sum()) - first) / np.repeat(counts, counts)
    return np.repeat(polygon, counts, axis=0) + share[:, None] * np.repeat(sides, counts, axis=0)


def _area(polygon: np.ndarray) -> float:
    """The area of a polygon; where it crosses itself, parts would cancel out, and its convex hull must do."""
    corners = polygon.astype(np.float32)
    own, hull = cv2.contourArea(corners), cv2.contourArea(cv2.convexHull(corners))
    return own if own > hull / 4 else hull


def _runs_across(line: np.ndarray) -> bool:
    """Whether a line is more horizontal than vertical."""
    dx, dy = np.abs(line[-1] - line[0])
    return bool(dx >= dy)
