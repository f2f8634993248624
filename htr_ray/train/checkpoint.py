"""Checkpoints for resuming: safetensors and JSON, never pickle; a whole one or none, never a mixture.

A checkpoint is a folder ``checkpoint-EPOCH-RANDOM`` whose ``manifest.json``, written last, holds size and digest of
its files. The newest two are kept: a newest one that is damaged costs one interval, not the training.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from htr_ray import storage
from htr_ray.errors import UserError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 2
_NAME = re.compile(r"checkpoint-(\d{5,})-[0-9a-f]+")
_POINTER = "checkpoint.json"  # named the checkpoint in format 1


class Damaged(ValueError):
    """A checkpoint that is incomplete, or not as it was written. The message says which file and how."""


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
) -> str | None:
    """Write a checkpoint under the URI ``folder``, then delete all but it and the one before.

    ``best`` are the weights of the best epoch so far; ``state`` is JSON (epoch, seconds, scores). A training does not
    end because its checkpoint cannot be written (disk full, store away): returns what to tell about that, else None.
    """
    place = storage.join(folder, f"checkpoint-{state['epoch']:05d}-{uuid.uuid4().hex[:8]}")
    try:
        files = {}
        for file, content in _contents(module, optimizer, best, state):
            storage.write_bytes(storage.join(place, file), content)
            files[file] = _fingerprint(content)
        storage.write_json(storage.join(place, MANIFEST), {"format": FORMAT, "files": files})
    except UserError as error:
        _remove(place)
        return _told(
            f"{folder}: no checkpoint of epoch {state['epoch']}, training goes on and tries again at the next "
            f"interval ({error})"
        )
    try:
        _keep(folder, place, state["epoch"])
    except UserError as error:
        return _told(f"{folder}: older checkpoints could not be deleted, tried again at the next one ({error})")
    return None


def _contents(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, torch.Tensor], state: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """The files of a checkpoint, one in memory at a time."""
    tensors, groups = _flatten(optimizer)
    yield "model.safetensors", to_safetensors(_weights(module))
    yield "best.safetensors", to_safetensors(best)
    yield "optimizer.safetensors", to_safetensors(tensors)
    yield "random.safetensors", to_safetensors(_random(module))
    yield "state.json", json.dumps({"groups": groups, **state}).encode()


def _random(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The states of torch's generators: that of the CPU, and of the GPU that ``module`` is on."""
    device = _device(module)
    states = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _device(module: torch.nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def _keep(folder: str, newest: str, epoch: int) -> None:
    """Delete all checkpoints but the ``newest`` and the last whole one of an earlier epoch."""
    before = None
    for name in _names(folder):
        place = storage.join(folder, name)
        if place == newest:
            continue
        if before is None and _epoch(name) < epoch and storage.exists(storage.join(place, MANIFEST)):
            before = name
        else:
            storage.delete_dir(place)


def _remove(place: str) -> None:
    try:
        storage.delete_dir(place)
    except UserError as error:  # the next save deletes it
        logger.warning("%s: half-written and could not be deleted yet (%s)", place, error)


def newest(folder: str) -> str | None:
    """Name of the newest checkpoint under ``folder``, whole or not; None where there is none."""
    return next(iter(_names(folder)), None)


def _names(folder: str) -> list[str]:
    """All checkpoints under ``folder``, the newest first."""
    if not storage.exists(folder):
        return []
    return sorted((name for name in storage.listdir(folder) if _NAME.fullmatch(name)), key=_epoch, reverse=True)


def _epoch(name: str) -> int:
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match.group(1))


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest()}


def _told(message: str) -> str:
    logger.warning("%s", message)
    return message


def _read(place: str) -> dict[str, bytes]:
    """All files of the checkpoint at ``place``, as they were written.

    Raises Damaged where they are not, and storage.MayPass when the storage does not answer.
    """
    try:
        manifest = json.loads(_read_file(place, MANIFEST))
        wanted = manifest["files"] if manifest["format"] == FORMAT else None
        if wanted is None:
            raise Damaged(f"{MANIFEST} is of another version of htr-ray")
        content = {}
        for file, fingerprint in wanted.items():
            content[file] = _read_file(place, file)
            if _fingerprint(content[file]) != fingerprint:
                found = f"{len(content[file])} of {fingerprint['bytes']} bytes"
                raise Damaged(f"{file} is not as it was written, {found}")
        return content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, Damaged | UserError):
            raise
        raise Damaged(f"{MANIFEST} cannot be read") from error


def _read_file(place: str, file: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(place, file))
    except storage.MayPass:
        raise
    except UserError as error:
        missing = "its writing was interrupted" if file == MANIFEST else str(error)
        raise Damaged(f"{file} is missing: {missing}") from error


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
    folder: str, module: torch.nn.Module, optimizer: torch.optim.Optimizer, told: list[str] | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Restore module, optimizer and random state in place; returns (best weights, state) or None if there is none.

    The newest checkpoint that is whole is taken. What to tell about others, and about starting anew because none is
    whole, is logged and added to ``told``. Raises UserError when the checkpoint does not fit the model (settings were
    changed), and storage.MayPass when the storage does not answer: that says nothing about what it holds.
    """
    told = [] if told is None else told
    names = _names(folder)
    for name in names:
        place = storage.join(folder, name)
        try:
            files = _read(place)
        except Damaged as error:
            told.append(_told(f"{place}: damaged checkpoint, not used ({error})"))
            continue
        return _restore(place, files, module, optimizer)
    if names:
        told.append(_told(f"{folder}: no checkpoint is usable, the training starts anew"))
    return None


def _restore(
    place: str, files: dict[str, bytes], module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    state = json.loads(files["state.json"])
    try:
        module.load_state_dict(from_safetensors(files["model.safetensors"]))
        optimizer.load_state_dict(_unflatten(from_safetensors(files["optimizer.safetensors"]), state.pop("groups")))
        _lay_out_as_parameters(optimizer)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{place}: the checkpoint does not fit these settings "
            f"({str(error).splitlines()[0]}); use another grid name or --output, or delete the folder"
        ) from error
    random, device = from_safetensors(files["random.safetensors"]), _device(module)
    torch.set_rng_state(random["torch"])
    if device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], device)
    return from_safetensors(files["best.safetensors"]), state


def clear(folder: str) -> None:
    """Delete all checkpoints of a trial that is finished; its model and result stay."""
    for name in _names(folder):
        storage.delete_dir(storage.join(folder, name))
    storage.delete_file(storage.join(folder, _POINTER))


def clear_finished(root: str, trials: Collection[str]) -> None:
    """Delete checkpoints that ``trials`` (folders below ``root``) still have: they died just after their result.

    One listing for all of them. What cannot be deleted now is left for the next run.
    """
    try:
        left = {path.partition("/checkpoint-")[0] for path in storage.walk(root) if "/checkpoint-" in path}
        for trial in left.intersection(trials):
            clear(storage.join(root, trial))
    except UserError as error:
        logger.warning("checkpoints of finished trials could not be deleted (%s)", error)
