"""Cutting views into tiles and putting them together in another order (jigsaw, sorting)."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from htr_ray.stream.augment import Grey

Order = npt.NDArray[np.int64]

_LEVELS = np.arange(256, dtype=np.float32)


def cut(image: Grey, rows: int, columns: int) -> list[Grey]:
    """Cut ``[rows * h, columns * w]`` into equal tiles ``[h, w]``, row by row."""
    height, width = image.shape[0] // rows, image.shape[1] // columns
    return [
        image[r * height : (r + 1) * height, c * width : (c + 1) * width] for r in range(rows) for c in range(columns)
    ]


def assemble(tiles: list[Grey], rows: int, columns: int) -> Grey:
    """Put equal tiles together row by row; the inverse of :func:`cut`."""
    return np.vstack([np.hstack(tiles[r * columns : (r + 1) * columns]) for r in range(rows)])


def shuffled(tiles: list[Grey], order: Order) -> list[Grey]:
    """Position k gets tile ``order[k]``: a network that names ``order`` can undo it."""
    return [tiles[int(i)] for i in order]


def inverse(order: Order) -> Order:
    """The order that undoes ``order``."""
    return np.argsort(order).astype(np.int64)


def even_out(tiles: list[Grey], paper: int) -> list[Grey]:
    """Bring the ink of all tiles to one darkness, by their weighted mean depth.

    A pen that runs dry, or a lamp that the guard missed, would number the tiles. Blank tiles
    are left alone.
    """
    depths = np.array([_depth(tile, paper) for tile in tiles], np.float32)
    inked = depths > 12
    if not inked.any():
        return tiles
    factors = np.where(inked, np.clip(depths[inked].mean() / np.maximum(depths, 1), 0.5, 2.0), 1.0)
    tables = paper + (_LEVELS - paper) * factors[:, None]
    tables = np.clip(np.rint(tables), 0, 255).astype(np.uint8)
    return [np.asarray(cv2.LUT(tile, table), np.uint8) for tile, table in zip(tiles, tables, strict=True)]


def _depth(tile: Grey, paper: int) -> float:
    """Mean darkness below paper, weighted by itself: the depth of the ink, whatever its amount."""
    mean, deviation = cv2.meanStdDev(tile)
    first = paper - float(mean[0, 0])
    return (float(deviation[0, 0]) ** 2 + first**2) / max(first, 0.5)


def detach(tile: Grey, gap: float, paper: int, rows: int, rng: np.random.Generator) -> Grey:
    """Keep a random part of a tile, ``1 - gap`` of its sides, at a random place on paper.

    Strokes then no longer run on from tile to tile, baselines no longer meet. A grid of one
    row has no cut above or below: there the tile is only shifted, by up to half the gap.
    """
    if gap <= 0:
        return tile
    height, width = tile.shape
    u = rng.random(4)
    keep_x = max(1, round(width * (1 - gap)))
    from_x, to_x = int(u[0] * (width - keep_x + 1)), int(u[1] * (width - keep_x + 1))
    out = np.full_like(tile, paper)
    if rows > 1:
        keep_y = max(1, round(height * (1 - gap)))
        from_y, to_y = int(u[2] * (height - keep_y + 1)), int(u[3] * (height - keep_y + 1))
    else:
        shift = round((u[2] - 0.5) * gap * height)
        from_y, to_y, keep_y = max(0, -shift), max(0, shift), height - abs(shift)
    out[to_y : to_y + keep_y, to_x : to_x + keep_x] = tile[from_y : from_y + keep_y, from_x : from_x + keep_x]
    return out


def puzzle(
    image: Grey, rows: int, columns: int, order: Order, gap: float, paper: int, rng: np.random.Generator
) -> Grey:
    """Cut, even out, detach, shuffle and assemble; same shape as ``image``."""
    tiles = [detach(tile, gap, paper, rows, rng) for tile in even_out(cut(image, rows, columns), paper)]
    return assemble(shuffled(tiles, order), rows, columns)
