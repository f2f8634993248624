"""What the training loop adds to a step: ours, fed by the stream, against a plain PyTorch loop on the same batches.

    python tests/benchmarks/step_overhead.py [CORPUS_URI] [--rounds 5] [--steps 30] [--workers N] [--json FILE]
        [key=value ...]

Contenders take turns, on the same network with the same weights and the very same batches:

- ``plain``: the usual loop of a PyTorch tutorial over tensors that lie in memory; it decodes nothing, waits for
  nothing, clips gradients as we do, and asks for the loss once, at the end.
- ``here``: ``fit`` in this process, fed by the stream, as a one-worker trial of a grid trains.
- ``group``: ``fit`` in the worker of a Ray Train group of one, as ``jobs/finetune.py`` trains.
- ``shared``: with ``--workers N``, ``fit`` on a group of N that share each of these batches (DDP); clocks of rank 0.

Measured from the second step to the last of an epoch, in the process that trains: ``cpu`` is the CPU time of its thread
(of torch's too, where there are several), ``process`` that of the whole process, which includes Ray's and Ray Data's
threads, ``wall`` what a person waits. Printed are medians over the rounds, and of the ratios within each round.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from htr_ray.config import RunSettings, load
from htr_ray.connect import cluster
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.sample import write_sample
from htr_ray.machine import cores
from htr_ray.stream.batch import Batch
from htr_ray.stream.pipeline import stream
from htr_ray.train import launch
from htr_ray.train.data import FinetuneData, open_data
from htr_ray.train.finetune import RecognizerLearner, build
from htr_ray.train.fit import fit, to_tensors
from htr_ray.train.job import RESULT, Job, finetune_job
from htr_ray.train.worker import Worker, autocast_dtype, set_threads

Figures = dict[str, float]
WARM = 1
"""Steps before the clocks start."""


class Clocks:
    """Reads the clocks when step ``first`` and step ``last`` have been made."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last, self._steps = first, last, 0
        self._read: list[tuple[float, float, float]] = []

    def step(self, *_: Any) -> None:
        self._steps += 1
        if self._steps in (self._first, self._last):
            self._read.append((time.thread_time(), time.process_time(), time.monotonic()))

    def figures(self) -> Figures:
        """Milliseconds per step."""
        begun, ended = self._read
        steps = self._last - self._first
        names = ("cpu", "process", "wall")
        return {name: 1e3 * (b - a) / steps for name, a, b in zip(names, begun, ended, strict=True)}


class NothingToRead:
    """No validation: only steps are of interest."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(())


class Measured(RecognizerLearner):
    """As in a fine-tuning, but a step is noted, and nothing is read after the epoch."""

    def evaluate(self, batches: Any, worker: Worker) -> dict[str, float]:
        return {"val_cer": 0.0, "val_wer": 0.0}


def plain(job: Job, data: FinetuneData, held: list[Batch], clocks: Clocks) -> None:
    settings = job.finetune
    assert settings is not None
    torch.manual_seed(0)
    model = build(job, data.alphabet)
    model.train()
    device = torch.device("cpu")
    batches = [to_tensors(batch, device) for batch in held]
    dtype = autocast_dtype(settings.precision, device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    losses = []
    for batch in batches:
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            loss = model(batch).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        losses.append(loss.detach())
        clocks.step()
    torch.stack(losses).mean().item()


def ours(job: Job, data: FinetuneData, worker: Worker, clocks: Clocks) -> None:
    settings = job.finetune
    assert settings is not None
    learner = Measured(build(job, data.alphabet))
    hook = register_optimizer_step_post_hook(clocks.step)
    try:
        fit(
            learner,
            data.train,
            data.train_recipe,
            NothingToRead(),  # type: ignore[arg-type]
            settings=settings,
            streaming=job.stream,
            worker=worker,
            folder=job.folder,
            seed=job.seed,
        )
    finally:
        hook.remove()


def in_group(job: Job, steps: int) -> Figures:
    """The same on a Ray Train group: its worker runs :func:`ours` instead of a whole fine-tuning."""

    def loop(given: dict[str, Any]) -> None:
        from htr_ray import storage

        inside = Job.model_validate_json(given["job"])
        assert inside.finetune is not None
        set_threads(inside.finetune.threads, inside.finetune.cpus_per_worker)
        worker = launch._member()
        for _ in range(2):  # every group is a new process: the first time makes oneDNN's kernels
            clocks = Clocks(WARM, steps)
            ours(inside, given["data"], worker, clocks)
        if worker.leads:
            storage.write_json(storage.join(inside.folder, RESULT), clocks.figures())

    launch._worker_loop = loop
    return launch.run_group(job, gpus_per_worker=0.0, name="overhead", callbacks=[])


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("corpus", nargs="?")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--steps", type=int, default=30)
    asked.add_argument("--workers", type=int, default=1)
    asked.add_argument("--json", type=Path)
    asked.add_argument("settings", nargs="*", default=[], metavar="key=value")
    given = asked.parse_intermixed_args()
    if given.corpus and "=" in given.corpus:
        given.corpus, given.settings = None, [given.corpus, *given.settings]
    with tempfile.TemporaryDirectory(prefix="step-overhead-") as scratch:
        corpus = given.corpus or write_sample(f"{scratch}/corpora")
        chosen = load(
            RunSettings,
            overrides=["preset=small", *given.settings, "finetune.max_epochs=1", "finetune.min_steps_per_epoch=1"],
            environment={},
        )
        # So few labels that an epoch has about that many steps.
        lines = given.steps * chosen.finetune.batch_size
        share = min(1.0, lines / Corpus.open(corpus).info.counts["train"]["labelled"])
        job = finetune_job(chosen.model_copy(update={"label_fraction": share}), corpus, f"{scratch}/job", None)
        data = open_data(job)
        assert isinstance(data, FinetuneData) and job.finetune is not None
        steps = min(given.steps, data.train.plan.steps(0))
        set_threads(job.finetune.threads, job.finetune.cpus_per_worker)
        epoch = stream(data.train, data.train_recipe, job.stream, epochs=1)
        held = [batch for batch, _ in zip(epoch, range(steps), strict=False)]
        epoch.close()

        def in_memory() -> Figures:
            clocks = Clocks(WARM, steps)
            plain(job, data, held, clocks)
            return clocks.figures()

        def here() -> Figures:
            clocks = Clocks(WARM, steps)
            ours(job, data, Worker(), clocks)
            return clocks.figures()

        number = 0

        def grouped(workers: int = 1) -> Figures:
            settings = job.settings.model_copy(update={"workers": workers})
            folder = f"{scratch}/group{number}-{workers}"
            return in_group(job.model_copy(update={"folder": folder, "finetune": settings}), steps)

        contenders: dict[str, Callable[[], Figures]] = {"plain": in_memory, "here": here, "group": grouped}
        if given.workers > 1:
            contenders["shared"] = lambda: grouped(given.workers)
        found: dict[str, list[Figures]] = {name: [] for name in contenders}
        for number in range(given.rounds + 1):
            # Back and forth, so that a machine that slows down is no one's disadvantage.
            for name in sorted(contenders, reverse=bool(number % 2)):
                figures = contenders[name]()
                if number:  # the first round makes oneDNN's kernels
                    found[name].append(figures)
    result = {
        "milliseconds_per_step": {
            name: {clock: round(statistics.median(f[clock] for f in rounds), 1) for clock in rounds[0]}
            for name, rounds in found.items()
        },
        "over_plain": {
            name: {
                clock: round(statistics.median(f[clock] / p[clock] for f, p in pairs), 4)
                for clock in ("cpu", "process", "wall")
            }
            for name in contenders
            if name != "plain"
            for pairs in [list(zip(found[name], found["plain"], strict=True))]
        },
        "rounds": found,
        "steps": steps - WARM,
        "batch": [int(statistics.median(batch.images.shape[axis] for batch in held)) for axis in range(4)],
        "machine": f"{platform.processor() or platform.machine()}, {cores()} core(s)",
        "versions": {"torch": torch.__version__, "ray": ray.__version__, "python": platform.python_version()},
    }
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    with cluster(Console(stderr=True)):
        main()
