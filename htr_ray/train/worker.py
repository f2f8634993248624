"""One training worker: its rank, device, precision, and how it speaks with the others."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from htr_ray.config import Precision

Report = Callable[[dict[str, Any]], None]


def _ignore(_: dict[str, Any]) -> None:
    return None


@dataclass
class Worker:
    """Place of this process in the worker group.

    ``report`` takes the figures of an epoch and is called by every worker (Ray Train makes it
    a barrier); ``heartbeat`` tells progress within an epoch and is called by rank 0 alone.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Report = _ignore
    heartbeat: Report = _ignore
    placement: Any = "SPREAD"
    """Where the stream's CPU workers run: Ray's scheduling strategy."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[int]) -> list[int]:
        """Element-wise sum over all workers."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def agree(self, progress: float, width: int) -> tuple[float, int]:
        """Rank 0's ``progress``, so that all workers decide alike (clocks differ between machines), and the largest
        ``width`` of all workers. One message for both: every step waits for it.
        """
        if self.world == 1:
            return progress, width
        tensor = torch.tensor([progress if self.leads else -math.inf, width], dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        progress, widest = tensor.tolist()
        return progress, int(widest)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give every worker rank 0's values of ``tensors``."""
        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def local_device() -> torch.device:
    """The GPU that Ray assigned to this process, or the CPU. Outside of Ray's processes the machine's first GPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() and not _left_without_gpu() else torch.device("cpu")


def _left_without_gpu() -> bool:
    """Whether this is a process of Ray's that was given no GPU: since 2.60, it sees those of others all the same."""
    ray = sys.modules.get("ray")  # not imported for it: few lines are read without Ray, which takes a second
    if ray is None or not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.worker.mode == ray.WORKER_MODE and not context.get_accelerator_ids().get("GPU")


def set_threads(threads: int | None, cpus: float) -> None:
    """Give torch ``threads``, or as many as Ray reserved CPUs; more only fight with the other processes."""
    threads = threads or max(1, round(cpus))
    torch.set_num_threads(threads)
    # For libraries that read it when they start (and child processes).
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # oneDNN keeps 1024 prepared kernels; a network has about a hundred per width of batch.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The autocast type, or None for plain float32.

    ``auto`` takes bfloat16 where the device multiplies it faster: on GPUs, and on CPUs with AMX (Intel since 2023) or
    AVX-512 BF16 (AMD since 2022). With the first, `small` reads 3.4 times as fast (recognition.md in
    tests/benchmarks/results), with the second a step of its training is 1.5 times as fast (training_step.md).
    """
    if precision == "float32":
        return None
    if precision == "bfloat16" or device.type == "cuda" or _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return None


def _cpu_multiplies_bfloat16() -> bool:
    """By instructions of its own; elsewhere oneDNN would convert to float32 and back."""
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)
