"""How fast trained contenders read the test lines: seconds of their own commands.

    taskset -c 0 python tests/benchmarks/peers/reading_speed.py CONTENDER TRAINED DATA --environments DIR --json FILE
        [--rounds 3] [--beam 10]
    taskset -c 0,1 python tests/benchmarks/peers/reading_speed.py ... --cores 2

TRAINED is a folder in which recognition.py trained CONTENDER (of htr-ray, one whose model/ is an OUTPUT of
jobs/finetune.py), DATA the export of its lines. The command reads all test lines, and then a single one: the
difference is what the lines themselves cost, the rest is start-up. Medians of the rounds, in seconds of CPU and of the
wall: on one core CPU seconds compare, whatever else the machine does; on two only the wall tells, so nothing else may
run. How the contenders take two cores: kraken and PyLaia by torch's threads (kraken's --threads; PyLaia reads the
environment), htr-ray by batches side by side, as it does by itself. --beam: with a beam search, htr-ray alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from contenders import CONTENDERS, Contender, Kraken, Ours, Race
from cpu_clock import CpuClock, Spent, cpu_clock
from export import ExportedLine, read_lines

from htr_ray.machine import cores
from htr_ray.train.metrics import ErrorCount, count_errors


@dataclass(frozen=True)
class Way:
    """How a contender is made to read."""

    contender: Contender
    cores: int
    beam: int

    def command(self, race: Race, lines: list[ExportedLine], folder: Path) -> list[str]:
        words = self.contender.read(race, lines, folder)
        if isinstance(self.contender, Kraken):
            words[words.index("--threads") + 1] = str(self.cores)
        elif isinstance(self.contender, Ours):
            words[words.index("beam=1")] = f"beam={self.beam}"
        return words

    @property
    def environment(self) -> dict[str, str]:
        # htr-ray reads batches side by side, with one thread each.
        threads = {} if isinstance(self.contender, Ours) else {"OMP_NUM_THREADS": str(self.cores)}
        return self.contender.environment | threads


def read(way: Way, race: Race, clock: CpuClock, lines: list[ExportedLine]) -> tuple[Spent, ErrorCount]:
    """What reading ``lines`` cost, and the errors."""
    with tempfile.TemporaryDirectory(prefix="htr-ray-peers-") as scratch:
        folder = Path(scratch)
        log = folder / "read.log"
        spent = clock.run(way.command(race, lines, folder), log, environment=way.environment, cwd=folder)
        printed = log.read_text(encoding="utf-8", errors="replace")
        if spent.exit_code != 0:
            sys.exit(printed)
        readings = way.contender.readings(race, lines, folder, printed)
    return spent, count_errors((line.text, read) for line, read in zip(lines, readings, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=sorted(CONTENDERS))
    parser.add_argument("trained", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--name", help="name of the row, where the model is not the contender's own")
    asked = parser.parse_args()
    if cores() != asked.cores:
        listed = ",".join(map(str, range(asked.cores)))
        sys.exit(f"this process may use {cores()} cores, not {asked.cores}; run it as taskset -c {listed}")
    way = Way(CONTENDERS[asked.contender], asked.cores, asked.beam)
    if asked.beam > 1 and not isinstance(way.contender, Ours):
        sys.exit(f"--beam {asked.beam}: {asked.contender} reads greedily")
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
    whole: list[Spent] = []
    single: list[Spent] = []
    with cpu_clock() as clock:
        for _ in range(asked.rounds):
            spent, errors = read(way, race, clock, lines)
            whole.append(spent)
            single.append(read(way, race, clock, lines[:1])[0])
    cpu = [[spent.cpu_seconds for spent in each] for each in (whole, single)]
    wall = [[spent.wall_seconds for spent in each] for each in (whole, single)]
    per_line, wall_per_line = (
        (statistics.median(all_lines) - statistics.median(one)) / (len(lines) - 1) for all_lines, one in (cpu, wall)
    )
    versions = subprocess.run(way.contender.versions(race), capture_output=True, text=True, check=True)
    told = {
        "reading": asked.name or asked.contender,
        "corpus": race.data.name.split("-")[0],
        "lines": len(lines),
        "cores": asked.cores,
        "beam": asked.beam,
        "ms_per_line": round(1000 * per_line, 2),
        "lines_per_cpu_second": round(1 / per_line, 1),
        "start_cpu_seconds": round(statistics.median(cpu[1]) - per_line, 2),
        "lines_per_cpu_second_with_start": round(len(lines) / statistics.median(cpu[0]), 1),
        "lines_per_second": round(1 / wall_per_line, 1),
        "start_seconds": round(statistics.median(wall[1]) - wall_per_line, 2),
        "lines_per_second_with_start": round(len(lines) / statistics.median(wall[0]), 1),
        "cer": round(errors.cer, 2),
        "cpu_seconds": {"all lines": cpu[0], "one line": cpu[1]},
        "wall_seconds": {"all lines": wall[0], "one line": wall[1]},
        "load": os.getloadavg()[0],
        "versions": versions.stdout.split("\n")[:-1],
    }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
