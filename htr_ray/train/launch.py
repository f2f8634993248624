"""Start a job where it belongs: in this process, or on a Ray Train worker group."""

from __future__ import annotations

import logging
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from htr_ray.train import finetune, pretrain
from htr_ray.train.job import Job
from htr_ray.train.worker import Report, Worker, local_device, set_threads

logger = logging.getLogger(__name__)


def _open(job: Job) -> Any:
    return pretrain.open_data(job) if job.stage == "pretrain" else finetune.open_data(job)


def _run(job: Job, data: Any, worker: Worker) -> dict[str, Any]:
    set_threads(job.settings.threads, job.settings.cpus_per_worker)
    return pretrain.run(job, data, worker) if job.stage == "pretrain" else finetune.run(job, data, worker)


def run_here(job: Job, report: Report) -> dict[str, Any]:
    """Run a one-worker job in this process (a Tune trial): no worker group to start, no second set of resources."""
    # The trial's placement group holds CPUs for the stream, so a full cluster cannot starve it.
    group = ray.util.get_current_placement_group()
    placement = "SPREAD" if group is None else PlacementGroupSchedulingStrategy(group)
    worker = Worker(device=local_device(), report=report, heartbeat=report, placement=placement)
    return _run(job, _open(job), worker)


def run_group(job: Job, *, gpus_per_worker: float, name: str, callbacks: list[Any]) -> dict[str, Any]:
    """Run a job on a Ray Train worker group with DDP; returns the result that the job left in its folder.

    Workers that die are started again and continue from the job's checkpoint, up to
    ``retries`` times. ``callbacks`` are Ray Train's, they see every report.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from htr_ray import storage
    from htr_ray.train.job import RESULT

    settings = job.settings
    resources: dict[str, float] = {"CPU": settings.cpus_per_worker}
    if gpus_per_worker:
        resources["GPU"] = gpus_per_worker
    trainer = TorchTrainer(
        _worker_loop,
        # Opened here, once: the workers share the plan and the cached lines.
        train_loop_config={"job": job.model_dump_json(), "data": _open(job)},
        scaling_config=ScalingConfig(
            num_workers=settings.workers, use_gpu=gpus_per_worker > 0, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if gpus_per_worker >= 1 else "gloo"),
        run_config=RunConfig(
            name=name,
            storage_path=storage.normalise(storage.join(job.folder, "ray_train")),
            failure_config=FailureConfig(max_failures=settings.retries),
            callbacks=callbacks,
        ),
    )
    trainer.fit()
    return storage.read_json(storage.join(job.folder, RESULT))


def _worker_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    job = Job.model_validate_json(config["job"])
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    worker = Worker(
        rank=context.get_world_rank(), world=context.get_world_size(), device=device, report=ray.train.report
    )
    result = _run(job, config["data"], worker)
    if worker.leads:
        logger.info("%s finished: %s", job.folder, {k: v for k, v in result.items() if k != "history"})
