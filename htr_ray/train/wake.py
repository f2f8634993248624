"""Have Ray start the processes of a stream before there is work for them."""

from __future__ import annotations

from typing import Any

import ray


def wake(count: int, cpus: float, placements: list[Any]) -> None:
    """Start ``count`` stream workers at each of ``placements`` (Ray's scheduling strategies), ``cpus`` each.

    A process takes seconds to start and to import what it needs: on other cores, while the trainer imports torch
    and opens its data. Ray keeps processes whose task has ended and gives the stream's tasks to them. Nobody waits
    for it, and where there is no room it does no harm.
    """
    task: Any = ray.remote(_import_stream)
    for placement in placements:
        for _ in range(count):
            task.options(num_cpus=cpus, scheduling_strategy=placement, max_retries=0).remote()


def _import_stream() -> None:
    import htr_ray.stream.pipeline  # noqa: F401
