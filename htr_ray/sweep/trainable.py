"""What Tune runs for a trial, and what must be gone when it ends.

A trial's process imports this module before it can do anything: what only the driver needs (MLflow, the report, the
board) is seconds, and not for here.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ray import tune
from ray.tune import Callback, PlacementGroupFactory

from htr_ray import storage
from htr_ray.errors import UserError
from htr_ray.sweep.resources import Need, need_of
from htr_ray.train.job import RESULT, Job

PAUSE_SECONDS = 15.0
"""Before a trial is tried again whose storage is away or full: at once, all retries would be used up."""

# A trial that Tune stops closes its stream before its process takes the next one.
STOP_SECONDS = 120
SWEEP_SECONDS = 1.0
# A process that waits for its worker group, and the group's controller beside it.
WAITING_BYTES = 2**29


def run_trial(config: dict[str, Any], *, gpus: float) -> None:
    """Train the job in ``config``; a problem of the user's is reported once, not retried.

    One that may pass (:class:`storage.MayPass`) is raised after a pause, for Tune to try again. A one-worker job
    trains in the trial's own process; more workers are a Ray Train group.
    """
    job = Job.model_validate(config["job"])
    try:
        result = _run(job, gpus, config["key"])
    except storage.MayPass:
        time.sleep(PAUSE_SECONDS)
        raise
    except UserError as error:
        tune.report({"failure": str(error), "epoch_end": False})
        return
    tune.report({"finished": True, "epoch_end": False, "progress": 1.0, "result": compact(result)})


def _run(job: Job, gpus: float, key: str) -> dict[str, Any]:
    from htr_ray.train.launch import run_group, run_here

    done = storage.join(job.folder, RESULT)
    if storage.exists(done):
        from htr_ray.train import checkpoint

        # Its process, or the driver, died when all was stored but not yet told: nothing is trained twice.
        checkpoint.clear(job.folder)
        return storage.read_json(done)
    if job.settings.workers == 1:
        return run_here(job, tune.report)
    from ray.tune.integration.ray_train import TuneReportCallback

    return run_group(job, gpus_per_worker=gpus, name=key.replace("/", "-"), callbacks=[TuneReportCallback()])


def compact(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its per-epoch history, which was reported already."""
    return {key: value for key, value in result.items() if key != "history"}


def placement(wanted: Need) -> PlacementGroupFactory:
    """Placement group of a trial: the trainer first, then one bundle per stream worker.

    A worker group makes its own; its trial is only a thread that waits. It must not take the least part of a CPU:
    a worker that needs all CPUs of a node would never fit beside it.
    """
    if wanted.workers > 1:
        return PlacementGroupFactory([{"memory": WAITING_BYTES}])
    trainer = {"CPU": wanted.worker_cpus}
    if wanted.gpus:
        trainer["GPU"] = wanted.gpus
    streams = [{"CPU": wanted.stream_worker_cpus}] * wanted.stream_workers
    if not wanted.node_labels:
        return PlacementGroupFactory([trainer, *streams])
    selectors = [dict(wanted.node_labels), *({} for _ in streams)]
    return PlacementGroupFactory([trainer, *streams], bundle_label_selector=selectors)


class EndsWhenStopped:
    """Mixin of Tune's trainable: a trial that a scheduler stops takes its worker group along.

    The trial's thread waits in ``TorchTrainer.fit()``, where Tune's request to stop does not reach it. Tune would
    then give up the *next* trial of the process as one that cannot be reset (``reuse_actors``).
    """

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        from htr_ray.train.group import end_groups

        end_groups()
        # Tune asks for it at each reset; its two seconds are too short for a stream that is being started.
        os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(STOP_SECONDS)
        if super().reset_config(new_config):  # type: ignore[misc]
            return True
        os._exit(1)  # a lost process is told to the search algorithm; a reset that fails is not, and all would wait

    def cleanup(self) -> None:
        from htr_ray.train.group import end_groups

        end_groups()
        super().cleanup()  # type: ignore[misc]


class Dispatch:
    """The trainable: a callable, so that Tune pickles the GPUs of the cluster along with it."""

    __mixins__ = (EndsWhenStopped,)

    def __init__(self, cluster_gpus: float) -> None:
        self._cluster_gpus = cluster_gpus

    def __call__(self, config: dict[str, Any]) -> None:
        wanted = need_of(Job.model_validate(config["job"]), self._cluster_gpus)
        run_trial(config, gpus=wanted.gpus_per_worker)


class Leftovers(Callback):
    """Frees what processes that died have left behind, and forgives the trials whose node was lost."""

    def __init__(self) -> None:
        self._swept = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        from htr_ray.train.group import remove_orphans

        if time.monotonic() - self._swept > SWEEP_SECONDS:
            remove_orphans()
            self._swept = time.monotonic()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        from htr_ray.train.group import lost_its_node

        error = trial.get_pickled_error()
        # Tune itself does not count a node whose end was announced (preempted).
        if error is not None and lost_its_node(error) and not error.preempted:
            trial.run_metadata.num_failures -= 1
            trial.run_metadata.invalidate_cache()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        from htr_ray.train.group import groups_left, remove_orphans

        deadline = time.monotonic() + 10.0
        while remove_orphans() or (groups_left() and time.monotonic() < deadline):
            time.sleep(0.2)
