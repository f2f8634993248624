"""Encoders and recognizers on disk: ``model.safetensors`` (weights) and ``model.json`` (everything else).

Neither is ever unpickled, so that a model from a stranger is safe to load.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from htr_ray.config import DecoderName, ModelSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.encoder import Encoder
from htr_ray.model.fold import fold, is_folded
from htr_ray.model.recognizer import Recognizer

FORMAT = 2
"""Version of the layout; raised when an older htr-ray could not read it."""
_FIRST_FORMAT = 1
"""Enough for all but right-to-left recognizers, whose texts an older htr-ray would return backwards."""
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
_SHAPING = ("channels", "blocks", "lstm_hidden", "lstm_layers", "lstm_skip")


def save_encoder(folder: str | os.PathLike[str], encoder: Encoder, extra: dict[str, Any] | None = None) -> None:
    """Write an encoder into the local ``folder`` (made if need be); ``extra``: anything JSON can hold."""
    settings = encoder.settings.model_dump()
    description = {"format": _FIRST_FORMAT, "kind": "encoder", "model": settings, "extra": extra or {}}
    _save(Path(folder), encoder, description)


def save_recognizer(
    folder: str | os.PathLike[str], recognizer: Recognizer, extra: dict[str, Any] | None = None
) -> None:
    """Write a recognizer into the local ``folder`` (made if need be); ``extra``: anything JSON can hold."""
    alphabet = recognizer.alphabet
    description = {
        "format": _FIRST_FORMAT if alphabet.direction == "ltr" else FORMAT,
        "kind": "recognizer",
        "model": recognizer.settings.model_dump(),
        "decoder": recognizer.decoder_name,
        "alphabet": alphabet.to_json(),
        "direction": alphabet.direction,
        "extra": extra or {},
    }
    _save(Path(folder), recognizer, description, without="auxiliary.")


def load_recognizer(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu", *, folded: bool = False
) -> Recognizer:
    """Read a recognizer, in eval mode. Raises UserError if there is none, or it is damaged or too new.

    ``folded``: for reading alone (see ``fold``), which is faster; it cannot be trained or saved.
    """
    folder = Path(folder)
    description = read_description(folder)
    if description["kind"] != "recognizer":
        raise UserError(
            f"{folder / DESCRIPTION}: holds an {description['kind']}, not a recognizer;"
            " fine-tune it first (jobs/finetune.py --encoder)"
        )
    decoder, characters = description.get("decoder"), description.get("alphabet")
    if decoder != "ctc" and decoder != "transformer":
        known = ", ".join(get_args(DecoderName))
        raise UserError(f"{folder / DESCRIPTION}: field 'decoder' is {decoder!r}, known are {known}")
    if not isinstance(characters, list) or not all(isinstance(c, str) for c in characters):
        raise UserError(f"{folder / DESCRIPTION}: field 'alphabet' is not a list of characters")
    direction = description.get("direction", "ltr")
    if direction != "ltr" and direction != "rtl":
        raise UserError(f"{folder / DESCRIPTION}: field 'direction' is {direction!r}, known are ltr, rtl")
    recognizer = Recognizer(_settings(folder, description), decoder, Alphabet.from_json(characters, direction))
    _fill(recognizer, _weights(folder), folder)
    recognizer.eval()
    return (fold(recognizer) if folded else recognizer).to(device)


def load_encoder(
    folder: str | os.PathLike[str], into: Encoder | None = None, device: str | torch.device = "cpu"
) -> Encoder:
    """Read an encoder, also out of a recognizer; in eval mode unless it goes ``into`` an existing one.

    Raises UserError if there is none, it is damaged or too new, or does not fit ``into``: the
    message names the setting that differs.
    """
    folder = Path(folder)
    description = read_description(folder)
    settings = _settings(folder, description)
    weights = _weights(folder)
    if description["kind"] == "recognizer":
        mark = "encoder."
        weights = {key.removeprefix(mark): value for key, value in weights.items() if key.startswith(mark)}
    if into is None:
        encoder = Encoder(settings)
        _fill(encoder, weights, folder)
        return encoder.to(device).eval()
    for name in _SHAPING:
        there, here = getattr(settings, name), getattr(into.settings, name)
        if there != here:
            raise UserError(
                f"encoder {folder}: made with model.{name}={there}, but it is {here} here;"
                f" set model.{name}={there} or pre-train with model.{name}={here}"
            )
    _fill(into, weights, folder)
    return into


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """``model.json`` as a dict: kind, format, model, extra; decoder, alphabet, direction of a recognizer.

    Raises UserError if there is none, or it is damaged or too new.
    """
    path = Path(folder) / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path}: no such file, so there is no model here; give the folder that"
            " jobs/pretrain.py or jobs/finetune.py wrote"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); copy the model again") from None
    if not isinstance(description, dict) or description.get("kind") not in ("encoder", "recognizer"):
        raise UserError(f"{path}: field 'kind' is neither 'encoder' nor 'recognizer'; not a model of htr-ray")
    version = description.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(f"{path}: format {version!r}, but this htr-ray reads up to {FORMAT}; update htr-ray to load it")
    return description


def _save(folder: Path, module: nn.Module, description: dict[str, Any], without: str | None = None) -> None:
    """The description comes last: without it there is no model, so a half-written one is never read.

    Raises ValueError when the module is folded. ``without``: weights whose names begin so serve training only.
    """
    if is_folded(module):
        raise ValueError(f"{folder}: a folded model cannot be saved; load it without folded=True")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value.detach().cpu().contiguous()
        for key, value in module.state_dict().items()
        if without is None or not key.startswith(without)
    }
    (folder / DESCRIPTION).unlink(missing_ok=True)
    save_file(weights, folder / WEIGHTS)
    text = json.dumps(description, ensure_ascii=False, indent=1)
    partial = folder / f"{DESCRIPTION}.part"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / DESCRIPTION)


def _settings(folder: Path, description: dict[str, Any]) -> ModelSettings:
    try:
        return ModelSettings.model_validate(description.get("model"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("model", *first["loc"]))
        raise UserError(f"{folder / DESCRIPTION}: {key}: {first['msg']}; made by another htr-ray?") from None


def _weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy the model again, with both its files") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged ({error}); copy the model again") from None


def _fill(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    own = module.state_dict()
    path, fault = folder / WEIGHTS, f"; the file does not belong to its {DESCRIPTION}"
    for key in sorted(own.keys() | weights.keys()):
        if key not in weights:
            raise UserError(f"{path}: {key} is missing{fault}")
        if key not in own:
            raise UserError(f"{path}: {key} is unknown here{fault}")
        if own[key].shape != weights[key].shape:
            there, here = list(weights[key].shape), list(own[key].shape)
            raise UserError(f"{path}: {key} has shape {there}, expected {here}{fault}")
    module.load_state_dict(weights)
