"""Start a job where it belongs: in this process, or on a Ray Train worker group.

Who starts a group, and its controller, come by here without torch, which takes seconds to import: only training does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from htr_ray.train.data import open_data
from htr_ray.train.job import Job
from htr_ray.train.wake import wake

if TYPE_CHECKING:
    from htr_ray.train.worker import Report, Worker

logger = logging.getLogger(__name__)

# How often a group that may grow looks for room, at the most.
RESIZE_SECONDS = 60.0


def _run(job: Job, data: Any, worker: Worker) -> dict[str, Any]:
    from htr_ray.train import finetune, pretrain
    from htr_ray.train.worker import set_threads

    set_threads(job.settings.threads, job.settings.cpus_per_worker)
    return pretrain.run(job, data, worker) if job.stage == "pretrain" else finetune.run(job, data, worker)


def _backend(gpus: float) -> str:
    # What workers tell each other beside gradients lies on the CPU, and need not wait for the GPU's queue.
    return "cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo"


def _stream_placement() -> Any:
    """The placement group of this process holds CPUs for its stream, so a full cluster cannot starve it."""
    group = ray.util.get_current_placement_group()
    return "SPREAD" if group is None else PlacementGroupSchedulingStrategy(group)


def run_here(job: Job, report: Report) -> dict[str, Any]:
    """Run a one-worker job in this process (a Tune trial): no worker group to start, no second set of resources."""
    placement = _stream_placement()
    wake(job.stream.workers, job.stream.cpus_per_worker, [placement])
    data = open_data(job)

    from htr_ray.train.worker import Worker, local_device

    return _run(job, data, Worker(device=local_device(), report=report, heartbeat=report, placement=placement))


def run_group(job: Job, *, gpus_per_worker: float, name: str, callbacks: list[Any]) -> dict[str, Any]:
    """Run a job on a Ray Train worker group with DDP; returns the result that the job left in its folder.

    Workers that die are started again and continue from the job's checkpoint, up to ``retries`` times, and as often
    as it takes when their node went. With ``min_workers``, the group has as many workers as there is room for, and
    looks for more room every minute. ``callbacks`` are Ray Train's, they see every report.
    """
    from ray.train.v2.api.config import FailureConfig, RunConfig

    from htr_ray import storage
    from htr_ray.train.backend import ProcessGroup
    from htr_ray.train.group import GroupScaling, GroupTrainer
    from htr_ray.train.job import RESULT

    settings, stream = job.settings, job.stream
    resources: dict[str, float] = {"CPU": settings.cpus_per_worker}
    if gpus_per_worker:
        resources["GPU"] = gpus_per_worker
    trainer = GroupTrainer(
        _worker_loop,
        # Opened here, once: the workers share the plan and the cached lines.
        train_loop_config={"job": job.model_dump_json(), "data": open_data(job)},
        scaling_config=GroupScaling(
            num_workers=settings.workers if settings.min_workers is None else (settings.min_workers, settings.workers),
            use_gpu=gpus_per_worker > 0,
            resources_per_worker=resources,
            node_labels=settings.node_labels,
            # A new size costs what was trained since the last checkpoint.
            elastic_resize_monitor_interval_s=max(RESIZE_SECONDS, 60.0 * settings.checkpoint_minutes),
            streams=stream.workers,
            stream_cpus=stream.cpus_per_worker,
        ),
        backend_config=ProcessGroup(_backend(gpus_per_worker)),
        run_config=RunConfig(  # type: ignore[arg-type]  # Ray annotates that of its first version
            name=name,
            storage_path=storage.normalise(storage.join(job.folder, "ray_train")),
            failure_config=FailureConfig(max_failures=settings.retries),
            callbacks=callbacks,
        ),
    )
    trainer.fit()
    return storage.read_json(storage.join(job.folder, RESULT))


def _member() -> Worker:
    """The place of this process in its Ray Train group."""
    import ray.train
    import ray.train.torch
    import torch

    from htr_ray.train.worker import Worker

    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=device,
        report=ray.train.report,
        placement=_stream_placement(),
    )


def _worker_loop(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    from htr_ray import storage
    from htr_ray.train import checkpoint
    from htr_ray.train.job import RESULT

    job = Job.model_validate_json(config["job"])
    worker = _member()
    # The others are done while rank 0 stores the result: a node that is lost then starts a finished group again.
    if any(worker.gather(storage.exists(storage.join(job.folder, RESULT)))):
        if worker.leads:
            checkpoint.clear(job.folder)
        return
    result = _run(job, config["data"], worker)
    if worker.leads:
        logger.info("%s finished: %s", job.folder, {k: v for k, v in result.items() if k != "history"})
