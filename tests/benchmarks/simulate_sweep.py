"""The scheduling of large grids on a simulated cluster of 512 GPUs: what the driver does, and how busy the GPUs are.

    python tests/benchmarks/simulate_sweep.py [SCENARIO ...] [--json FILE] [--figure FILE.png]

Real are Ray Tune and the sweep room, simulated is what they ask of Ray (see tests/simulated_cluster.py). Every
scenario runs in a process of its own. Decisions are timed by the real clock, without the simulation's own part;
utilisation and makespan are those of the virtual clock.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from simulated_cluster import HOUR, Machines, Work, World
from simulated_tune import run_simulated

from htr_ray.config import GridSettings, load
from htr_ray.sweep.cells import Trial
from htr_ray.sweep.record import Recorder

# 5 pretexts x 2 decoders x 3 fractions x 2 protocols x 3 corpora x 3 seeds: 540 cells behind 36 pre-trainings.
PAPER = (
    "name=paper-sized",
    "preset=paper",
    "corpora=[one,two,three]",
    "label_fractions=[0.05,0.1,1.0]",
    "protocols=[semi_supervised,frozen]",
    "seeds=[0,1,2]",
    "pretrain.workers=4",
    "pretrain.retries=100",
    "finetune.retries=100",
)
# 5 pretexts x 2 decoders x 5 fractions x 2 protocols x 5 corpora x 10 seeds: 5,000 cells behind 200 pre-trainings.
LARGE = (
    *PAPER,
    "name=five-thousand",
    "corpora=[one,two,three,four,five]",
    "label_fractions=[0.05,0.1,0.25,0.5,1.0]",
    "seeds=[0,1,2,3,4,5,6,7,8,9]",
)
WEATHER = {"node_life": 48 * HOUR, "actor_life": 100 * HOUR}


@dataclass(frozen=True)
class Scenario:
    settings: tuple[str, ...]
    machines: Machines
    epochs: int = 40  # of a trial that no patience ends
    order: str = "own"


# Trials in other orders than the grid's own, which is encoders first, then cells with many labels.
ORDERS = ("own", "random", "oracle", "cells-first")

SCENARIOS = {
    "paper": Scenario(PAPER, Machines()),
    "paper-8-nodes": Scenario(PAPER, Machines(nodes=8)),
    "large": Scenario(LARGE, Machines(), epochs=3),
    "large-whole-gpus": Scenario((*LARGE, "finetune.gpus_per_worker=1"), Machines(), epochs=6),
    "large-preempted": Scenario((*LARGE, "finetune.gpus_per_worker=1"), Machines(**WEATHER), epochs=6),
}


for _order in ORDERS:
    SCENARIOS[f"order-paper-8-nodes-{_order}"] = Scenario(PAPER, Machines(nodes=8), epochs=2, order=_order)
    SCENARIOS[f"order-large-{_order}"] = Scenario(
        (*LARGE, "finetune.gpus_per_worker=1"), Machines(), epochs=2, order=_order
    )


class MemoryTracker:
    """Stands where the tracker of MLflow stands, and counts."""

    def __init__(self) -> None:
        self.started = self.epochs = self.ended = 0

    def start_trial(self, *_: Any, **__: Any) -> None:
        self.started += 1

    def log_epoch(self, *_: Any) -> None:
        self.epochs += 1

    def end_trial(self, *_: Any, **__: Any) -> None:
        self.ended += 1


def durations(epochs: int) -> Callable[[Trial], Work]:
    """Hours for a pre-training, some ten minutes for a cell; a trial's own chance, the same in every simulation."""

    def work(trial: Trial) -> Work:
        chance = random.Random(trial.key)
        if trial.stage == "pretrain":
            return Work(epochs, 6 * HOUR * chance.lognormvariate(0, 0.25) / epochs)
        fraction = trial.job.label_fraction or 1.0
        minutes = 25 + 50 * fraction**0.5 if trial.job.protocol == "semi_supervised" else 15 + 20 * fraction**0.5
        minutes *= 1.4 if trial.job.decoder == "transformer" else 1.0
        share = chance.uniform(0.4, 1.0)  # patience ends it
        return Work(max(2, round(epochs * share)), 60 * minutes * chance.lognormvariate(0, 0.2) / epochs)

    return work


def in_order(name: str, work: Callable[[Trial], Work]) -> Callable[[list[Trial]], list[Trial]]:
    """Puts trials into an order. ``oracle``: by the longest remaining path, all durations known."""

    def order(trials: list[Trial]) -> list[Trial]:
        if name == "own":
            return trials
        if name == "random":
            return random.Random(0).sample(trials, len(trials))
        if name == "cells-first":
            return sorted(trials, key=lambda trial: trial.stage == "pretrain")
        behind: dict[str, float] = {}
        for trial in trials:
            if trial.waits_for is not None:
                behind[trial.waits_for] = max(behind.get(trial.waits_for, 0.0), work(trial).seconds)
        return sorted(trials, key=lambda trial: -(work(trial).seconds + behind.get(trial.key, 0.0)))

    return order


@dataclass
class Watch:
    """The driver's work by kind of step, in real seconds, and its memory."""

    world: World
    tracker: MemoryTracker
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # by the clock, of the processor
    memory: list[tuple[int, int, float, int, int]] = field(default_factory=list)  # results, ended, MiB, files, threads
    steps: int = 0

    def __call__(self, controller: Any, step: Callable[[], None]) -> None:
        tracker = self.tracker
        before = (tracker.started, tracker.ended, tracker.epochs, len(controller.get_trials()))
        saved = controller._checkpoint_manager._last_save_time
        own, own_cpu = self.world.own_seconds, self.world.own_cpu_seconds
        began, began_cpu = time.perf_counter(), time.thread_time()
        step()
        seconds = time.perf_counter() - began - (self.world.own_seconds - own)
        cpu = time.thread_time() - began_cpu - (self.world.own_cpu_seconds - own_cpu)
        if controller._checkpoint_manager._last_save_time != saved:
            kind = "step with a save of Tune's state"
        elif (handed := len(controller.get_trials()) - before[3]) > 0:
            kind, seconds, cpu = "handing out a trial", seconds / handed, cpu / handed
        elif tracker.ended > before[1]:
            kind = "end of a trial"
        elif tracker.started > before[0]:
            kind = "start of a trial"
        elif tracker.epochs > before[2]:
            kind = "result"
        else:
            kind = "other"
        self.seconds.setdefault(kind, []).append((seconds, cpu))
        if self.steps % 500 == 0:
            here = psutil.Process()
            mib = here.memory_info().rss / 2**20
            self.memory.append((tracker.epochs, tracker.ended, mib, here.num_fds(), here.num_threads()))
        self.steps += 1


def simulate(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario; its figures."""
    settings = load(GridSettings, overrides=[*scenario.settings, "storage=/nowhere"], environment={})
    tracker = MemoryTracker()
    watches: list[Watch] = []

    def watch(world: World) -> Watch:
        watches.append(Watch(world, tracker))
        gc.collect()
        return watches[0]

    with open(os.devnull, "w") as nowhere:
        recorder = Recorder(tracker, settings)  # type: ignore[arg-type]
        began = time.perf_counter()
        work = durations(scenario.epochs)
        order = in_order(scenario.order, work)
        world, searcher = run_simulated(
            settings, scenario.machines, work, recorder, Console(file=nowhere), watch, order
        )
        total = time.perf_counter() - began
    return {
        **{"trials": len(world.trials), "done": len(world.done_at), "failed": len(searcher.failed)},
        **{"deaths": world.deaths, "twice": len(world.overlaps), "early": len(world.early)},
        **{"groups_left": len(world.groups), "real_seconds": total, "simulation_seconds": world.own_seconds},
        "driver": {kind: spread(seconds) for kind, seconds in watches[0].seconds.items()},
        "memory": watches[0].memory,
        **use_of_gpus(world),
        "curve": curve(world),
    }


def spread(seconds: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds by the clock, and of this thread's processor time (what other work on the machine leaves alone)."""
    figures: dict[str, float] = {"count": len(seconds)}
    for name, column in zip(("clock", "cpu"), 1000 * np.array(seconds).T, strict=True):
        figures |= {f"{name}_median_ms": float(np.median(column)), f"{name}_p99_ms": float(np.percentile(column, 99))}
        figures |= {f"{name}_max_ms": float(column.max()), f"{name}_total_s": float(column.sum() / 1000)}
    return figures


def use_of_gpus(world: World) -> dict[str, float]:
    """Makespan against its bounds, and the share of the GPUs that trained: overall, and while any trial waited."""
    table = np.array(world.usage, dtype=float)
    spans = np.diff(table[:, 0])
    there, training, waiting = table[:-1, 1], table[:-1, 3], table[:-1, 5]
    backlog = waiting > 0
    seconds = {key: world.work(key).seconds for key in world.trials}
    path = max(seconds[key] + seconds.get(trial.waits_for or "", 0.0) for key, trial in world.trials.items())
    work = sum(seconds[key] * world.need(key).gpus for key in world.trials)
    makespan = max(world.done_at.values())
    last_start = max(world.began_at.values())
    return {
        "makespan_hours": makespan / HOUR,
        "bound_work_hours": work / (world.machines.nodes * world.machines.gpus) / HOUR,
        "bound_path_hours": path / HOUR,
        "tail_from_hours": last_start / HOUR,
        "use_while_trials_wait": _share(training, there, spans, backlog),
        "hours_with_trials_waiting": float(spans[backlog].sum() / HOUR),
        "use_overall": _share(training, there, spans, np.ones_like(backlog)),
    }


def _share(used: np.ndarray, there: np.ndarray, spans: np.ndarray, when: np.ndarray) -> float:
    return float((used * spans)[when].sum() / max(1e-9, (there * spans)[when].sum()))


def curve(world: World, points: int = 400) -> list[tuple[float, ...]]:
    """GPUs there and training, trials that train and that could begin, at even times (hours first)."""
    table = np.array(world.usage, dtype=float)
    times = np.linspace(0, table[-1, 0], points)
    rows = table[np.searchsorted(table[:, 0], times, side="right") - 1]
    return [
        (float(t / HOUR), float(r[1]), float(r[3]), float(r[4]), float(r[5])) for t, r in zip(times, rows, strict=True)
    ]


def draw(found: dict[str, Any], target: Path) -> None:
    """GPUs in use over virtual time, and the driver's memory over the trials that have ended."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(found), 2, figsize=(11, 3 * len(found)), squeeze=False)
    for (name, figures), (left, right) in zip(found.items(), panels, strict=True):
        hours, there, training, running, waiting = np.array(figures["curve"]).T
        left.fill_between(hours, training, color="tab:green", alpha=0.6, label="GPUs that train")
        left.plot(hours, there, color="black", lw=0.8, label="GPUs there")
        left.plot(hours, waiting, color="tab:red", lw=0.8, label="trials that could start")
        left.axvline(figures["tail_from_hours"], color="grey", ls=":", label="last trial starts")
        left.set(title=f"{name}: {figures['trials']} trials", xlabel="hours (virtual)", ylim=(0, 1.15 * there.max()))
        left.legend(fontsize=7)
        _, ended, mib, _, _ = np.array(figures["memory"]).T
        right.plot(ended, mib)
        right.set(xlabel="trials ended", ylabel="driver, MiB", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(target, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--figure", type=Path, help="draw the curves here (PNG)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--profile", type=Path, help="with one scenario: cProfile's file")
    given = parser.parse_args()
    if given.inside or given.profile:
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        if given.profile:
            import cProfile

            profile = cProfile.Profile()
            found = profile.runcall(simulate, SCENARIOS[given.scenarios[0]])
            profile.dump_stats(given.profile)
        else:
            found = simulate(SCENARIOS[given.scenarios[0]])
        print("FIGURES " + json.dumps(found))
        ray.shutdown()
        return
    everything = {}
    for name in given.scenarios:
        ended = subprocess.run([sys.executable, __file__, "--inside", name], capture_output=True, text=True)
        line = next((ln for ln in ended.stdout.splitlines() if ln.startswith("FIGURES ")), None)
        if line is None:
            sys.exit(f"{name}: {ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
        everything[name] = found = json.loads(line.removeprefix("FIGURES "))
        print(name, json.dumps({k: v for k, v in found.items() if k not in ("memory", "curve")}, indent=1), flush=True)
        if given.json:
            given.json.write_text(json.dumps(everything))
    if given.figure:
        draw(everything, given.figure)


if __name__ == "__main__":
    main()
