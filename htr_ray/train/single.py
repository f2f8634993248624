"""One stage on its own, on a Ray Train worker group: what ``jobs/pretrain.py`` and ``jobs/finetune.py`` run."""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray.train import UserCallback
from ray.util.queue import Queue
from rich.console import Console

from htr_ray import storage
from htr_ray.corpus.read import Corpus
from htr_ray.train.job import RESULT, Job, left_out
from htr_ray.train.launch import run_group
from htr_ray.train.nodes import gpus_of_a_worker


class SendEpochs(UserCallback):
    """Ray Train calls it in an actor of its own, so the figures travel to the driver by a queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        self._queue.put(metrics[0])

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        rank, error = next(iter(worker_exceptions.items()))
        # A traceback as text ends with the line that says what happened.
        self._queue.put({"failure": f"worker {rank}: {(str(error).strip().splitlines() or [repr(error)])[-1]}"})


def _print_epochs(queue: Queue, console: Console) -> None:
    """A line per epoch, with the share of the schedule that is done and the time left; None ends it."""
    while (last := queue.get()) is not None:
        if "failure" in last:
            console.print(f"a worker failed ({last['failure']})", markup=False, highlight=False, soft_wrap=True)
            continue
        left = last["seconds"] * (1.0 / max(last["progress"], 1e-3) - 1.0) / 60.0
        figures = ", ".join(
            f"{name} {last[name]:.2f}" for name in ("train_loss", "val_accuracy", "val_cer", "val_wer") if name in last
        )
        console.print(
            f"epoch {last['epoch']}: {figures}, {last['lines_per_second']:.0f} lines/s, "
            f"{last['minutes']:.1f} min gone, at most {left:.0f} min left",
            highlight=False,
            soft_wrap=True,
        )


def run_single(job: Job, console: Console | None = None) -> dict[str, Any]:
    """Run one job to its end (or continue it) and return its result without the history.

    The folder of the job is its ``--output``; a finished one is returned as it is. Raises
    UserError when there is no corpus.
    """
    console = console or Console()
    Corpus.open(job.corpus)
    done = storage.join(job.folder, RESULT)
    if storage.exists(done):
        console.print(f"{job.folder} is finished already; delete it or use another --output to train anew")
        result = storage.read_json(done)
    else:
        settings = job.settings
        gpus = settings.gpus_per_worker
        if gpus is None:
            enough = ray.cluster_resources().get("GPU", 0) >= (settings.min_workers or settings.workers)
            gpus = 1.0 if enough else 0.0
        gpus = gpus_of_a_worker(gpus, settings.workers)
        name = job.folder.rstrip("/").rsplit("/", 1)[-1]
        queue = Queue(actor_options={"num_cpus": 0})
        printer = threading.Thread(target=_print_epochs, args=(queue, console), daemon=True)
        printer.start()
        try:
            result = run_group(job, gpus_per_worker=gpus, name=name, callbacks=[SendEpochs(queue)])
        finally:
            queue.put(None)
            printer.join(timeout=10.0)
            queue.shutdown()
    for told in left_out(result.get("unreadable", []), result.get("set_aside", [])):
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    return {key: value for key, value in result.items() if key != "history"}
