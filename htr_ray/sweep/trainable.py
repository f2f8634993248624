"""What Tune runs for a trial."""

from __future__ import annotations

from typing import Any

from ray import tune

from htr_ray.errors import UserError
from htr_ray.sweep.resources import Need
from htr_ray.train.job import Job


def run_trial(config: dict[str, Any], *, gpus: float) -> None:
    """Train the job in ``config``; a problem of the user's is reported once, not retried.

    A one-worker job trains in the trial's own process; more workers are a Ray Train group.
    """
    from htr_ray.train.launch import run_group, run_here

    job = Job.model_validate(config["job"])
    try:
        if job.settings.workers == 1:
            result = run_here(job, tune.report)
        else:
            from ray.tune.integration.ray_train import TuneReportCallback

            result = run_group(
                job,
                gpus_per_worker=gpus,
                name=config["key"].replace("/", "-"),
                callbacks=[TuneReportCallback()],
            )
    except UserError as error:
        tune.report({"failure": str(error), "epoch_end": False})
        return
    tune.report({"finished": True, "epoch_end": False, "progress": 1.0, "result": compact(result)})


def compact(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its per-epoch history, which was reported already."""
    return {key: value for key, value in result.items() if key != "history"}


def bundles(wanted: Need) -> list[dict[str, float]]:
    """Placement group of a trial: the trainer first, then one bundle per stream worker.

    A worker group makes its own; its trial is only a thread that waits.
    """
    if wanted.workers > 1:
        return [{"CPU": 0.001}]
    trainer = {"CPU": wanted.train_cpus}
    if wanted.gpus:
        trainer["GPU"] = wanted.gpus
    return [trainer, *({"CPU": wanted.stream_worker_cpus} for _ in range(wanted.stream_workers))]
