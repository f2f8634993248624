"""Train a contender for a budget of CPU time, read the test lines with it, and write what came out.

    python tests/benchmarks/peers/recognition.py CONTENDER CORPUS_URI --environments DIR --work DIR --json FILE
        [--minutes 15] [--label-fraction 1.0] [--seed 0] [--every 1] [more words for the command that trains]

The clock is CPU time of the training and all its processes, start-up and validation included; then it is stopped, and
the checkpoint that it rates best on the validation lines reads the test lines. htr-ray ends by itself after so many
minutes on the wall, of training alone, so give it a core to itself and compare its CPU seconds. Errors are counted by
htr-ray's own metric for everybody. Run it with the htr-ray environment, on one core: taskset -c 0 python ...
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from contenders import CONTENDERS, REPOSITORY, Contender, Race
from cpu_clock import CpuClock, cpu_clock
from export import LINES, export, read_lines
from filelock import FileLock

from htr_ray.corpus.read import Corpus
from htr_ray.train.metrics import count_errors


def call(command: list[str], race: Race, environment: dict[str, str], clock: CpuClock, log: Path) -> float:
    """Run a command that must succeed; its CPU seconds."""
    spent = clock.run(command, log, environment=environment, cwd=race.work)
    if spent.exit_code != 0:
        sys.exit(f"{shlex.join(command)}: exit code {spent.exit_code}, see {log}")
    return spent.cpu_seconds


def anywhere(command: str, race: Race) -> str:
    """A command without this machine's folders: as it is written in the README of this folder."""
    places = {sys.executable: "python", f"{REPOSITORY}/": "", race.corpus: "CORPUS_URI", str(race.work): "W"}
    places |= {str(race.data): "DATA", str(race.environments): "PEERS"}
    for place in sorted(places, key=len, reverse=True):
        command = command.replace(place, places[place])
    return command


def train(contender: Contender, race: Race, clock: CpuClock) -> dict[str, Any]:
    """Train for the budget; what it cost, and the validations on the way."""
    for number, command in enumerate(contender.prepare(race)):
        call(command, race, contender.environment, clock, race.work / f"prepare-{number}.log")
    curve: list[dict[str, float]] = []

    def watch(seconds: float) -> None:
        for epochs, cer in contender.validations(race)[len(curve) :]:
            curve.append({"cpu_seconds": round(seconds, 1), "epochs": epochs, "val_cer": round(cer, 2)})

    command = contender.train(race)
    log = race.work / "train.log"
    budget = None if contender.bounded else 60.0 * race.minutes
    spent = clock.run(command, log, environment=contender.environment, cwd=race.work, budget=budget, watch=watch)
    if spent.exit_code not in (None, 0):
        sys.exit(f"{shlex.join(command)}: exit code {spent.exit_code}, see {log}")
    if not curve:
        sys.exit(f"{contender.name}: no validation within {race.minutes:g} minutes, see {log}")
    lines = len(read_lines(race.data)["train"])
    seen = round(curve[-1]["epochs"] * lines)
    return {
        "train_lines": lines,
        "lines_seen": seen,
        "lines_per_cpu_second": round(seen / curve[-1]["cpu_seconds"], 1),
        "cpu_seconds": round(spent.cpu_seconds, 1),
        "wall_seconds": round(spent.wall_seconds, 1),
        "val_cer": min(point["val_cer"] for point in curve),
        "curve": curve,
        "command": anywhere(shlex.join(command), race),
    }


def test(contender: Contender, race: Race, clock: CpuClock) -> dict[str, Any]:
    """Read the test lines with the best checkpoint."""
    for number, command in enumerate(contender.finish(race)):
        call(command, race, contender.environment, clock, race.work / f"finish-{number}.log")
    lines = read_lines(race.data)["test"]
    folder = race.work / "test"
    folder.mkdir()
    log = race.work / "test.log"
    seconds = call(contender.read(race, lines, folder), race, contender.environment, clock, log)
    readings = contender.readings(race, lines, folder, log.read_text(encoding="utf-8", errors="replace"))
    pairs = [(line.text, reading) for line, reading in zip(lines, readings, strict=True)]
    (race.work / "readings.json").write_text(json.dumps(pairs, ensure_ascii=False, indent=0), encoding="utf-8")
    errors = count_errors(pairs)
    return {
        "test_cer": round(errors.cer, 2),
        "test_wer": round(errors.wer, 2),
        "test_lines": errors.lines,
        "test_cpu_seconds": round(seconds, 1),
    }


def processor() -> str:
    """Name of the processor, and what of it torch's kernels use: a CPU that multiplies bfloat16 is another world."""
    told = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", told.read_text()) if told.exists() else []
    amx = ", AMX" if torch.cpu._is_amx_tile_supported() else ""
    bfloat16 = ", AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else ""
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()}{amx}{bfloat16})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("corpus")
    parser.add_argument("--environments", type=Path, required=True, help="folder that install.sh filled")
    parser.add_argument("--work", type=Path, required=True, help="folder for exported lines and for what is trained")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--label-fraction", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=1.0, help="epochs between validations")
    parser.add_argument("--name", help="name of the row, where more words change the contender")
    parser.add_argument("--no-test", action="store_true", help="validation only: for choosing settings")
    asked, extra = parser.parse_known_args()
    contender = CONTENDERS[asked.contender]
    corpus = Corpus.open(asked.corpus)
    data = asked.work.resolve() / "data" / f"{corpus.info.name}-{asked.label_fraction:g}-{asked.seed}"
    data.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{data}.lock"):  # two contenders that start together want the same lines
        if not (data / LINES).exists():
            export(corpus, data, asked.label_fraction, asked.seed)
    name = asked.name or asked.contender
    work = asked.work.resolve() / f"{name}-{corpus.info.name}-{asked.label_fraction:g}-{asked.seed}-{asked.minutes:g}"
    work.mkdir(parents=True)
    race = Race(
        corpus=corpus.uri,
        data=data,
        work=work,
        environments=asked.environments.resolve(),
        label_fraction=asked.label_fraction,
        seed=asked.seed,
        minutes=asked.minutes,
        every=asked.every,
        extra=tuple(extra),
    )
    environment = subprocess.run(contender.versions(race), capture_output=True, text=True, check=True)
    told = {
        "contender": name,
        "corpus": corpus.info.name,
        "label_fraction": asked.label_fraction,
        "seed": asked.seed,
        "minutes": asked.minutes,
        "versions": environment.stdout.split("\n")[:-1],
        "machine": processor(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with cpu_clock() as clock:
        told |= train(contender, race, clock)
        if not asked.no_test:
            told |= test(contender, race, clock)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shown = {key: value for key, value in told.items() if key not in ("curve", "versions", "command")}
    print(json.dumps(shown, ensure_ascii=False))


if __name__ == "__main__":
    main()
