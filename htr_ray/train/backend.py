"""How the workers of a group find each other: Ray Train's torch backend, imported where it is needed only.

``TorchConfig`` itself imports torch wherever it is unpickled, first of all in the group's controller, for which its
workers wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.util import TrainingFramework


@dataclass
class ProcessGroup(BackendConfig):
    """torch.distributed over ``backend`` (gloo, or that and nccl) where there is more than one worker."""

    backend: str

    @property
    def backend_cls(self) -> type[Backend]:
        return _WhenMany

    @property
    def framework(self) -> TrainingFramework:
        return TrainingFramework.TORCH


class _WhenMany(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        if len(worker_group) == 1:  # it has nobody to speak with
            return
        worker_group.execute_async(_import_torch)  # while the controller imports it below
        backend, config = _of_ray(backend_config)
        backend.on_start(worker_group, config)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        if len(worker_group) > 1:
            backend, config = _of_ray(backend_config)
            backend.on_shutdown(worker_group, config)


def _of_ray(config: ProcessGroup) -> tuple[Any, Any]:
    from ray.train.torch.config import TorchConfig

    made = TorchConfig(backend=config.backend)
    return made.backend_cls(), made


def _import_torch() -> None:
    import torch  # noqa: F401
