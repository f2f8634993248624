"""From scheduling to the first optimizer step of a trial, on a Ray that is up and idle; where the time goes.

    python tests/benchmarks/trial_start.py [CORPUS_URI] [--rounds 3] [--imports] [--json FILE]

Started are ``jobs/full_grid.py`` (two trials, one after the other: the first in new processes, the second in them) and
``jobs/finetune.py`` (a Ray Train group), each on a Ray of its own that is up and has its idle workers. Nothing of the
project is changed for it: ``start_probe.py`` notes in all processes what happens when. "Scheduled" is when the search
algorithm hands the trial out, or ``run_single`` is called; the job's own start before that is told apart.

``--imports`` adds, of one round more, what each process imports by ``python -X importtime`` (which slows it), summed by
package.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import ray

from htr_ray.corpus.sample import write_sample
from htr_ray.machine import cores

HERE = Path(__file__).resolve().parent
JOBS = HERE.parent.parent / "jobs"
SHORT = [
    "preset=small",
    "finetune.max_epochs=1",
    "finetune.min_steps_per_epoch=1",
    "finetune.eval_lines=32",
    "finetune.precision=float32",
]
IDLE_SECONDS = 3.0
LINES = 400  # of the embedded corpus: the first trial has to end for the second to begin
UNDER_PROBE = """
import os, runpy, sys, start_probe
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
Note = dict[str, Any]


def on_fresh_ray(
    command: list[str], work: Path, environment: dict[str, str], imports: bool, count: int, preload: list[str]
) -> tuple[list[Note], str]:
    """Run a job on a Ray of its own that is idle, until ``count`` trials have made their first step.

    Returns the notes of all processes, and their logs.
    """
    notes = work / "notes"
    notes.mkdir(parents=True)
    probe = {"START_PROBE": str(notes), "PYTHONPATH": f"{HERE}:{HERE.parent.parent}", **environment}
    if imports:
        probe["PYTHONPROFILEIMPORTTIME"] = "1"
    before = dict(os.environ)
    os.environ.update(probe, RAY_preload_python_modules=",".join(["start_probe", *preload]))
    try:
        # As htr_ray/connect.py starts it.
        context = ray.init(address="local", num_cpus=2 * cores(), include_dashboard=False, log_to_driver=False)
        workers = -1
        while workers < (workers := len(list(notes.iterdir()))) or not workers:
            time.sleep(IDLE_SECONDS)
        with (work / "job.log").open("w") as log:
            job = subprocess.Popen(
                [sys.executable, "-c", UNDER_PROBE, *command],
                env={**os.environ, "RAY_ADDRESS": context.address_info["address"]},
                stdout=log,
                stderr=log,
            )
        try:
            # A trial's end is of no interest, the next one's beginning is.
            while sum(note["what"] == "step" for note in read(notes)) < count:
                if job.poll() is not None:
                    sys.exit(f"{command}: {(work / 'job.log').read_text()[-3000:]}")
                time.sleep(0.2)
        finally:
            job.kill()
            job.wait()
        logs = Path(context.address_info["session_dir"]) / "logs"
        told = "\n".join(path.read_text(errors="replace") for path in [work / "job.log", *logs.glob("worker-*.err")])
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)
    return read(notes), told


def read(notes: Path) -> list[Note]:
    """All notes so far, in order."""
    found = [json.loads(line) for path in notes.iterdir() for line in path.read_text().splitlines()]
    return sorted(found, key=lambda note: note["at"])


def trials(notes: list[Note]) -> list[dict[str, float]]:
    """Of each trial in turn: seconds after its scheduling at which things had happened, and what imports took."""
    scheduled = [note for note in notes if note["what"] == "scheduled"]
    found = []
    for number, start in enumerate(scheduled):
        end = scheduled[number + 1]["at"] if number + 1 < len(scheduled) else float("inf")
        mine = [note for note in notes if start["at"] <= note["at"] < end]
        called = next(note for note in mine if note["what"] == "called")
        trainer = [note for note in mine if note["pid"] == called["pid"]]
        step = next(note for note in trainer if note["what"] == "step")
        born = next(note for note in notes if note["pid"] == called["pid"])
        times = {"process born": born["at"] - start["at"], "trainable called": called["at"] - start["at"]}
        for what in ("opened", "building", "built", "batch", "step"):
            places = trainer if what != "opened" else mine  # of a group, its driver opens
            times[what] = next((note["at"] for note in places if note["what"] == what), float("nan")) - start["at"]
        streams = {note["pid"]: note for note in reversed(mine) if note["what"] == "making"}
        for name, what in (("stream called", "making"), ("stream made", "made")):
            at = [note["at"] for note in mine if note["what"] == what and note["pid"] in streams]
            times[name] = min(at, default=float("nan")) - start["at"]
        before = [note for note in trainer if note["at"] <= step["at"]]
        times["trainer cpu"] = step["cpu"] - (before[0]["cpu"] if born["at"] < start["at"] - IDLE_SECONDS else 0.0)
        for pids, who in (({called["pid"]}, "trainer"), (set(streams), "stream")):
            for note in mine:
                package = note["what"].removeprefix("imported ")
                if note["pid"] in pids and package != note["what"]:
                    begun = next(n for n in mine if n["pid"] == note["pid"] and n["what"] == f"import {package}")
                    times[f"{who} imports {package}"] = note["at"] - begun["at"]
        found.append(times)
    return found


def job_start(notes: list[Note]) -> float:
    """Seconds from the start of the job's own process until it schedules the first trial."""
    first = next(note for note in notes if note["what"] == "scheduled")
    return first["at"] - next(note["at"] for note in notes if note["pid"] == first["pid"])


def by_package(log: str) -> dict[str, float]:
    """Seconds of import, by package, in all processes together."""
    sums: dict[str, float] = defaultdict(float)
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", log):
        sums[name.split(".")[0]] += int(own) / 1e6
    return {
        name: round(seconds, 2) for name, seconds in sorted(sums.items(), key=lambda item: -item[1]) if seconds > 0.1
    }


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("corpus", nargs="?")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--imports", action="store_true")
    asked.add_argument(
        "--preload", nargs="*", default=[], metavar="MODULE", help="what Ray's processes import in advance"
    )
    asked.add_argument("--only", choices=["grid", "group"])
    asked.add_argument("--json", type=Path)
    given = asked.parse_args()
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    imports = {}
    with tempfile.TemporaryDirectory(prefix="trial-start-") as scratch:
        corpus = given.corpus or write_sample(f"{scratch}/corpora", lines=LINES)
        for number in range(given.rounds + given.imports):
            work = Path(scratch) / str(number)
            profile = number == given.rounds
            grid = [
                *(str(JOBS / "full_grid.py"), "name=start", f"corpora=[{corpus}]", f"storage={work}/runs", *SHORT),
                *("pretexts=[none]", "decoders=[ctc]", "label_fractions=[1.0]", "seeds=[0,1]", "max_concurrent=1"),
            ]
            single = [str(JOBS / "finetune.py"), "--corpus", corpus, "--output", f"{work}/single", *SHORT]
            tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
            for name, command in (("grid", grid), ("group", single)):
                if given.only not in (None, name):
                    continue
                notes, log = on_fresh_ray(command, work / name, tracking, profile, 1 + (name == "grid"), given.preload)
                if profile:
                    imports[name] = by_package(log)
                    continue
                found = trials(notes)
                found[0]["job start"] = job_start(notes)
                rounds["group" if name == "group" else "first in new processes"].append(found[0])
                rounds["later in the same process"] += found[1:]
    result = {
        "seconds_after_scheduling": {
            name: {
                what: round(statistics.median(values), 2)
                for what in dict.fromkeys(key for times in found for key in times)
                if (values := [times[what] for times in found if what in times])
            }
            for name, found in rounds.items()
            if found
        },
        "steps": {name: [round(times["step"], 2) for times in found] for name, found in rounds.items()},
        "imports_by_package": imports,
        "machine": f"{platform.processor() or platform.machine()}, {cores()} core(s)",
        "versions": {"python": platform.python_version(), "ray": ray.__version__},
    }
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
