"""Line images with the slant of the hand or the shading of the paper taken out: what would that be worth?

    python tests/benchmarks/normalise_lines.py dhsd.parquet deslanted.parquet --how deslant [--look pairs.png]
    python jobs/prepare_data.py --format parquet --input deslanted.parquet --output deslanted --name dhsd

For tests/benchmarks/levers.py (results/levers.md). Reads and writes the layout of a Parquet file of lines, whose column
``image`` holds ``bytes`` and ``path``; all else stays as it is. Images come out as 8-bit grey PNG, dark on light.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.stream.augment import Grey

SHEARS = np.tan(np.radians(np.arange(-45, 46, 3)))
"""Slants that are tried, as pixels sideways per pixel of height."""


def ink(image: Grey) -> Grey:
    """1 where there is ink, uint8 ``[H, W]`` (Otsu 1979)."""
    return cv2.threshold(image, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1].astype(np.uint8)


def sheared(image: Grey, shear: float, paper: int) -> Grey:
    """The line with its top moved sideways, on paper that is as much wider."""
    height, width = image.shape
    more = abs(shear) * height
    matrix = np.array([[1.0, shear, more if shear < 0 else 0.0], [0.0, 1.0, 0.0]])
    size = (width + int(np.ceil(more)), height)
    made = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=paper
    )
    return made.astype(np.uint8)


def deslant(image: Grey) -> Grey:
    """Strokes made upright: the shear under which most columns are one unbroken stroke (Vinciarelli, Luettin 2001)."""
    small = cv2.resize(image, (max(1, image.shape[1] * 64 // image.shape[0]), 64), interpolation=cv2.INTER_AREA)
    strokes = ink(small.astype(np.uint8))
    rows = np.arange(64)[:, None]

    def score(shear: float) -> float:
        moved = sheared(strokes, shear, 0)
        count = moved.sum(0, dtype=np.int64)
        last, first = (rows * moved).max(0), np.where(moved > 0, rows, 64).min(0)
        unbroken = (count > 0) & (last - first + 1 == count)
        return float((count[unbroken] ** 2).sum())

    best = max(SHEARS, key=lambda shear: (score(shear), -abs(shear)))
    return sheared(image, float(best), int(np.median(image)))


def background(image: Grey) -> Grey:
    """Paper made white, ink black: divided by the paper around it, stretched between the 1st and 99th percent."""
    radius = max(3, image.shape[0] // 3) | 1
    paper = cv2.dilate(image, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (radius, radius)))
    paper = cv2.GaussianBlur(paper, (0, 0), radius / 2)
    even = image / np.maximum(paper.astype(np.float32), 1.0)
    low, high = np.percentile(even, (1, 99))
    return np.clip(255 * (even - low) / max(high - low, 1e-3), 0, 255).astype(np.uint8)


HOW: dict[str, Callable[[Grey], Grey]] = {"deslant": deslant, "background": background}


def pairs(before: list[Grey], after: list[Grey]) -> Grey:
    """Lines above what became of them, on one sheet: uint8 ``[H, W]``."""
    shown = [line for both in zip(before, after, strict=True) for line in both]
    width = max(line.shape[1] for line in shown)
    return np.vstack([np.pad(line, ((2, 4), (0, width - line.shape[1])), constant_values=128) for line in shown])


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("input", type=Path)
    made.add_argument("output", type=Path)
    made.add_argument("--how", choices=sorted(HOW), required=True)
    made.add_argument("--look", type=Path, help="a PNG of some lines before and after")
    asked = made.parse_args()
    table = pq.read_table(asked.input)
    images = table.column("image").to_pylist()
    before, after = [], []
    for image in images:
        try:
            line = decode_grey(image["bytes"])
        except ValueError:  # set aside and counted by jobs/prepare_data.py
            continue
        changed = HOW[asked.how](line)
        image["bytes"] = encode_png(changed)
        if len(before) < 16:
            before.append(line)
            after.append(changed)
    column = pa.array(images, type=table.schema.field("image").type)
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", column), asked.output)
    if asked.look:
        asked.look.write_bytes(encode_png(pairs(before, after)))


if __name__ == "__main__":
    main()
