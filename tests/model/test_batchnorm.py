"""Two gloo workers against one process that has the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from htr_ray.model.batchnorm import CrossWorkerBatchNorm2d, synchronise

# Lines of the first and the second worker, precision, tolerance.
CASES = {
    "equal": ([(0, 3), (3, 6)], torch.float32, 1e-4),
    "unequal": ([(0, 1), (1, 6)], torch.float32, 1e-4),
    "bfloat16": ([(0, 1), (1, 6)], torch.bfloat16, 3e-2),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3)),
    )
    for parameter in net.parameters():  # weights of 1 and biases of 0 would hide mistakes
        nn.init.normal_(parameter)
    return net


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 2, 8, 9, generator=generator) + 3, torch.randn(6, 3, 6, 7, generator=generator)


def run(net: nn.Module, part: slice, dtype: torch.dtype) -> dict[str, Any]:
    """Two steps (the second sees moved statistics), then eval mode."""
    x, weights = (tensor[part] for tensor in data())
    x.requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        net(x.detach())
        y = net(x.contiguous(memory_format=torch.channels_last))
    (y.float() * weights).sum().backward()
    net.eval()
    with torch.no_grad():
        evaluated = net(x)
    return {
        "output": y.detach().float(),
        "input": x.grad,
        "evaluated": evaluated,
        "gradients": {name: p.grad for name, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
    }


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, (split, dtype, _) in CASES.items():
        net = synchronise(network(), "cpu")
        assert [type(m) for m in net.modules()].count(CrossWorkerBatchNorm2d) == 2
        assert net.state_dict().keys() == network().state_dict().keys()
        torch.save(run(net, slice(*split[rank]), dtype), f"{folder}/{name}{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    mp.spawn(worker, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_workers_together_equal_one_with_the_whole_batch(results: Path, case: str) -> None:
    _, dtype, tolerance = CASES[case]
    workers = [torch.load(results / f"{case}{rank}.pt", weights_only=True) for rank in range(2)]
    whole = run(network(), slice(0, 6), dtype)

    def close(found: torch.Tensor, expected: torch.Tensor) -> None:
        expected = expected.float()
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=tolerance * scale)

    for key in ("output", "input", "evaluated"):
        close(torch.cat([w[key] for w in workers]), whole[key])
    for name, gradient in whole["gradients"].items():
        close(sum(w["gradients"][name] for w in workers), gradient)
    for name, buffer in whole["buffers"].items():
        for w in workers:
            close(w["buffers"][name], buffer)
        # To the bit, since nobody sends them (htr_ray/train/fit.py).
        assert torch.equal(workers[0]["buffers"][name], workers[1]["buffers"][name])


def test_without_other_workers_nothing_changes() -> None:
    net = network()
    assert synchronise(net, "cpu") is net
    assert not any(isinstance(module, CrossWorkerBatchNorm2d) for module in net.modules())
