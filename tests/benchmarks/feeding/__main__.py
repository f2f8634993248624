"""Feeding: our stream against torch's DataLoader, webdataset and mosaicml-streaming.

    python -m venv PEERS && PEERS/bin/pip install -c constraints.txt -e . && \\
        PEERS/bin/pip install --no-deps webdataset mosaicml-streaming   # and what `import streaming` then asks for
    python tests/benchmarks/feeding CORPUS_URI --peers PEERS/bin/python [--latency 50] [--lines 50000]

Same lines, same decoding, scaling and augmentation (preset `small`), batches of the same size, the same number of
worker processes, the consumer in another. Contenders take turns, ``--rounds`` times; medians are printed. CPU seconds
are those of all processes of a contender (control groups), so that they hold where other work shares the machine;
``--pace`` lets the consumer be busy with every batch for so many seconds, as a training process is. ``first`` is the
time from opening the lines to the first batch with all modules imported and the cluster up (``warm``: and a stream
read before it).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scene import Scene, environment
from usage import VARIABLE, Group

from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Line
from htr_ray.corpus.write import CorpusWriter

HERE = Path(__file__).parent
NAMES = ("ours", "torch", "webdataset", "mosaic")


def repeated(uri: str, lines: int, folder: Path) -> str:
    """The training lines of a corpus, again and again, as a corpus of so many."""
    corpus = Corpus.open(uri)
    target = folder / f"corpus-{lines}"
    written = 0
    with CorpusWriter(str(target), corpus.info.name) as writer:
        while written < lines:
            for file in corpus.files("train"):
                for group in range(-(-corpus.info.counts["train"].lines // 256)):
                    for row in corpus.read_row_group(file, group).to_pylist()[: lines - written]:
                        writer.add(Line(**{**row, "id": f"{row['id']}-{written}"}), "train")
                        written += 1
    return str(target)


@contextmanager
def s3_server(latency: float) -> Iterator[str]:
    server = subprocess.Popen([sys.executable, HERE / "slow_s3.py", str(latency)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def upload(folder: Path, endpoint: str, prefix: str) -> str:
    """Copy a folder to the server; returns its ``s3://`` URI."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket="lines")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    keys = [f"{prefix}/{path.relative_to(folder)}" for path in files]
    public = {"ACL": "public-read"}  # webdataset fetches with curl, which does not sign
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path, key: client.upload_file(str(path), "lines", key, ExtraArgs=public), files, keys))
    return f"s3://lines/{prefix}"


def run(name: str, scene: Scene, endpoint: str | None, options: argparse.Namespace) -> dict[str, Any]:
    """One contender, once, in a new process and control group, with an empty cache."""
    python = options.peers if name in NAMES[1:] else sys.executable
    name, _, checkout = name.partition("=")
    path = {"PYTHONPATH": checkout} if checkout else {}
    with tempfile.TemporaryDirectory() as place:
        Path(scene.cache).mkdir(parents=True)
        answer = Path(place) / "answer.json"
        asked = {
            "name": name if name in NAMES else "ours",
            "scene": asdict(scene),
            "epochs": options.epochs,
            "pace": options.pace,
        }
        group = Group("feeding")
        try:
            subprocess.run(
                [python, HERE / "contender.py", json.dumps({**asked, "answer": str(answer)})],
                env={**environment(endpoint), **path, VARIABLE: group.name},
                preexec_fn=group.enter,
                # Ray's workers import from where their driver stands.
                cwd=checkout or None,
                stdout=subprocess.DEVNULL,
                stderr=None if options.verbose else subprocess.DEVNULL,
                check=True,
            )
        finally:
            group.close()
            shutil.rmtree(scene.cache)
        return {**json.loads(answer.read_text()), "peak": group.peak}


def figures(result: dict[str, Any]) -> dict[str, float]:
    """Of one run: what the table shows."""
    first, *later = result["epochs"]
    assert all(epoch["distinct"] == first["lines"] for epoch in result["epochs"][:1])

    def per_thousand(epochs: list[dict[str, Any]], idle: float = 0.0) -> float:
        lines = sum(epoch["lines"] for epoch in epochs)
        return 1000 * sum(epoch["cpu"] - idle * epoch["seconds"] for epoch in epochs) / lines

    return {
        "lines/s": sum(e["lines"] for e in later) / sum(e["seconds"] for e in later),
        "lines/s, all epochs": sum(e["lines"] for e in result["epochs"]) / sum(e["seconds"] for e in result["epochs"]),
        "lines/s, 1st epoch": first["lines"] / first["seconds"],
        "CPU s/1000": per_thousand(later),
        "without idle head": per_thousand(later, result["idle"]),
        "CPU s/1000, 1st epoch": per_thousand([first]),
        "first, s": first["first_batch"],
        "first warm, s": result["first_batch_warm"],
        "epoch start, s": statistics.median(e["first_batch"] for e in later),
        "peak MB": result["peak"] / 1e6,
        "growth MB": (later[-1]["memory"] - first["memory"]) / 1e6,
        "padding %": 100 * result["padding"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--peers", default=sys.executable, help="Python that has webdataset and mosaicml-streaming")
    parser.add_argument(
        "--only",
        nargs="+",
        default=NAMES,
        help=f"of {', '.join(NAMES)}; before=PATH: our stream as in another checkout",
    )
    parser.add_argument("--latency", type=float, help="lines lie on an S3 server that waits so many milliseconds")
    parser.add_argument("--lines", type=int, help="repeat the lines into a corpus of so many")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="worker processes of each contender")
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--cache-mb", type=int, help="stream.cache_mb of ours")
    parser.add_argument("--folder", help="where the other layouts are written and kept (default: a temporary folder)")
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--verbose", action="store_true", help="show what the contenders print")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary) / Path(options.corpus.rstrip("/")).name
        compare(options, folder, Path(temporary))


def compare(options: argparse.Namespace, folder: Path, temporary: Path) -> None:
    source = repeated(options.corpus, options.lines, temporary) if options.lines else options.corpus
    if options.lines:
        folder = folder.with_name(f"{folder.name}-{options.lines}")
    stream = {"workers": options.workers}
    if options.cache_mb is not None:
        stream["cache_mb"] = options.cache_mb
    for name in options.only:
        if name in NAMES[1:] and not (folder / name).exists():
            command = [options.peers, str(HERE / "peers.py"), name, source, str(folder / name)]
            subprocess.run(command, check=True, env=environment(None))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
    for _ in range(options.rounds):
        for name in options.only:
            scene = Scene(source, str(folder / name), str(temporary / "cache"), options.batch_size, stream)
            if options.latency is None:
                result = run(name, scene, None, options)
            else:
                with s3_server(options.latency) as endpoint:
                    peer = name in NAMES[1:]
                    uri = upload(folder / name if peer else Path(source), endpoint, "corpus")
                    there = replace(scene, source=source if peer else uri, peer=uri)
                    result = run(name, there, endpoint, options)
            found[name].append(figures(result))
            print(name, json.dumps({key: round(value, 3) for key, value in found[name][-1].items()}), flush=True)
    show(found)
    if options.json:
        Path(options.json).write_text(json.dumps({"options": vars(options), "found": found}, indent=1))


def show(found: dict[str, list[dict[str, float]]]) -> None:
    table = Table(box=None)
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")
    for key in next(iter(found.values()))[0]:
        values = [statistics.median(run[key] for run in runs) for runs in found.values()]
        table.add_row(key, *(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
