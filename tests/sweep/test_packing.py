"""Several nodes, fractions of cards, worker groups that wait for each other: all finish, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import packing_scene
import pytest
import ray
from packing_scene import sweep, trials_of
from ray.cluster_utils import Cluster
from ray.tune import Callback

MARKET = "ray.io/market-type"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes of 2 CPUs and a card (so they say); the second is a spot node."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=2, num_gpus=1, labels={MARKET: "spot"})
    made.add_node(num_cpus=2, num_gpus=1, labels={MARKET: "on-demand"})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def left_behind() -> dict[str, Any]:
    """What is alive on the cluster although nothing runs; empty where all is well."""
    groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    # Ray Data's and Train's own, one for the cluster.
    actors = [
        actor["ActorClassName"]
        for actor in ray._private.state.actors().values()
        if actor["State"] != "DEAD" and actor["ActorClassName"] != "_AutoscalingCoordinatorActor"
    ]
    has, free = ray.cluster_resources(), ray.available_resources()
    used = {name: has[name] - free.get(name, 0.0) for name in ("CPU", "GPU") if has[name] - free.get(name, 0.0) > 1e-6}
    return {name: what for name, what in (("groups", groups), ("actors", actors), ("used", used)) if what}


def assert_nothing_left(seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while (left := left_behind()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def test_small_trials_share_a_card_beside_a_group_on_whole_ones(cluster: Cluster, tmp_path: Path) -> None:
    """They wait for each other: were they not all on the cluster at once, none would end."""
    settings, known = trials_of(
        tmp_path,
        *("pretexts=[none,flip]", "label_fractions=[0.1,1.0]", "stream.cpus_per_worker=0.25"),
        *("pretrain.workers=2", "finetune.cpus_per_worker=0.25", f"finetune.node_labels={{{MARKET}: spot}}"),
        f"pretrain.node_labels={{{MARKET}: '!spot'}}",
    )
    trials = [trial for key, trial in known.items() if key.startswith("pretrain") or "/none/" in key]
    assert len(trials) == 5
    searcher = sweep(settings, trials, {trial.key: "meet 6" for trial in trials}, tmp_path)
    assert searcher.failed == {} and not searcher.unfinished
    labels = {node["NodeID"]: node["Labels"].get(MARKET) for node in ray.nodes()}
    where = {path.name: labels[path.read_text()] for path in (tmp_path / "meeting").iterdir()}
    assert [where[name] for name in where if name.startswith("finetune")] == ["spot"] * 4
    assert sorted(str(where[name]) for name in where if name.startswith("pretrain")) == ["None", "on-demand"]
    assert_nothing_left()


def test_a_process_takes_the_card_it_was_given_and_none_otherwise(cluster: Cluster) -> None:
    def device() -> str:
        import torch

        from htr_ray.train.worker import local_device

        torch.cuda.is_available = lambda: True  # as on a node with a card: Ray hides it from nobody
        return str(local_device())

    class Trainer:
        def device(self) -> str:
            return device()

    given = {gpus: ray.remote(num_gpus=gpus, num_cpus=0.25)(device) for gpus in (0, 0.25, 1)}
    assert {gpus: ray.get(task.remote()) for gpus, task in given.items()} == {0: "cpu", 0.25: "cuda:0", 1: "cuda:0"}
    for gpus, expected in ((0, "cpu"), (0.5, "cuda:0")):
        trainer: Any = ray.remote(num_gpus=gpus, num_cpus=0.25)(Trainer).remote()
        assert ray.get(trainer.device.remote()) == expected


class KillsOnce(Callback):
    """Kills the process of a trial when it first reports."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.killed = 0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if trial.config["key"] == self.key and not self.killed:
            self.killed = result["pid"]
            os.kill(self.killed, signal.SIGKILL)


def test_more_groups_than_fit_all_end_and_leave_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """One of three groups fits at a time; one is stopped, one killed and then broken, with small trials between."""
    settings, known = trials_of(
        tmp_path,
        *("pretexts=[none,rotation,flip,jigsaw]", "label_fractions=[1.0]"),
        *("pretrain.workers=2", "pretrain.retries=0", "pretrain.gpus_per_worker=0", "finetune.gpus_per_worker=0"),
        "finetune.cpus_per_worker=0.5",
    )
    acts = {
        "pretrain/c/rotation/seed0": "go on",
        "pretrain/c/jigsaw/seed0": "break",
        "pretrain/c/flip/seed0": "meet 0",
        "finetune/c/semi_supervised/ctc/1/none/seed0": "go on",
        "finetune/c/semi_supervised/transformer/1/none/seed0": "meet 0",
    }
    kills = KillsOnce("pretrain/c/jigsaw/seed0")
    searcher = sweep(
        settings, [known[key] for key in acts], acts, tmp_path, at_most=len(acts), max_failures=1, callbacks=(kills,)
    )
    assert not searcher.unfinished and kills.killed
    assert set(searcher.failed) == {key for key, act in acts.items() if act in ("go on", "break")}
    assert {why for key, why in searcher.failed.items() if acts[key] == "go on"} == {"it ended without a result"}
    assert_nothing_left()


def test_a_driver_that_is_interrupted_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    script = [sys.executable, packing_scene.__file__, cluster.address, str(tmp_path)]
    driver = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert driver.stdout is not None
        said = []
        for line in driver.stdout:
            said.append(line)
            if line == "trains\n":
                break
        assert said[-1:] == ["trains\n"], "".join(said)
        assert left_behind()["groups"]
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=90)
    finally:
        driver.kill()
    assert_nothing_left()
