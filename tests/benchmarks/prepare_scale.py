"""Preparing many lines: speed against a plain script, and memory over time.

    python tests/benchmarks/prepare_scale.py [--lines 200000] [--source dhsd.parquet] [--out FILE.md]

The input is made of the lines of SOURCE again and again, under new names and writers, as Parquet files of
1,000 lines: pixels and texts are real, their number is not. Two ways, in one run, one after the other:

plain: one process reads a row, decodes the image to prove it whole, cleans the text and writes the line
       to a split chosen by a hash of its writer (`check_line` and `CorpusWriter`, in a loop);
ours:  `prepare()`, on all cores, with its own process tree watched.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
import time
import zlib
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from htr_ray.corpus.importers.check import RawLine, check_line
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.parquet import units
from htr_ray.corpus.prepare import prepare
from htr_ray.corpus.schema import Imported, Split
from htr_ray.corpus.write import CorpusWriter

FILE_LINES = 1000
SOURCE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lines" / "dhsd.parquet"


def make_input(source: Path, lines: int, folder: Path) -> int:
    """Write the input; return its bytes."""
    table = pq.read_table(source, columns=["image", "text", "writer"])
    size = 0
    for number in range(lines // FILE_LINES):
        rows = [(number * FILE_LINES + i) % table.num_rows for i in range(FILE_LINES)]
        part = table.take(rows)
        lap = number * FILE_LINES // table.num_rows
        # Images and texts repeat, ids and writers do not: nothing is set aside as the same line twice.
        part = part.set_column(2, "writer", pa.array([f"{w}-{lap}" for w in part["writer"].to_pylist()]))
        part = part.append_column("id", pa.array([f"line-{number}-{i}" for i in range(FILE_LINES)]))
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(part, path, row_group_size=250)
        size += path.stat().st_size
    return size


def plain(folder: Path, out: str) -> int:
    """The loop that one would write by hand."""
    kept = 0
    with CorpusWriter(out, "plain") as writer:
        for path in sorted(folder.glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(256):
                for row in batch.to_pylist():
                    found = check_line(RawLine(row["id"], row["image"]["bytes"], row["text"], row["writer"]))
                    if isinstance(found, Imported):
                        place = zlib.crc32(str(row["writer"]).encode()) % 10
                        split: Split = "test" if place == 0 else "val" if place == 1 else "train"
                        writer.add(found.line, split)
                        kept += 1
    return kept


class Watch(threading.Thread):
    """Resident memory of this process, and of all its children, in MB, once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.curve: list[tuple[float, float, float]] = []
        self._finished = threading.Event()
        self._began = time.monotonic()

    def run(self) -> None:
        me = psutil.Process(os.getpid())
        while not self._finished.wait(1.0):
            children = 0
            for child in me.children(recursive=True):
                try:
                    # Shared memory (the object store) would count once per process.
                    memory = child.memory_info()
                    children += memory.rss - memory.shared
                except psutil.Error:
                    continue
            own = me.memory_info()
            self.curve.append((time.monotonic() - self._began, (own.rss - own.shared) / 1e6, children / 1e6))

    def end(self) -> None:
        self._finished.set()
        self.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--source", type=Path, default=SOURCE)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="htr-ray-scale-") as scratch:
        folder = Path(scratch) / "input"
        folder.mkdir()
        size = make_input(asked.source, asked.lines, folder)
        began = time.monotonic()
        kept = plain(folder, f"{scratch}/plain")
        plain_seconds = time.monotonic() - began
        watch = Watch()
        watch.start()
        began = time.monotonic()
        report = prepare("parquet", str(folder), scratch, "ours", options=ImportOptions())
        seconds = time.monotonic() - began
        watch.end()
        units_made = sum(1 for _ in units(str(folder), ImportOptions()))
    assert report["lines"] == kept
    every = max(1, len(watch.curve) // 12)
    print(
        json.dumps(
            {
                "lines": kept,
                "input_mb": round(size / 1e6),
                "units": units_made,
                "plain_lines_per_second": round(kept / plain_seconds),
                "ours_lines_per_second": round(kept / seconds),
                "ratio": round(plain_seconds / seconds, 2),
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "private_memory_mb (seconds, driver, workers)": [
                    [round(value) for value in point] for point in watch.curve[::every]
                ],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
