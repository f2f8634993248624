"""The nodes of the Ray cluster: what they have, what is free, and what fits on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import ray
from ray._private.state import available_resources_per_node, state

SLACK = 1e-6
"""Ray counts resources in steps of 1/10,000; sums of fractions are not exact."""


@dataclass(frozen=True)
class Node:
    """CPUs, GPUs and labels of one node (``ray start --labels``)."""

    cpus: float
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def holds(self, cpus: float, gpus: float) -> int:
        """How many processes of that size fit; a fraction of a GPU never spans two cards."""
        by_cpu = (self.cpus + SLACK) / cpus if cpus else float("inf")
        if not gpus:
            by_gpu = float("inf")
        elif gpus < 1:
            by_gpu = self.gpus * int((1 + SLACK) / gpus)
        else:
            by_gpu = (self.gpus + SLACK) / gpus
        return int(min(by_cpu, by_gpu, 1e9))


def gpus_of_a_worker(wanted: float, workers: int) -> float:
    """GPUs of each of so many workers: a group needs whole cards, for two DDP ranks on one cannot speak NCCL."""
    return 1.0 if workers > 1 and 0 < wanted < 1 else wanted


def nodes() -> list[Node]:
    """Living nodes with all that they have, used or not."""
    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0), node.get("Labels") or {})
        for node in ray.nodes()
        if node["Alive"]
    ]


def free_nodes() -> list[Node]:
    """Living nodes with what is free on them now; those about to leave are left out."""
    free, leaving = available_resources_per_node(), state.get_draining_nodes()
    return [
        Node(free[name].get("CPU", 0.0), free[name].get("GPU", 0.0), node.get("Labels") or {})
        for node in ray.nodes()
        if node["Alive"] and (name := node["NodeID"]) in free and name not in leaving
    ]


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with these labels is meant: a value, ``!value``, ``in(a,b)`` or ``!in(a,b)`` for each key.

    Ray's rules (https://docs.ray.io/en/latest/ray-core/scheduling/labels.html).
    """
    for key, wanted in selector.items():
        negated = wanted.startswith("!")
        value = wanted.removeprefix("!")
        allowed = [v.strip() for v in value[3:-1].split(",")] if value.startswith("in(") else [value]
        if (labels.get(key) in allowed) == negated:
            return False
    return True


def fits(
    where: Iterable[Node],
    *,
    workers: int,
    cpus: float,
    gpus: float,
    streams: int,
    stream_cpus: float,
    selector: Mapping[str, str],
) -> bool:
    """Whether the nodes hold so many training workers, on those that ``selector`` means, and stream workers anywhere.

    Exact: node by node, the largest number of stream workers for every number of workers placed so far.
    """
    best = {0: 0}
    for node in where:
        at_most = min(workers, node.holds(cpus, gpus)) if matches(node.labels, selector) else 0
        beside = [Node(node.cpus - count * cpus).holds(stream_cpus, 0) for count in range(at_most + 1)]
        after: dict[int, int] = {}
        for placed, held in best.items():
            for count in range(min(at_most, workers - placed) + 1):
                after[placed + count] = max(after.get(placed + count, 0), min(streams, held + beside[count]))
        best = after
    return best.get(workers, -1) >= streams
