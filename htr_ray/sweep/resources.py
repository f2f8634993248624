"""What a trial takes from the cluster, and whether the cluster can ever give it."""

from __future__ import annotations

from dataclasses import dataclass

from htr_ray.errors import UserError
from htr_ray.sweep.cells import Trial


@dataclass(frozen=True)
class Need:
    """CPUs and GPUs of one trial: its training workers and their stream workers together."""

    train_cpus: float
    stream_cpus: float
    gpus: float
    stream_workers: int
    stream_worker_cpus: float
    workers: int
    gpus_per_worker: float

    @property
    def cpus(self) -> float:
        return self.train_cpus + self.stream_cpus


def need(trial: Trial, cluster_gpus: float) -> Need:
    """Resources of a trial on a cluster with that many GPUs (0: it trains on CPUs)."""
    stage, stream = trial.job.settings, trial.job.stream
    gpus = stage.gpus_per_worker
    if gpus is None:
        gpus = (1.0 if trial.stage == "pretrain" else 0.25) if cluster_gpus >= 1 else 0.0
    # A worker group needs whole cards: two DDP ranks on one GPU cannot speak NCCL.
    if stage.workers > 1 and 0 < gpus < 1:
        gpus = 1.0
    stream_workers = stage.workers * stream.workers
    return Need(
        train_cpus=stage.workers * stage.cpus_per_worker,
        stream_cpus=stream_workers * stream.cpus_per_worker,
        gpus=stage.workers * gpus,
        stream_workers=stream_workers,
        stream_worker_cpus=stream.cpus_per_worker,
        workers=stage.workers,
        gpus_per_worker=gpus,
    )


def check(trials: list[Trial], cpus: float, gpus: float) -> None:
    """Raise UserError with the arithmetic when some trial can never start on this cluster."""
    for stage in ("pretrain", "finetune"):
        for trial in trials:
            if trial.stage != stage:
                continue
            wanted = need(trial, gpus)
            if wanted.cpus > cpus or wanted.gpus > gpus:
                settings, stream = trial.job.settings, trial.job.stream
                raise UserError(
                    f"{stage}: one trial needs {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs, the cluster has "
                    f"{cpus:g} and {gpus:g}: {settings.workers} worker(s) x ({settings.cpus_per_worker:g} CPU "
                    f"+ {stream.workers} stream worker(s) x {stream.cpus_per_worker:g} CPU), "
                    f"{wanted.gpus_per_worker:g} GPU each. Lower {stage}.workers, {stage}.cpus_per_worker, "
                    f"{stage}.gpus_per_worker, stream.workers or stream.cpus_per_worker; "
                    "or set max_concurrent if the cluster grows on demand"
                )
            break


def at_a_time(wanted: Need, cpus: float, gpus: float) -> int:
    """How many such trials the cluster holds at once; at least 1."""
    by_cpu = cpus / wanted.cpus
    by_gpu = gpus / wanted.gpus if wanted.gpus else by_cpu
    return max(1, int(min(by_cpu, by_gpu) + 1e-9))
