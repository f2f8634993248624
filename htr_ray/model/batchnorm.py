"""Batch normalisation over the batch of all workers, so that results do not depend on their number.

Torch's ``SyncBatchNorm`` does this on GPUs only; ``CrossWorkerBatchNorm2d`` does it for any backend
(gloo on CPUs), by the same method: workers add up their sums, forward and backward.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional


def synchronise(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Let every ``BatchNorm2d`` in ``module`` use the statistics of all workers' batches.

    Returns the module (a new one if it is itself a ``BatchNorm2d``); parameters, buffers and their
    names stay, so that checkpoints fit either way. Does nothing without a process group or with a
    single worker. To be called after ``device`` is decided and before DDP wraps the module.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if torch.device(device).type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    if type(module) is nn.BatchNorm2d:
        return CrossWorkerBatchNorm2d.of(module)
    for name, child in module.named_children():
        setattr(module, name, synchronise(child, device))
    return module


class CrossWorkerBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` whose training statistics are those of all workers' batches, of unequal size or not."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> CrossWorkerBatchNorm2d:
        """The same layer, sharing parameters and buffers."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new.weight, new.bias = norm.weight, norm.bias
        new.running_mean, new.running_var = norm.running_mean, norm.running_var
        new.num_batches_tracked = norm.num_batches_tracked
        new.train(norm.training)
        return new

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same; every worker must call it equally often."""
        if not self.training:
            return super().forward(x)
        y, mean, var, count = _CrossWorker.apply(x, self.weight, self.bias, self.running_mean, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (count / (count - 1)), momentum)
        normalised: Tensor = y
        return normalised


class _CrossWorker(torch.autograd.Function):
    """Torch's kernels do the passes over the feature maps; here are the sums between them."""

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # batch_norm_update_stats would spare a pass, but rounds the variance to bfloat16.
        _, local_mean, local_rate = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        local_var = local_rate.float().square().reciprocal() - eps
        local_mean = local_mean.float()
        # Sums of squares lose digits when the mean is large, so they are taken about a point
        # near it, which all workers share.
        origin = torch.zeros_like(local_mean) if running_mean is None else running_mean.clone()
        n = x.numel() / x.shape[1]
        moved = local_mean - origin
        sums = torch.stack([moved * n, (local_var + moved.square()) * n, torch.full_like(moved, n)])
        dist.all_reduce(sums)
        count = sums[2]
        moved = sums[0] / count
        mean, var = origin + moved, (sums[1] / count - moved.square()).clamp(min=0)
        ctx.eps, ctx.count = eps, count
        ctx.save_for_backward(x, weight, mean, var)
        y = functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, var = ctx.saved_tensors
        scaled, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        # By the layer's input there are two more terms, since mean and variance depend on it.
        # Their sums go over all workers; the parameters' own gradients stay local, for DDP to add.
        sums = torch.stack([by_bias, by_weight]).float()
        dist.all_reduce(sums)
        rate = (var + ctx.eps).rsqrt()
        slope = -weight * rate.square() * sums[1] / ctx.count
        offset = -weight * rate * sums[0] / ctx.count - slope * mean
        shape = (1, -1, 1, 1)
        scaled += torch.addcmul(offset.to(x.dtype).view(shape), x, slope.to(x.dtype).view(shape))
        return scaled, by_weight, by_bias, None, None
