"""How fast trained contenders read the test lines, greedily, on one core: CPU seconds of their own commands.

    python tests/benchmarks/peers/reading_speed.py CONTENDER TRAINED DATA --environments DIR --json FILE [--rounds 3]

TRAINED is a folder in which recognition.py trained CONTENDER (of htr-ray, one whose model/ is an OUTPUT of
jobs/finetune.py), DATA the export of its lines. The command reads all test lines, and then a single one: the
difference is what the lines themselves cost, the rest is start-up. Medians of the rounds. Run it as taskset -c 0 ...
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contenders import CONTENDERS, Contender, Race
from cpu_clock import CpuClock, cpu_clock
from export import ExportedLine, read_lines

from htr_ray.train.metrics import ErrorCount, count_errors


def read(contender: Contender, race: Race, clock: CpuClock, lines: list[ExportedLine]) -> tuple[float, ErrorCount]:
    """CPU seconds of reading ``lines``, and the errors."""
    with tempfile.TemporaryDirectory(prefix="htr-ray-peers-") as scratch:
        folder = Path(scratch)
        log = folder / "read.log"
        command = contender.read(race, lines, folder)
        spent = clock.run(command, log, environment=contender.environment, cwd=folder)
        printed = log.read_text(encoding="utf-8", errors="replace")
        if spent.exit_code != 0:
            sys.exit(printed)
        readings = contender.readings(race, lines, folder, printed)
    return spent.cpu_seconds, count_errors((line.text, read) for line, read in zip(lines, readings, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("trained", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    contender = CONTENDERS[asked.contender]
    race = Race(
        corpus="",
        data=asked.data.resolve(),
        work=asked.trained.resolve(),
        environments=asked.environments.resolve(),
        label_fraction=1.0,
        seed=asked.seed,
        minutes=0.0,
        every=1.0,
    )
    lines = read_lines(race.data)["test"]
    whole, single = [], []
    with cpu_clock() as clock:
        for _ in range(asked.rounds):
            seconds, errors = read(contender, race, clock, lines)
            whole.append(seconds)
            single.append(read(contender, race, clock, lines[:1])[0])
    per_line = (statistics.median(whole) - statistics.median(single)) / (len(lines) - 1)
    versions = subprocess.run(contender.versions(race), capture_output=True, text=True, check=True)
    told = {
        "reading": asked.contender,
        "corpus": race.data.name.split("-")[0],
        "lines": len(lines),
        "ms_per_line": round(1000 * per_line, 2),
        "lines_per_cpu_second": round(1 / per_line, 1),
        "start_cpu_seconds": round(statistics.median(single) - per_line, 2),
        "lines_per_cpu_second_with_start": round(len(lines) / statistics.median(whole), 1),
        "cer": round(errors.cer, 2),
        "cpu_seconds": {"all lines": whole, "one line": single},
        "versions": versions.stdout.split("\n")[:-1],
    }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
