"""What a trial takes from the cluster, and whether the cluster can ever give it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from htr_ray.errors import UserError
from htr_ray.train.job import Job
from htr_ray.train.nodes import Node, fits, gpus_of_a_worker, matches

if TYPE_CHECKING:
    from htr_ray.sweep.cells import Trial


@dataclass(frozen=True)
class Need:
    """What one trial needs to start: its training workers (the fewest it runs with) and their stream workers.

    ``workers`` is the number it runs with where there is room.
    """

    workers: int
    min_workers: int
    worker_cpus: float
    gpus_per_worker: float
    streams_per_worker: int
    stream_worker_cpus: float
    node_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def stream_workers(self) -> int:
        return self.min_workers * self.streams_per_worker

    @property
    def cpus(self) -> float:
        return self.min_workers * self.worker_cpus + self.stream_workers * self.stream_worker_cpus

    @property
    def gpus(self) -> float:
        return self.min_workers * self.gpus_per_worker

    @property
    def most_gpus(self) -> float:
        return self.workers * self.gpus_per_worker

    def fits(self, nodes: Sequence[Node]) -> bool:
        """Whether these nodes hold such a trial."""
        return fits(
            nodes,
            workers=self.min_workers,
            cpus=self.worker_cpus,
            gpus=self.gpus_per_worker,
            streams=self.stream_workers,
            stream_cpus=self.stream_worker_cpus,
            selector=self.node_labels,
        )


def need(trial: Trial, cluster_gpus: float) -> Need:
    """Resources of a trial on a cluster with that many GPUs (0: it trains on CPUs)."""
    return need_of(trial.job, cluster_gpus)


def need_of(job: Job, cluster_gpus: float) -> Need:
    """The same, for what the trial is asked to do."""
    stage, stream = job.settings, job.stream
    gpus = stage.gpus_per_worker
    if gpus is None:
        gpus = (1.0 if job.stage == "pretrain" else 0.25) if cluster_gpus >= 1 else 0.0
    return Need(
        workers=stage.workers,
        min_workers=stage.min_workers or stage.workers,
        worker_cpus=stage.cpus_per_worker,
        gpus_per_worker=gpus_of_a_worker(gpus, stage.workers),
        streams_per_worker=stream.workers,
        stream_worker_cpus=stream.cpus_per_worker,
        node_labels=stage.node_labels,
    )


def check(trials: list[Trial], nodes: Sequence[Node]) -> None:
    """Raise UserError with the arithmetic when some trial can never start on these nodes."""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    for stage in ("pretrain", "finetune"):
        wanted = next((need(trial, gpus) for trial in trials if trial.stage == stage), None)
        if wanted is None or wanted.fits(nodes):
            continue
        if not any(matches(node.labels, wanted.node_labels) for node in nodes):
            raise UserError(
                f"{stage}.node_labels: no node has {_labels(wanted.node_labels)}; the cluster has {_known(nodes)}. "
                "Correct it, start nodes with these labels (ray start --labels), "
                "or set max_concurrent if the cluster grows on demand"
            )
        raise UserError(
            f"{stage}: one trial needs {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs, the cluster has "
            f"{cpus:g} and {gpus:g}: {wanted.min_workers} worker(s) x ({wanted.worker_cpus:g} CPU "
            f"+ {wanted.streams_per_worker} stream worker(s) x {wanted.stream_worker_cpus:g} CPU), "
            f"{wanted.gpus_per_worker:g} GPU each. {_by_node(wanted, nodes)}"
            f"Lower {stage}.workers, {stage}.cpus_per_worker, {stage}.gpus_per_worker, stream.workers or "
            "stream.cpus_per_worker; or set max_concurrent if the cluster grows on demand"
        )


def _by_node(wanted: Need, nodes: Sequence[Node]) -> str:
    """Why it does not fit although the sums may."""
    sizes = Counter(
        f"{node.cpus:g} CPU and {node.gpus:g} GPU"
        + ("" if matches(node.labels, wanted.node_labels) else " (other labels)")
        for node in nodes
        if node.cpus or node.gpus
    )
    on = f" with {_labels(wanted.node_labels)}" if wanted.node_labels else ""
    return (
        f"A worker must fit on one node{on}, and so must a stream worker; the nodes are "
        + ", ".join(f"{count} x {size}" for size, count in sizes.items())
        + ". "
    )


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def _known(nodes: Sequence[Node]) -> str:
    """The labels that a person may have set, with how many nodes have them; Ray's ids of nodes are left out."""
    counts = Counter(
        f"{key}={value}" for node in nodes for key, value in node.labels.items() if key != "ray.io/node-id"
    )
    return ", ".join(f"{label} ({count} node(s))" for label, count in sorted(counts.items())) or "no labels"


def at_a_time(wanted: Need, cpus: float, gpus: float) -> int:
    """How many such trials the cluster holds at once; at least 1."""
    by_cpu = cpus / wanted.cpus
    by_gpu = gpus / wanted.gpus if wanted.gpus else by_cpu
    return max(1, int(min(by_cpu, by_gpu) + 1e-9))
