"""Preparing many lines: speed against a plain script, and memory over time.

    python tests/benchmarks/prepare_scale.py [--input small|medium|heavy] [--lines 200000] [--rounds 2] [--json FILE]

The input is made of real lines again and again, under new names and writers, as Parquet files of 1,000 lines:

small:  `dhsd` as it is, grey JPEG of 256x64;
medium: `testaments` as it is, grey JPEG, 837x64 in the middle;
heavy:  `dhsd` as an archive would have it: four times as large, colour JPEG (1024x256), on paper with a tint and grain.

Each way runs in a process of its own, one after the other, round after round, so that what else the machine does
falls on all of them; how much that was is told too. The ways, with the same result:

plain:   one process, line by line: decode the image to prove it whole (as PNG if it was colour), clean the text,
         leave out what came twice, keep the lines in a temporary file; then in random order through the corpus
         writer; then the report. Its functions are those of htr_ray, with all their short cuts.
pillow:  the same, but images are decoded and encoded by Pillow, as a script by hand would.
ours:    `prepare()`, with worker processes on all cores.
ray:     `prepare()` by Ray Data on a Ray of its own, with its start (RAY_ADDRESS=local).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.importers import check
from htr_ray.corpus.importers.check import RawLine, check_line
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.prepare import prepare
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.schema import Imported, Line, Split
from htr_ray.corpus.write import CorpusWriter

FILE_LINES = 1000
DISTINCT = 2000
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "lines"
SOURCES = {"small": "dhsd", "medium": "testaments", "heavy": "dhsd"}
WAYS = ("plain", "pillow", "ours", "ray")


def make_input(kind: str, lines: int, folder: Path) -> int:
    """Write the input; return its bytes."""
    table = pq.read_table(DATA / f"{SOURCES[kind]}.parquet", columns=["image", "text", "writer"])
    if kind == "heavy":
        table = table.slice(0, DISTINCT)
        images = [{"bytes": _as_scanned(row["bytes"], i)} for i, row in enumerate(table["image"].to_pylist())]
        table = table.set_column(0, "image", pa.array(images))
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


def _as_scanned(data: bytes, seed: int) -> bytes:
    """A line as a colour scan of four times the size: tinted paper, grain."""
    grey = cv2.resize(decode_grey(data), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    grain = np.random.default_rng(seed).normal(0, 2.5, grey.shape)
    colour = (grey + grain)[..., None] * np.array([0.98, 0.93, 0.80])
    sink = io.BytesIO()
    Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8)).save(sink, "JPEG", quality=88)
    return sink.getvalue()


def plain(folder: Path, out: str) -> None:
    """The loop that one would write by hand."""
    facts: list[tuple[Any, ...]] = []
    seen: dict[str, bytes] = {}
    with tempfile.TemporaryFile() as images:
        for path in sorted(folder.glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(256):
                for row in batch.to_pylist():
                    found = check_line(RawLine(row["id"], row["image"]["bytes"], row["text"], row["writer"]))
                    if not isinstance(found, Imported):
                        continue
                    line = found.line
                    digest = blake2b(line.image + (line.text or "").encode(), digest_size=8).digest()
                    if seen.get(line.id) == digest:
                        continue
                    seen[line.id] = digest
                    facts.append(
                        (images.tell(), len(line.image), line.id, line.width, line.height, line.text, line.writer)
                    )
                    images.write(line.image)
        images.flush()
        random.Random(0).shuffle(facts)
        with CorpusWriter(out, "plain") as writer:
            for start, size, id_, width, height, text, hand in facts:
                place = zlib.crc32(str(hand).encode()) % 10
                split: Split = "test" if place == 0 else "val" if place == 1 else "train"
                image = os.pread(images.fileno(), size, start)
                writer.add(Line(id_, image, width, height, text, hand), split)
    summarise(Corpus.open(out))


def _by_pillow(data: bytes) -> tuple[bytes, int, int]:
    image = Image.open(io.BytesIO(data))
    image.load()
    if image.mode == "L":
        return data, image.width, image.height
    sink = io.BytesIO()
    image.convert("L").save(sink, "PNG", compress_level=1)
    return sink.getvalue(), image.width, image.height


class Watch(threading.Thread):
    """Memory of this process, and of all its children, in MB, once a second; and the CPU seconds of the children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.curve: list[tuple[float, float, float]] = []
        # By process, as last seen: Ray's are nobody's children at the end, whose time would be known then.
        self.cpu: dict[int, float] = {}
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
                    times = child.cpu_times()
                    self.cpu[child.pid] = times.user + times.system
                except psutil.Error:
                    continue
            own = me.memory_info()
            self.curve.append((time.monotonic() - self._began, (own.rss - own.shared) / 1e6, children / 1e6))

    def end(self) -> None:
        self._finished.set()
        self.join()


def one_way(way: str, folder: Path, out: str) -> None:
    """Go one way, in this process; print what it took."""
    watch = Watch()
    watch.start()
    began, others, before = time.monotonic(), _busy(), _cpu(resource.RUSAGE_SELF)
    if way in ("plain", "pillow"):
        if way == "pillow":
            check.as_grey_file = _by_pillow  # type: ignore[assignment]
        plain(folder, f"{out}/c")
    else:
        prepare("parquet", str(folder), out, "c", options=ImportOptions())
    seconds = time.monotonic() - began
    busy = _busy() - others
    watch.end()
    cpu = _cpu(resource.RUSAGE_SELF) - before
    workers = sum(watch.cpu.values())
    lines = sum(Corpus.open(f"{out}/c").info.counts[split].lines for split in ("train", "val", "test"))
    found = {"way": way, "lines": lines, "seconds": seconds, "cpu": cpu, "workers_cpu": workers, "machine_cpu": busy}
    print(json.dumps({**found, "curve": watch.curve}))


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _busy() -> float:
    """CPU seconds that the machine has worked since it started, for anyone."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def run(way: str, folder: Path, scratch: str) -> dict[str, Any]:
    """Go one way, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"RAY_ADDRESS": "local"} if way == "ray" else {})}
        command = [sys.executable, __file__, "--one-way", way, "--folder", str(folder), "--out", out]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", choices=list(SOURCES), default="small")
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", type=Path)
    for hidden in ("--one-way", "--folder", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one_way:
        one_way(asked.one_way, Path(asked.folder), asked.out)
        return
    with tempfile.TemporaryDirectory(prefix="htr-ray-scale-") as scratch:
        folder = Path(scratch) / "input"
        folder.mkdir()
        size = make_input(asked.input, asked.lines, folder)
        machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
        print(f"{asked.input}: {asked.lines} lines, {size / 1e6:.0f} MB; {machine}", flush=True)
        runs = []
        for number in range(asked.rounds):
            for way in asked.ways:
                runs.append({"round": number, **run(way, folder, scratch)})
                print(describe(runs[-1]), flush=True)
                if asked.json:
                    asked.json.write_text(json.dumps({"input": asked.input, "bytes": size, "runs": runs}))


def describe(one: dict[str, Any]) -> str:
    """A run in two lines: figures, and memory at twelve points (second: driver + workers, MB)."""
    curve = one["curve"]
    points = "  ".join(f"{t:.0f}: {own:.0f}+{others:.0f}" for t, own, others in curve[:: max(1, len(curve) // 12)])
    return (
        f"{one['way']:7s} {one['lines']} lines, {one['lines'] / one['seconds']:7.0f} lines/s, {one['seconds']:6.1f} s, "
        f"CPU {one['cpu']:.1f} s + workers {one['workers_cpu']:.1f} s, of the machine's {one['machine_cpu']:.1f} s"
        f"\n        {points}"
    )


if __name__ == "__main__":
    main()
