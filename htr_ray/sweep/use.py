"""What the cluster has, and has free."""

from __future__ import annotations

import ray

from htr_ray.sweep.progress import Use


def look() -> Use:
    """Ask Ray. Raises Ray's errors when its head does not answer."""
    total, free = ray.cluster_resources(), ray.available_resources()
    return Use(
        nodes=sum(1 for node in ray.nodes() if node["Alive"]),
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        free_cpus=free.get("CPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
    )
