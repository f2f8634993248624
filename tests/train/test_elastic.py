"""A worker group with a minimum and a maximum, on a cluster whose nodes come and go."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.cloudpickle
from ray.cluster_utils import Cluster
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train import UserCallback
from train_helpers import PLAIN, finetuning, into, losses

from htr_ray.train import launch
from htr_ray.train.group import lost_its_node
from htr_ray.train.launch import run_group, run_here
from htr_ray.train.nodes import free_nodes

# Ray's processes do not find this folder: send them the classes, not their names.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Workers may be two reports ahead of what the callback has seen: none has finished when its node goes.
EPOCHS = 8
# At higher rates rounding errors grow too fast for a comparison of the last epoch.
OPTIONS = [*PLAIN, f"finetune.max_epochs={EPOCHS}", "finetune.learning_rate=0.0002", "finetune.checkpoint_minutes=0"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that holds one training worker and its stream."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


class Waits(UserCallback):
    """Writes down how many workers reported which epoch; the first report of a size waits until a file is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        with (self.folder / "log").open("a") as stream:
            stream.write(f"{len(metrics)} {metrics[0]['epoch']}\n")
        (self.folder / f"{len(metrics)}.reached").touch()
        wait_for(self.folder / f"{len(metrics)}.open")


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.05)


def test_a_group_grows_with_a_node_that_joins_and_shrinks_with_one_that_goes(
    cluster: Cluster, sample_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, then two, then one again: the same losses as one worker that nobody disturbs."""
    monkeypatch.setattr(launch, "RESIZE_SECONDS", 0.0)
    alone = run_here(finetuning(sample_corpus, tmp_path / "alone", *OPTIONS), into([]))
    job = finetuning(
        sample_corpus,
        tmp_path / "run",
        *OPTIONS,
        *("finetune.workers=2", "finetune.min_workers=1", "finetune.retries=0", "stream.cpus_per_worker=0.5"),
    )

    with ThreadPoolExecutor(1) as pool:  # Ray makes nodes in the main thread only
        training = pool.submit(run_group, job, gpus_per_worker=0, name="elastic", callbacks=[Waits(tmp_path)])
        reached(tmp_path / "1.reached", training)
        node = cluster.add_node(num_cpus=2)
        while not any(free.cpus == 2 for free in free_nodes()):
            time.sleep(0.05)
        (tmp_path / "1.open").touch()
        reached(tmp_path / "2.reached", training)
        cluster.remove_node(node, allow_graceful=False)
        (tmp_path / "2.open").touch()
        result = training.result()
    seen = [tuple(map(int, line.split())) for line in (tmp_path / "log").read_text().splitlines()]
    assert seen[0] == (1, 0) and seen[-1] == (1, EPOCHS - 1), seen
    worlds = [world for world, _ in seen]
    assert worlds == sorted(worlds[: -worlds[::-1].index(2)]) + [1] * worlds[::-1].index(2), "1, then 2, then 1"
    # Checkpoints are written at every epoch's end, so at most the one that was going on is trained again.
    assert all(after >= before - 2 for (_, before), (_, after) in pairwise(seen)), seen
    assert [entry["epoch"] for entry in result["history"]] == list(range(EPOCHS))
    assert losses(result) == pytest.approx(losses(alone), rel=1e-3)
    assert result["test_cer"] == pytest.approx(alone["test_cer"], abs=4.0)  # of 240 characters


def reached(file: Path, training: Future[Any]) -> None:
    while not file.exists():
        assert not training.done(), training.result()
        time.sleep(0.05)


@ray.remote(num_cpus=0)
class Sleeper:
    def ready(self) -> None:
        return None


def test_who_does_not_answer_may_have_lost_its_node(cluster: Cluster) -> None:
    """Calls fail at once, ``unavailable``; that the node went is known some seconds later."""
    node = cluster.add_node(num_cpus=1, resources={"elsewhere": 1})
    there = Sleeper.options(resources={"elsewhere": 0.1}).remote()
    here = Sleeper.options(label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()}).remote()
    ray.get([there.ready.remote(), here.ready.remote()], timeout=60)
    unavailable = [ActorUnavailableError("no answer", actor._actor_id.binary()) for actor in (there, here)]
    cluster.remove_node(node, allow_graceful=False)
    assert lost_its_node(unavailable[0])
    with pytest.raises(RayActorError) as died:
        ray.get(there.ready.remote(), timeout=60)
    assert lost_its_node(died.value)
    ray.kill(here)
    assert not lost_its_node(unavailable[1])
    with pytest.raises(RayActorError) as died:
        ray.get(here.ready.remote(), timeout=60)
    assert not lost_its_node(died.value)
