"""Lines cut out of real pages, beside kraken's: speed, heights, and a picture of some of both.

kraken lives in an environment of its own (``python3 -m venv K && K/bin/pip install torch kraken``):

    python tests/benchmarks/extraction.py ../shared/data/pages K/bin/python tests/benchmarks/results/extraction

writes ``extraction.png`` and prints the table of ``extraction.md``. Both cut the same lines of the same grey
images, on one core, in CPU seconds; decoding and encoding are left out, and timed apart for htr-ray.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

_REPEATS = 3
# Capitals that are cut, slopes, accents and commas, flourishes; from pages whose licence lets us show them.
_SHOWN = [
    ("TestamentsDePoilus_will_AD78_0003-1", 0),
    ("TestamentsDePoilus_will_AD78_0009-1", 0),
    ("TestamentsDePoilus_will_AD78_0009-1", 1),
    ("TestamentsDePoilus_will_AD78_0002-0", 1),
    ("TestamentsDePoilus_will_AD78_0002-0", 8),
    ("TestamentsDePoilus_will_AD78_0002-0", 20),
    ("TestamentsDePoilus_will_AD78_0002-0", 21),
    ("btv1b52504356m_f100", 1),
    ("btv1b52504356m_f100", 4),
    ("btv1b52504356m_f101", 1),
    ("btv1b52504356m_f101", 5),
    ("btv1b52504356m_f101", 7),
]
_COLUMN, _ROW = 520, 56

# Runs in kraken's environment: the lines of each page by id, and the seconds it took.
_KRAKEN = """
import dataclasses, json, sys, time
import numpy as np
from PIL import Image
from kraken.lib.segmentation import extract_polygons
from kraken.lib.xml import XMLPage
target, repeats, *pages = sys.argv[1:]
seconds = {}
for page in pages:
    segmentation = XMLPage(page).to_container()
    image = Image.open(segmentation.imagename).convert("L")
    image.load()
    stem = page.rpartition("/")[2].removesuffix(".xml")
    best = float("inf")
    for _ in range(int(repeats)):
        start = time.process_time()
        lines = {line.id: np.asarray(cut) for cut, line in extract_polygons(image, segmentation)}
        best = min(best, time.process_time() - start)
    seconds[stem] = best
    np.savez(f"{target}/{stem}.npz", **lines)
print(json.dumps(seconds))
"""


def main(pages: str, kraken: str, target: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    cv2.setNumThreads(1)
    files = [path for path in sorted(Path(pages).rglob("*.xml")) if ".chocomufin." not in path.name]
    ours, rows = {}, {}
    for path in files:
        ours[path.stem], rows[path.stem] = _cut(path)
    with tempfile.TemporaryDirectory() as folder:
        command = [kraken, "-W", "ignore", "-c", _KRAKEN, folder, str(_REPEATS), *map(str, files)]
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        seconds = json.loads(printed.splitlines()[-1])
        theirs = {stem: dict(np.load(f"{folder}/{stem}.npz")) for stem in ours}
    _table(ours, theirs, rows, seconds)
    names = [(stem, list(ours[stem])[number]) for stem, number in _SHOWN]
    sheet = np.concatenate([_pair(ours[stem][name], theirs[stem][name]) for stem, name in names])
    cv2.imwrite(f"{target}.png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _cut(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The lines of a page by id, and the CPU seconds of each step."""
    from htr_ray.corpus.extract import Page
    from htr_ray.corpus.images import decode_grey, encode_png
    from htr_ray.corpus.importers import alto, page
    from htr_ray.corpus.importers.pages import outlines

    best: dict[str, float] = {}

    def took(step: str, start: float) -> None:
        best[step] = min(best.get(step, float("inf")), time.process_time() - start)

    for _ in range(_REPEATS):
        start = time.process_time()
        data = path.read_bytes()
        layout = alto.parse(data) if b"<alto" in data else page.parse(data)
        took("parse", start)
        start = time.process_time()
        image = decode_grey(path.with_suffix(".jpg").read_bytes())
        took("decode", start)
        start = time.process_time()
        found = outlines(layout, image.shape)
        source = Page(image, found)
        lines = [source.cut(outline) for outline in found]
        took("cut", start)
        start = time.process_time()
        for line in lines:
            encode_png(line)
        took("encode", start)
    return {told.id: line for told, line in zip(layout.lines, lines, strict=True)}, best


def _table(
    ours: dict[str, dict[str, np.ndarray]],
    theirs: dict[str, dict[str, np.ndarray]],
    rows: dict[str, dict[str, float]],
    seconds: dict[str, float],
) -> None:
    print("| page | lines | htr-ray lines/s | kraken lines/s | ours + decode + PNG | height: ours | kraken's |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for stem, lines in ours.items():
        heights = [float(np.median([line.shape[0] for line in some.values()])) for some in (lines, theirs[stem])]
        speeds = [len(lines) / time for time in (rows[stem]["cut"], seconds[stem], sum(rows[stem].values()))]
        numbers = [*(f"{speed:.0f}" for speed in speeds), *(f"{height:.0f}" for height in heights)]
        print(f"| {stem} | {len(lines)} | " + " | ".join(numbers) + " |")
    count = sum(map(len, ours.values()))
    totals = [sum(row["cut"] for row in rows.values()), sum(seconds.values())]
    totals.append(sum(sum(row.values()) for row in rows.values()))
    print(f"| all | {count} | " + " | ".join(f"{count / total:.0f}" for total in totals) + " | | |")


def _pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Both at the same height, cut off on the right where they are long."""
    return np.concatenate([_cell(left), _cell(right)], axis=1)


def _cell(line: np.ndarray) -> np.ndarray:
    scale = _ROW / line.shape[0]
    small = cv2.resize(line, (max(round(line.shape[1] * scale), 1), _ROW), interpolation=cv2.INTER_AREA)
    cell = np.full((_ROW + 6, _COLUMN), 255, np.uint8)
    cell[3:-3, : min(small.shape[1], _COLUMN - 8)] = small[:, : _COLUMN - 8]
    return cell


if __name__ == "__main__":
    main(*sys.argv[1:])
