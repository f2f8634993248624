"""Connect to Ray: the cluster there is, or a local one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import ray
from rich.console import Console


@contextlib.contextmanager
def cluster(console: Console) -> Iterator[None]:
    """Connect to the Ray cluster there is (RAY_ADDRESS, ``ray job submit``, ``ray start``), or start a local one."""
    if ray.is_initialized():
        yield
        return
    # Ray Data and Tune tell their own story line by line; ours is the board.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        # RAY_ADDRESS=local asks for a Ray of its own although another one runs on this machine.
        if os.environ.get("RAY_ADDRESS") == "local":
            raise ConnectionError
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # A trainer and its stream take turns on a core, so each core counts twice here.
        ray.init(
            address="local",
            num_cpus=2 * cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        console.print(f"Started a local Ray on {cores} core(s).")
    try:
        yield
    finally:
        ray.shutdown()
