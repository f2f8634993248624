"""Checkpoints for resuming: safetensors and JSON, never pickle; the old or the new one, never a mixture."""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from htr_ray import storage
from htr_ray.errors import UserError

POINTER = "checkpoint.json"
FORMAT = 1


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Optimizer state -> tensors named ``<parameter>.<slot>`` and JSON-able parameter groups."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{slot}": torch.as_tensor(value).contiguous().cpu()
        for index, slots in state["state"].items()
        for slot, value in slots.items()
    }
    return tensors, state["param_groups"]


def _unflatten(tensors: dict[str, torch.Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    return {"state": state, "param_groups": groups}


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    # Copies: on the CPU these would be views, and the best epoch's weights would go on training.
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }


def save(
    folder: str,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, torch.Tensor],
    state: dict[str, Any],
) -> None:
    """Write a checkpoint under the URI ``folder``; its pointer last, the one before deleted after.

    ``best`` are the weights of the best epoch so far; ``state`` is JSON (epoch, seconds, scores).
    """
    name = f"checkpoint-{state['epoch']:05d}-{uuid.uuid4().hex[:8]}"
    tensors, groups = _flatten(optimizer)
    with tempfile.TemporaryDirectory(prefix="htr-ray-") as local:
        place = Path(local)
        save_file(_weights(module), place / "model.safetensors")
        save_file(best, place / "best.safetensors")
        save_file(tensors, place / "optimizer.safetensors")
        save_file({"torch": torch.get_rng_state()}, place / "random.safetensors")
        (place / "state.json").write_text(json.dumps({"format": FORMAT, "groups": groups, **state}))
        storage.upload_dir(place, storage.join(folder, name))
    before = pointer(folder)
    storage.write_json(storage.join(folder, POINTER), {"checkpoint": name})
    if before is not None:
        storage.delete_dir(storage.join(folder, before))


def pointer(folder: str) -> str | None:
    """Name of the current checkpoint under ``folder``, or None."""
    uri = storage.join(folder, POINTER)
    return storage.read_json(uri)["checkpoint"] if storage.exists(uri) else None


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their parameters, which a file does not keep.

    The fused optimizer walks parameter and moments in the order of memory: beside channels-last weights,
    contiguous moments would silently belong to other weights.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def load(
    folder: str, module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Restore module, optimizer and random state in place; returns (best weights, state) or None if there is none.

    Raises UserError when the checkpoint does not fit the model (settings were changed).
    """
    name = pointer(folder)
    if name is None:
        return None
    with tempfile.TemporaryDirectory(prefix="htr-ray-") as local:
        place = Path(local)
        storage.download_dir(storage.join(folder, name), place)
        state = json.loads((place / "state.json").read_text())
        try:
            module.load_state_dict(load_file(place / "model.safetensors"))
            optimizer.load_state_dict(_unflatten(load_file(place / "optimizer.safetensors"), state.pop("groups")))
            _lay_out_as_parameters(optimizer)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{storage.join(folder, name)}: the checkpoint does not fit these settings "
                f"({str(error).splitlines()[0]}); use another grid name or --output, or delete the folder"
            ) from error
        torch.set_rng_state(load_file(place / "random.safetensors")["torch"])
        return load_file(place / "best.safetensors"), state


def clear(folder: str) -> None:
    """Delete the checkpoint of a trial that is finished; its model and result stay."""
    name = pointer(folder)
    if name is not None:
        storage.delete_dir(storage.join(folder, name))
        storage.delete_file(storage.join(folder, POINTER))
