"""Checkpoints: what is saved comes back, and an interrupted save does no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from htr_ray import storage
from htr_ray.errors import UserError
from htr_ray.train import checkpoint

pytest_plugins = ["s3_server"]

STATE: dict[str, Any] = {"epoch": 3, "seconds": 12.5, "outcome": {"history": [{"epoch": 0, "loss": 1.5}], "best": None}}


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")
    return storage.join(root, "trial")


def trained(seed: int, steps: int = 3, width: int = 5) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A module with parameters and buffers, and an optimizer with state in two groups."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 2))
    groups = [{"params": module[0].parameters(), "lr": 0.01}, {"params": module[2].parameters(), "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
    for _ in range(steps):
        train_step(module, optimizer)
    return module, optimizer


def train_step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    loss = module(torch.randn(8, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_round_trip(folder: str) -> None:
    module, optimizer = trained(0)
    best = checkpoint._weights(module)
    train_step(module, optimizer)
    optimizer.param_groups[1]["lr"] = 0.05
    checkpoint.save(folder, module, optimizer, best, STATE)
    after = [train_step(module, optimizer) for _ in range(3)]

    other, its_optimizer = trained(1, steps=1)
    loaded = checkpoint.load(folder, other, its_optimizer)
    assert loaded is not None
    best_again, state = loaded
    assert {key: state[key] for key in STATE} == STATE
    assert best_again.keys() == best.keys()
    assert all(torch.equal(best_again[name], best[name]) for name in best)
    assert not torch.equal(best["0.weight"], other.state_dict()["0.weight"])
    assert [group["lr"] for group in its_optimizer.param_groups] == [0.01, 0.05]
    # Weights, Adam's moments, rates and random numbers: the same steps follow, bit for bit.
    assert [train_step(other, its_optimizer) for _ in range(3)] == after
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_best_weights_are_a_copy() -> None:
    module, optimizer = trained(0)
    best = checkpoint._weights(module)
    before = {name: value.clone() for name, value in best.items()}
    train_step(module, optimizer)
    assert all(torch.equal(best[name], before[name]) for name in best)


def test_no_checkpoint(folder: str) -> None:
    module, optimizer = trained(0)
    assert checkpoint.load(folder, module, optimizer) is None and checkpoint.pointer(folder) is None
    checkpoint.clear(folder)


def test_the_newer_one_replaces_the_older(folder: str) -> None:
    module, optimizer = trained(0)
    for epoch in (1, 2):
        checkpoint.save(folder, module, optimizer, checkpoint._weights(module), {**STATE, "epoch": epoch})
    loaded = checkpoint.load(folder, module, optimizer)
    assert loaded is not None and loaded[1]["epoch"] == 2
    assert len(storage.listdir(folder)) == 2  # the pointer and one checkpoint
    checkpoint.clear(folder)
    assert checkpoint.load(folder, module, optimizer) is None
    assert not storage.walk(folder) if storage.exists(folder) else True


@pytest.mark.parametrize("moment", ["upload_dir", "write_json"])
def test_interrupted_save_leaves_the_old_one(folder: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, optimizer = trained(0)
    checkpoint.save(folder, module, optimizer, checkpoint._weights(module), {**STATE, "epoch": 1})
    weights = checkpoint._weights(module)
    train_step(module, optimizer)

    def die(*_: object) -> None:
        if moment == "upload_dir":  # a part of the files has arrived
            storage.write_bytes(storage.join(folder, "checkpoint-00002-half", "model.safetensors"), b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, moment, die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, module, optimizer, weights, {**STATE, "epoch": 2})
    loaded = checkpoint.load(folder, module, optimizer)
    assert loaded is not None and loaded[1]["epoch"] == 1
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    # The next save goes through.
    checkpoint.save(folder, module, optimizer, weights, {**STATE, "epoch": 3})
    loaded = checkpoint.load(folder, module, optimizer)
    assert loaded is not None and loaded[1]["epoch"] == 3


def test_checkpoint_of_another_model(tmp_path: Path) -> None:
    module, optimizer = trained(0)
    checkpoint.save(str(tmp_path), module, optimizer, checkpoint._weights(module), STATE)
    with pytest.raises(UserError, match="does not fit these settings.*delete the folder"):
        checkpoint.load(str(tmp_path), *trained(0, width=6))
    fewer, _ = trained(0)
    with pytest.raises(UserError, match="does not fit these settings"):
        checkpoint.load(str(tmp_path), fewer, torch.optim.AdamW(fewer.parameters()))


def test_nothing_is_pickled(tmp_path: Path) -> None:
    module, optimizer = trained(0)
    checkpoint.save(str(tmp_path), module, optimizer, checkpoint._weights(module), STATE)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert len(files) == 6
    # Safetensors start with the length of a JSON header; a pickle or zip would not.
    for path in files:
        data = path.read_bytes()
        header = data if path.suffix == ".json" else data[8 : 8 + int.from_bytes(data[:8], "little")]
        assert header.lstrip()[:1] == b"{"
