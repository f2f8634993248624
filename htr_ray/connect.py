"""Connect to Ray: the cluster there is, or a local one."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._common.utils import get_ray_address_file
from rich.console import Console

from htr_ray.errors import UserError
from htr_ray.machine import cores

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextlib.contextmanager
def cluster(console: Console) -> Iterator[None]:
    """Connect to the Ray cluster there is (RAY_ADDRESS, ``ray job submit``, ``ray start``), or start a local one.

    A Ray that another program started for itself is left alone: it ends with that program.
    Raises UserError when the cluster that is asked for does not answer.
    """
    if ray.is_initialized():
        yield
        return
    # Ray Data and Tune tell their own story line by line; ours is the board.
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    asked = os.environ.get("RAY_ADDRESS", "")
    if asked not in ("", "local"):
        # Ray itself would try for two minutes and then end in a stack trace.
        if not _answers(asked):
            raise UserError(
                f"RAY_ADDRESS={asked}: no Ray answers there; start it (ray start --head), correct the address, "
                "or set RAY_ADDRESS=local for one of this job's own"
            )
        try:
            ray.init(address=asked, **_QUIET)
        except ConnectionError as error:  # of "auto" only Ray knows where it would be
            raise UserError(
                f"RAY_ADDRESS={asked}: no Ray runs on this machine; start it (ray start --head), "
                "or set RAY_ADDRESS=local for one of this job's own"
            ) from error
    elif asked != "local" and (running := started_here()) is not None:
        ray.init(address=running, **_QUIET)
    else:
        _start(console)
    try:
        yield
    finally:
        ray.shutdown()


def _start(console: Console) -> None:
    # A trainer and its stream take turns on a core, so each core counts twice here.
    ray.init(address="local", num_cpus=2 * cores(), include_dashboard=False, **_QUIET)
    console.print(f"Started a local Ray on {cores()} core(s).")


def started_here() -> str | None:
    """The cluster that ``ray start`` began on this machine, if it still runs."""
    try:
        address = Path(get_ray_address_file(None)).read_text().strip()
    except OSError:
        return None
    return address if address and _answers(address) else None


def _answers(address: str) -> bool:
    """Whether something listens at ``host:port`` (or ``ray://host:port``)."""
    if address == "auto":
        return True
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10):
            return True
    except (OSError, ValueError):
        return False
