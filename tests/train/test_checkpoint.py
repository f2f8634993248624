"""Checkpoints: what is saved comes back, and an interrupted save does no harm."""

from __future__ import annotations

import re
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert checkpoint.load(folder, module, optimizer) is None and checkpoint.newest(folder) is None
    checkpoint.clear(folder)


def save(folder: str, epoch: int, seed: int = 0) -> torch.nn.Module:
    """Save a checkpoint of an epoch, with weights of its own; returns the module."""
    module, optimizer = trained(seed + 10 * epoch)
    state = {**STATE, "epoch": epoch}
    assert checkpoint.save(folder, module, optimizer, checkpoint._weights(module), state) is None
    return module


def load(folder: str) -> tuple[int, torch.nn.Module, list[str]]:
    """The epoch that is continued after (0: anew), the weights there, and what was told."""
    module, optimizer = trained(0, steps=1)
    told: list[str] = []
    loaded = checkpoint.load(folder, module, optimizer, told)
    return (0 if loaded is None else loaded[1]["epoch"]), module, told


def alike(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_newest_two_are_kept(folder: str) -> None:
    for epoch in (9, 10, 11):
        save(folder, epoch)
    assert load(folder)[0] == 11
    assert [name[:16] for name in storage.listdir(folder)] == ["checkpoint-00010", "checkpoint-00011"]
    checkpoint.clear(folder)
    assert load(folder)[0] == 0
    assert not storage.walk(folder) if storage.exists(folder) else True


@pytest.mark.parametrize("moment", ["write_bytes", "write_json"])
def test_interrupted_save_leaves_the_old_one(folder: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by ``kill -9``: no file of the checkpoint has arrived, or all but the manifest."""
    before = save(folder, 1)

    def die(uri: str, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, moment, die)
        with pytest.raises(KeyboardInterrupt):
            save(folder, 2)
    epoch, module, told = load(folder)
    assert epoch == 1 and alike(module, before)
    assert [("checkpoint-00002" in line, "interrupted" in line) for line in told] == [(True, True)][: len(told)]
    assert len(told) == (1 if moment == "write_json" else 0)
    # The next save goes through, and what was left of the other is gone.
    save(folder, 2)
    assert [name[:16] for name in storage.listdir(folder)] == ["checkpoint-00001", "checkpoint-00002"]
    assert load(folder)[::2] == (2, [])


FILES = ["best.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "random.safetensors"]


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "deleted"])
@pytest.mark.parametrize("file", [*FILES, "state.json"])
def test_a_damaged_newest_one_is_named_and_the_one_before_is_used(tmp_path: Path, file: str, how: str) -> None:
    folder = str(tmp_path)
    before = save(folder, 1)
    save(folder, 2)
    name = checkpoint.newest(folder)
    assert name is not None and name.startswith("checkpoint-00002")
    path = tmp_path / name / file
    content = path.read_bytes()
    if how == "flipped":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2 if how == "truncated" else 0])
    epoch, module, told = load(folder)
    assert epoch == 1 and alike(module, before)
    assert len(told) == 1 and f"{folder}/{name}: damaged checkpoint, not used" in told[0] and file in told[0]
    # The one that follows has the good one, not the damaged one, as its predecessor.
    save(folder, 2)
    assert name not in storage.listdir(folder) and len(storage.listdir(folder)) == 2
    assert load(folder)[::2] == (2, [])


@given(st.data())
@settings(max_examples=60)
def test_no_flipped_bit_gets_into_the_weights(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, newest = save(folder, 1), save(folder, 2)
        name = checkpoint.newest(folder)
        path = Path(folder, str(name), data.draw(st.sampled_from([*FILES, "state.json"])))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        epoch, module, told = load(folder)
        assert (epoch, len(told)) in ((1, 1), (2, 0))
        assert alike(module, {1: before, 2: newest}[epoch])


def test_when_none_is_usable_the_training_starts_anew_and_says_so(folder: str) -> None:
    for epoch in (1, 2):
        save(folder, epoch)
        storage.write_bytes(storage.join(folder, str(checkpoint.newest(folder)), "state.json"), b"{}")
    epoch, module, told = load(folder)
    assert epoch == 0 and alike(module, trained(0, steps=1)[0])
    assert len(told) == 3 and told[-1].endswith("no checkpoint is usable, the training starts anew")


def test_one_of_another_version_is_told_and_cleared(tmp_path: Path) -> None:
    """Format 1 had no manifest, and a pointer beside the folder."""
    folder = str(tmp_path)
    storage.write_bytes(storage.join(folder, "checkpoint-00004-0a1b2c3d", "model.safetensors"), b"old")
    storage.write_json(storage.join(folder, "checkpoint.json"), {"checkpoint": "checkpoint-00004-0a1b2c3d"})
    assert "starts anew" in load(folder)[2][-1]
    checkpoint.clear(folder)
    assert storage.walk(folder) == []


def test_checkpoints_that_finished_trials_left_are_deleted(folder: str) -> None:
    for trial in ("finetune/a", "finetune/a/b", "finetune/c"):
        save(storage.join(folder, trial), 1)
        storage.write_bytes(storage.join(folder, trial, "result.json"), b"{}")
    checkpoint.clear_finished(folder, {"finetune/a": {}, "finetune/d": {}})
    files = storage.walk(folder)
    assert "finetune/a/result.json" in files
    assert {path.partition("/checkpoint-")[0] for path in files if "/checkpoint-" in path} == {
        "finetune/a/b",
        "finetune/c",
    }


def test_a_store_that_is_away_is_no_damage(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a network fault would throw away the newest epochs."""
    save(folder, 1)

    def away(uri: str) -> bytes:
        raise storage.Unavailable(f"{uri}: away")

    monkeypatch.setattr(storage, "read_bytes", away)
    with pytest.raises(storage.Unavailable):
        load(folder)


@contextmanager
def no_room() -> Iterator[None]:
    """Every file beyond 3,000 bytes is one too large: the error of a full disk (or quota), for real."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path: Path) -> None:
    folder = str(tmp_path / "trial")
    before = save(folder, 1)
    module, optimizer = trained(2, width=200)
    state = {**STATE, "epoch": 2}
    for _ in range(2):
        with no_room():
            told = checkpoint.save(folder, module, optimizer, checkpoint._weights(module), state)
        assert told is not None and f"{folder}: no checkpoint of epoch 2, training goes on" in told
        assert re.search(r"full, \d+\.\d MiB are free in .*; free some space", told)
        assert len(storage.listdir(folder)) == 1, "nothing half-written is left"
    epoch, restored, _ = load(folder)
    assert epoch == 1 and alike(restored, before)
    assert checkpoint.save(folder, module, optimizer, checkpoint._weights(module), state) is None


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
