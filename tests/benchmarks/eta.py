"""How far off a grid's ETA is after a tenth of its time: simulated grids, and recorded ones run again in no time.

    PYTHONPATH=tests python tests/benchmarks/eta.py [--seeds 12] [FOLDER_OF_A_GRID ...]

Simulated: what trials take is drawn around the plan (tests/grid_simulation.py). Recorded: each trial takes what its
result.json says, on 1, 2 and 4 places; the plan knows lines and epochs, and nothing of the machine's speed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from grid_simulation import KINDS, Recorded, errors, recorded_errors

from htr_ray import storage
from htr_ray.sweep.cells import expand
from htr_ray.sweep.results import read_settings
from htr_ray.train.job import RESULT


def recorded(folder: str) -> Recorded:
    """Trials of the grid in ``folder`` that are done, and their results."""
    trials = expand(read_settings(folder).model_copy(update={"storage": "/"}))
    results: Mapping[str, Any] = {
        trial.key: storage.read_json(uri)
        for trial in trials
        if storage.exists(uri := storage.join(folder, trial.key, RESULT))
    }
    return Recorded([trial for trial in trials if trial.key in results], results)


def row(name: str, found: Sequence[float]) -> str:
    """A line of the table: the distribution of errors."""
    sizes = sorted(abs(error) for error in found)
    within = sum(size < 0.2 for size in sizes) / len(sizes)
    return (
        f"| {name} | {len(sizes)} | {100 * statistics.median(sizes):.0f} % | "
        f"{100 * sizes[int(0.9 * (len(sizes) - 1))]:.0f} % | {100 * sizes[-1]:.0f} % | {100 * within:.0f} % | "
        f"{100 * statistics.fmean(found):+.0f} % |"
    )


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folders", nargs="*")
    made.add_argument("--seeds", type=int, default=12)
    asked = made.parse_args()
    print("| grid | runs | median | 9 of 10 below | largest | within 20 % | mean |\n|" + " --- |" * 7)
    everything: list[float] = []
    for kind in KINDS:
        found = [errors(kind, seed)[0] for seed in range(asked.seeds)]
        everything += found
        print(row(kind.name, found), flush=True)
    print(row("all of these", everything))
    for folder in asked.folders:
        grid = recorded(folder)
        found = [recorded_errors(grid, places) for places in (1, 2, 4)]
        name = f"recorded: {folder.rstrip('/').rsplit('/', 1)[-1]}, {len(grid.trials)} trials"
        print(row(f"{name}, on 1, 2 and 4 places", found), flush=True)
