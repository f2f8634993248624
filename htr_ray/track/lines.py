"""What people hand to a logged model, as line images: one or many, as files, paths, text or arrays."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from htr_ray.config import ModelSettings
from htr_ray.corpus.images import decode_grey
from htr_ray.errors import UserError
from htr_ray.stream.scale import pack, scale_line

if TYPE_CHECKING:
    from torch import Tensor

BATCH_LINES = 16
LONGEST_PATH = 4096  # characters (PATH_MAX); longer text is an image or a mistake
# Set by MLflow's scoring server, which anyone who reaches its port may call.
SERVED = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"

_Result = TypeVar("_Result")


def items_of(model_input: Any) -> tuple[list[Any], pd.Index]:
    """The line images in what a model was given, and the index of the answer's rows.

    A frame or mapping gives its column ``image``, or else its first. A uint8 array of 2 dimensions, or of
    3 with 1 or 3 in the last, is one image; one of more is a stack of images.
    """
    if isinstance(model_input, pd.DataFrame):
        if "image" not in model_input.columns and not len(model_input.columns):
            return [], model_input.index
        column = model_input["image"] if "image" in model_input.columns else model_input.iloc[:, 0]
        return column.tolist(), model_input.index
    if isinstance(model_input, pd.Series):
        return model_input.tolist(), model_input.index
    if isinstance(model_input, Mapping):
        return items_of(model_input["image"] if "image" in model_input else next(iter(model_input.values()), []))
    if isinstance(model_input, np.ndarray) and not _is_image(model_input):
        items = list(model_input) if model_input.ndim else [model_input.item()]
    elif isinstance(model_input, (list, tuple)):
        items = list(model_input)
    else:
        items = [model_input]
    return items, pd.RangeIndex(len(items))


def grey_line(item: Any) -> np.ndarray:
    """One line image as uint8 [H, W]. Raises ValueError with a short reason.

    ``item``: the content of an image file (bytes, or base64 text, also as a ``data:`` URL), its path or URI
    (str or Path; not in MLflow's scoring server), or a uint8 array, grey [H, W] or RGB [H, W, 3].
    """
    if isinstance(item, np.ndarray) and item.dtype.kind in "OUST" and item.size == 1:
        item = item.item()  # a column of one
    if isinstance(item, np.ndarray):
        return _grey_array(item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return decode_grey(_decoded(bytes(item)) or bytes(item))
    if isinstance(item, str):
        return _from_text(item)
    if isinstance(item, os.PathLike):
        return decode_grey(_read(os.fspath(item)))
    if item is None or (isinstance(item, float) and np.isnan(item)):
        raise ValueError("no image (empty value)")
    raise ValueError(
        f"not an image but {type(item).__name__}; give the content of an image file, its path, base64 text, "
        "or a uint8 array [H, W] or [H, W, 3]"
    )


def in_batches(
    items: Sequence[Any],
    settings: ModelSettings,
    device: str,
    compute: Callable[[Tensor, Tensor], Sequence[_Result]],
    batch_lines: int = BATCH_LINES,
) -> Iterator[tuple[int, _Result | None, str]]:
    """``(position, result, "")`` of each item, or ``(position, None, reason)``; in any order.

    Lines are scaled as in training and batched by width, so that little is padded. ``compute`` takes images
    uint8 [B, 1, H, W] and widths int32 [B] on ``device``, and gives B results.
    """
    lines: list[tuple[int, np.ndarray]] = []
    for position, item in enumerate(items):
        try:
            line = scale_line(grey_line(item), settings.height, settings.width_scale, settings.max_width)
            lines.append((position, line))
        except (ValueError, TypeError, MemoryError, OSError, cv2.error) as error:
            yield position, None, str(error).strip() or type(error).__name__
    lines.sort(key=lambda item: item[1].shape[1])
    for start in range(0, len(lines), batch_lines):
        part = lines[start : start + batch_lines]
        results = compute(*_batch([line for _, line in part], device))
        for (position, _), result in zip(part, results, strict=True):
            yield position, result, ""


def _is_image(array: np.ndarray) -> bool:
    if array.dtype.kind in "OUST":
        return False
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))


def _grey_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or not _is_image(array):
        shape = list(array.shape)
        raise ValueError(f"expected a uint8 array, grey [H, W] or RGB [H, W, 3], got {array.dtype} {shape}")
    if not array.size:
        raise ValueError("zero-size image")
    grey = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return grey if grey.ndim == 2 else np.asarray(Image.fromarray(np.ascontiguousarray(grey)).convert("L"))


def _decoded(text: str | bytes) -> bytes | None:
    """The bytes behind base64 text; None for anything else.

    MLflow's scoring server hands some base64 text over as bytes. No image format consists of its 64
    characters, so a first foreign byte ends this at once.
    """
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _from_text(text: str) -> np.ndarray:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    image = _decoded("".join(text.split()) if "\n" in text[:100] else text)
    try:
        if image is None:
            raise ValueError("text that is not base64")
        return decode_grey(image)
    except ValueError as error:
        # A short name can happen to be base64, too.
        if _served():
            raise ValueError(f"{error}; send an image file's content as base64 (a server opens no paths)") from None
        if not 0 < len(text) < LONGEST_PATH or "\n" in text:
            raise
    try:
        content = _read(text)
    except UserError as error:
        raise ValueError(f"neither base64 of an image nor a file that can be read: {error}") from None
    return decode_grey(content)


def _read(path: str) -> bytes:
    """The file at a path or URI. Raises ValueError (a UserError) that names it."""
    if _served():
        raise ValueError("a server opens no paths; send an image file's content as base64")
    from htr_ray import storage  # pyarrow is not small, and bytes need none of it

    return storage.read_bytes(path)


def _served() -> bool:
    return os.environ.get(SERVED, "").lower() in ("true", "1")


def _batch(lines: list[np.ndarray], device: str) -> tuple[Tensor, Tensor]:
    """Lines uint8 [H, W_i] -> images uint8 [B, 1, H, W], padded with white on the right; widths int32 [B]."""
    import torch

    widths = [line.shape[1] for line in lines]
    return torch.from_numpy(pack(lines, max(widths))).to(device), torch.tensor(widths, dtype=torch.int32, device=device)
