"""How much of its machine a trial uses, under the names by which MLflow draws system metrics."""

from __future__ import annotations

from contextlib import suppress

import psutil
import torch

MEGABYTE = 2**20


def start() -> None:
    """Begin to measure the CPU. psutil counts from the last call in the same thread, and gives 0 at the first."""
    psutil.cpu_percent()


def usage(device: torch.device) -> dict[str, float]:
    """Figures of this machine now: CPU in percent since the last call, memory in MB, and of the GPU where there is one.

    MLflow shows what begins with ``system/`` on a run's page of its own
    (https://mlflow.org/docs/latest/ml/tracking/system-metrics/). Its own sampler would need MLflow in every
    training process; this costs a millisecond per epoch.
    """
    memory = psutil.virtual_memory()
    figures = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / MEGABYTE,
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        figures["system/gpu_0_memory_usage_megabytes"] = (total - free) / MEGABYTE
        figures["system/gpu_0_memory_usage_percentage"] = 100.0 * (total - free) / total
        # It needs NVIDIA's management library, which is not torch's to bring. Its errors (on a card shared by MIG, for
        # one) have no class in common but this, and are no reason to end a training.
        with suppress(Exception):
            figures["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization(device))
    return figures
