"""A sweep of trials that sleep and report, on a real Ray of several nodes that loses one of them.

    python tests/benchmarks/sleeping_sweep.py [--nodes 4] [--gpus 4] [--seconds 6]

What the simulation (simulate_sweep.py) leaves out is real here: placement groups, processes, their start and reuse,
the loss of a node. GPUs are numbers only. Told are utilisation, and what actors and placement groups are left.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ray
from ray import tune
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table
from rich.console import Console
from simulate_sweep import MemoryTracker

from htr_ray.config import GridSettings, load
from htr_ray.sweep import run, tune_run
from htr_ray.sweep.board import Board
from htr_ray.sweep.budget import Budget
from htr_ray.sweep.callbacks import GridCallback
from htr_ray.sweep.cells import expand
from htr_ray.sweep.record import Recorder
from htr_ray.sweep.resources import at_a_time, need
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Searches
from htr_ray.sweep.trainable import EndsWhenStopped

# 2 corpora x (3 pre-trainings + 4 pretexts x 2 fractions x 2 decoders) x 2 seeds
GRID = ("name=sleeping", "corpora=[a,b]", "pretexts=[none,flip,jigsaw,sorting]", "seeds=[0,1]")
EPOCHS = 4


class Sleeper:
    """In the place of tune_run.py's own: sleeps ``EPOCHS`` times, and writes when it did."""

    __mixins__ = (EndsWhenStopped,)

    def __init__(self, _gpus: float, *, folder: str, seconds: float) -> None:
        self._folder, self._seconds = Path(folder), seconds

    def __call__(self, config: dict[str, Any]) -> None:
        began = time.time()
        pretraining = config["job"]["stage"] == "pretrain"
        for epoch in range(1, EPOCHS + 1):
            time.sleep((2 if pretraining else 1) * self._seconds / EPOCHS)
            tune.report({"epoch": epoch, "epoch_end": True, "progress": epoch / EPOCHS, "val_cer": 9.0, "best": 9.0})
        name = config["key"].replace("/", "-")
        (self._folder / f"{name}-{os.getpid()}-{began}").write_text(json.dumps([began, time.time()]))
        tune.report({"finished": True, "epoch_end": False, "progress": 1.0, "result": {"test_cer": 9.0}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=4, help="of each node; a trial takes one")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a cell; a pre-training takes twice as long")
    given = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    node = {"num_cpus": 4 * given.gpus, "num_gpus": given.gpus}
    nodes = [cluster.add_node(**node) for _ in range(given.nodes)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    wanted = functools.partial(need, cluster_gpus=float(given.nodes * given.gpus))
    retries = ("finetune.gpus_per_worker=1", "finetune.retries=5", "pretrain.retries=5")
    settings = load(GridSettings, overrides=[*GRID, *retries, "storage=/nowhere"], environment={})
    trials = expand(settings)
    tracker = MemoryTracker()
    with tempfile.TemporaryDirectory() as folder:
        searches = Searches(settings, trials, folder)
        searcher = GridSearcher(
            trials, set(), searches=searches, need=wanted, capacity=run.cluster_capacity, max_concurrent=None
        )
        slots = min(at_a_time(wanted(trial), *run.cluster_capacity()) for trial in trials)
        with open(os.devnull, "w") as nowhere:
            board = Board(settings.name, trials, {}, Console(file=nowhere), need=wanted)
            callback = GridCallback(searcher, board, Recorder(tracker, settings))  # type: ignore[arg-type]
            own = tune_run.Own(searcher, None, Budget(settings.budget, searcher.gpu_hours), callback)
            lost = threading.Timer(10 * given.seconds, cluster.remove_node, [nodes[1]])
            lost.start()
            began = time.time()
            sleeper = functools.partial(Sleeper, folder=folder, seconds=given.seconds)
            with mock.patch.object(tune_run, "Dispatch", sleeper):
                tune_run.tune_trials(settings, own, float(given.nodes * given.gpus), slots)
            lost.join()
        spans = np.array([json.loads(file.read_text()) for file in Path(folder).iterdir()]) - began
    # Until the tail: when less is left than there are cards.
    tail = np.sort(spans[:, 0])[-slots] if len(spans) > slots else spans[:, 1].max()
    first = spans[:, 0].min()
    busy = (np.minimum(spans[:, 1], tail) - np.minimum(spans[:, 0], tail)).sum()
    time.sleep(3)
    groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
    actors = [a for a in ray._private.state.actors().values() if a["State"] not in ("DEAD",)]
    print(
        json.dumps(
            {
                **{"trials": len(trials), "finished": len(spans), "failed": searcher.failed, "slots": slots},
                **{"started": tracker.started, "ended": tracker.ended, "unfinished": searcher.unfinished},
                "seconds": float(spans[:, 1].max()),
                "first_after_seconds": float(first),
                "use_until_the_tail": float(busy / (slots * (tail - first))),
                "groups_left": len(groups),
                "actors_left": len(actors),
                "free": [ray.available_resources().get(kind) for kind in ("CPU", "GPU")],
                "there": [ray.cluster_resources().get(kind) for kind in ("CPU", "GPU")],
            },
            indent=1,
        )
    )
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
