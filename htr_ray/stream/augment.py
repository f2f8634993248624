"""Augmentation of line images while training (paper, section 4).

Five families, each with a probability and a strength in :class:`AugmentSettings`:
geometric (affine, elastic or perspective), colour (brightness, contrast, inversion),
blur (Gaussian or motion), noise (Gaussian or speckle) and morphological (thicker or
thinner strokes). Strength 1 looks like another scan by another hand; 3 is the limit at
which people still read the line.

Every random number comes from the generator that is handed in, never from a global one,
so a line's views are reproducible on any machine and in any order.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from htr_ray.config import AugmentSettings

Grey = npt.NDArray[np.uint8]

INVERSION = 0.07
"""How often the colour family inverts ink and paper, at strength 1."""

_LEVELS = np.arange(256, dtype=np.float32)


def background(image: Grey) -> int:
    """The grey level of the paper: the median, since ink covers less than half of a line.

    Holds for dark ink on light paper and for the inverse. ``image`` is uint8 ``[H, W]``.
    """
    some = image[:: max(1, image.shape[0] // 16)]  # sixteen rows or more tell as well as all
    histogram = cv2.calcHist([some], [0], None, [256], [0, 256])
    return int(np.asarray(histogram).cumsum().searchsorted(some.size / 2))


def augment(image: Grey, settings: AugmentSettings, rng: np.random.Generator, seen: int | None = None) -> Grey:
    """Return a varied copy of a line.

    ``image`` is uint8 ``[H, W]`` with W >= 1, dark ink on light paper. The result is uint8
    ``[H, W']``, C-contiguous, W' >= 1; W' differs from W where the geometric family slanted
    or stretched the line. A family of probability 0 or strength 0 changes nothing. ``seen``: how
    often the line was seen before, for ``settings.ramp``; None: it does not matter.
    """
    share = 1.0 if seen is None or seen >= settings.ramp else seen / settings.ramp
    if _draws(settings.geometric, share, rng):
        image = _geometric(image, settings.geometric.strength, rng)
    if _draws(settings.morphological, share, rng):
        image = _morphological(image, settings.morphological.strength, rng)
    if _draws(settings.blur, share, rng):
        image = _blur(image, settings.blur.strength, rng)
    if _draws(settings.colour, share, rng):
        image = _colour(image, settings.colour.strength, rng)
    if _draws(settings.noise, share, rng):
        image = _noise(image, settings.noise.strength, rng)
    return np.ascontiguousarray(image)


def _draws(family, share: float, rng: np.random.Generator) -> bool:
    return family.strength > 0 and rng.random() < share * family.probability


# --- geometric ------------------------------------------------------------------------


def _geometric(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    kind = rng.random()
    if kind < 0.5:
        return _affine(image, strength, rng)
    if kind < 0.8:
        return _elastic(image, strength, rng)
    return _perspective(image, strength, rng)


def _affine(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    """Slant, rotation, scale and shift in one warp; the canvas widens so that no end is cut."""
    height, width = image.shape
    u = rng.uniform(-1.0, 1.0, 6)
    slant = min(0.25 * strength, 0.6) * u[0]
    # A long line leaves its strip at an angle that a word does not notice: bound the rise.
    rise = min(0.035 * strength, 0.12 * strength * height / width) * u[1]
    scale_x = float(np.exp(0.10 * strength * u[2]))
    scale_y = float(np.exp(0.07 * strength * u[3] - 0.03 * strength))
    out_width = max(1, round(width * scale_x + abs(slant) * height))
    # Forward map about the centres: source (x, y) -> destination.
    linear = np.array([[scale_x, -slant * scale_y], [rise, scale_y]])
    source = np.array([(width - 1) / 2, (height - 1) / 2])
    target = np.array([(out_width - 1) / 2, (height - 1) / 2])
    target += 0.04 * strength * height * u[4:6]
    matrix = np.column_stack([linear, target - linear @ source])
    return _as_grey(
        cv2.warpAffine(
            image,
            matrix,
            (out_width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(background(image)),
        )
    )


def _elastic(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    """A smooth random displacement: a coarse field of normal numbers, upscaled (Simard et al. 2003)."""
    height, width = image.shape
    spacing = max(6.0, height / 3)
    # Neighbouring points differ by up to 4 amplitudes; beyond the spacing strokes would fold.
    amplitude = min(0.025 * strength * height, 0.18 * spacing)
    coarse = (max(2, round(height / spacing) + 1), max(2, round(width / spacing) + 1))
    field = np.clip(rng.standard_normal((*coarse, 2), dtype=np.float32), -2, 2) * np.float32(amplitude)
    field = np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR))
    field = field.reshape(height, width, 2)
    field[..., 0] += np.arange(width, dtype=np.float32)
    field[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    return _as_grey(
        cv2.remap(
            image,
            field[..., 0],
            field[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(background(image)),
        )
    )


def _perspective(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    """The page seen at an angle: each corner moves inwards, so nothing leaves the strip."""
    height, width = image.shape
    dx = min(0.15 * strength * height, 0.2 * width) * rng.random(4)
    dy = min(0.12 * strength, 0.3) * height * rng.random(4)
    right, bottom = max(width - 1, 1), height - 1
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    moved = corners + inwards * np.stack([dx, dy], axis=1).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, moved)
    return _as_grey(
        cv2.warpPerspective(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(background(image)),
        )
    )


# --- strokes, light and grain -----------------------------------------------------------


def _morphological(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    """Thicker strokes (erosion of the light paper) or thinner ones, blended with the original."""
    height = image.shape[0]
    size = max(2, round(height / 28 * (0.6 + 0.4 * strength)))
    kernel = np.ones((size, size), np.uint8)
    u = rng.random(2)
    if u[0] < 0.5:
        changed, most = cv2.erode(image, kernel), min(0.8 * strength, 1.0)
    else:
        # A pen stroke is two or three pixels wide: thinning it fully would erase it.
        changed, most = cv2.dilate(image, kernel), min(0.45 * strength, 0.6)
    share = most * (0.3 + 0.7 * u[1])
    return _as_grey(cv2.addWeighted(image, 1 - share, changed, share, 0))


def _blur(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    height = image.shape[0]
    u = rng.random(3)
    amount = strength * (0.5 + 0.5 * u[0]) * height / 64
    if u[1] < 0.6:
        return _as_grey(cv2.GaussianBlur(image, (0, 0), sigmaX=max(0.9 * amount, 0.1)))
    # Motion: a short line of weights at a random angle, with anti-aliased ends.
    length = 1 + 3.0 * amount
    radius = int(np.ceil(length / 2))
    offsets = np.arange(-radius, radius + 1)
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    angle = np.pi * u[2]
    along = np.abs(x * np.cos(angle) + y * np.sin(angle))
    across = np.abs(-x * np.sin(angle) + y * np.cos(angle))
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return _as_grey(cv2.filter2D(image, -1, (kernel / kernel.sum()).astype(np.float32)))


def _colour(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    """Contrast about the paper, brightness, and now and then the negative, in one table."""
    paper = background(image)
    u = rng.random(3)
    contrast = np.exp(0.35 * strength * (2 * u[0] - 1))
    # Paper pushed beyond white would swallow pale ink; paper below grey would drown dark ink.
    lowest = -min(45 * strength, max(0, paper - 110))
    highest = min(30 * strength, 255 - paper)
    shift = lowest + (highest - lowest) * u[1]
    table = (_LEVELS - paper) * contrast + (paper + shift)
    if u[2] < INVERSION * strength:
        table = 255 - table
    return _as_grey(cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8)))


def _noise(image: Grey, strength: float, rng: np.random.Generator) -> Grey:
    u = rng.random(2)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    level = strength * (0.3 + 0.7 * u[0])
    if u[1] < 0.5:
        grain *= np.float32(12 * level)  # sensor noise: the same everywhere
    else:
        grain *= image  # speckle: in proportion to the light
        grain *= np.float32(0.06 * level)
    grain += image
    np.rint(grain, out=grain)
    return np.clip(grain, 0, 255, out=grain).astype(np.uint8)


def _as_grey(image: object) -> Grey:
    """OpenCV's stubs say only "some array"."""
    return np.asarray(image, dtype=np.uint8)
