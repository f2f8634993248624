"""The recognizer as an MLflow model: image bytes in, text out."""

from __future__ import annotations

import base64
import binascii
import shutil
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.pyfunc import save_model as save_pyfunc
from mlflow.types import ColSpec, DataType, Schema

import htr_ray
from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.stream.scale import scale_line

if TYPE_CHECKING:
    from htr_ray.model.recognizer import Recognizer

BATCH_LINES = 16
# What the model imports to read a line, and mlflow, which serves it.
REQUIREMENTS = (
    "mlflow",
    "numpy",
    "omegaconf",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pydantic",
    "safetensors",
    "torch",
)
# The input has no name on purpose: MLflow then takes a list of bytes, or a frame with one column of any name.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary)]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "text"),
            ColSpec(DataType.double, "confidence"),
            ColSpec(DataType.string, "error"),
        ]
    ),
)


class LineReader(PythonModel):
    """MLflow's view of a recognizer. Artifact ``recognizer``: the folder that ``save_recognizer`` wrote."""

    def load_context(self, context: Any) -> None:
        """Load the weights, on a GPU when there is one."""
        import torch

        from htr_ray.model.files import load_recognizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.recognizer = load_recognizer(Path(context.artifacts["recognizer"]), device=self.device)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Read lines.

        Args:
            context: unused; MLflow passes it.
            model_input: encoded line images (PNG, JPEG, ...) as ``bytes`` or base64 text, in the column
                ``image`` or else the first one. MLflow makes such a frame of a list or a single image.
            params: unused.

        Returns:
            A frame with one row per image, indexed as the input: ``text``, ``confidence`` (0 to 1,
            per character) and ``error``, which is empty when the line was read. An image that
            cannot be decoded has an empty text, confidence 0 and the reason in ``error``.
        """
        images = model_input["image"] if "image" in model_input.columns else model_input.iloc[:, 0]
        rows = read_images(self.recognizer, images.tolist(), device=self.device)
        return pd.DataFrame(rows, columns=["text", "confidence", "error"], index=model_input.index)


def read_images(
    recognizer: Recognizer, images: Sequence[Any], *, device: str = "cpu", batch_lines: int = BATCH_LINES
) -> list[tuple[str, float, str]]:
    """Read encoded images with ``recognizer``: ``(text, confidence, error)`` of each, in order.

    Lines are scaled as in training and batched by width, so that little is padded.
    """
    settings = recognizer.settings
    found: list[tuple[str, float, str]] = [("", 0.0, "")] * len(images)
    lines: list[tuple[int, np.ndarray]] = []
    for position, image in enumerate(images):
        try:
            line = decode_grey(_as_bytes(image))
            line = scale_line(line, settings.height, settings.width_scale, settings.max_width)
            lines.append((position, line))
        except (ValueError, TypeError, MemoryError, cv2.error) as error:
            found[position] = ("", 0.0, str(error).strip() or type(error).__name__)
    lines.sort(key=lambda item: item[1].shape[1])
    for start in range(0, len(lines), batch_lines):
        part = lines[start : start + batch_lines]
        readings = recognizer.read(*_batch([line for _, line in part], device))
        for (position, _), reading in zip(part, readings, strict=True):
            found[position] = (reading.text, float(reading.confidence), "")
    return found


def _batch(lines: list[np.ndarray], device: str) -> tuple[Any, Any]:
    """Lines uint8 [H, W_i] -> images uint8 [B, 1, H, W], padded with white on the right; widths int32 [B]."""
    import torch

    widths = [line.shape[1] for line in lines]
    images = np.full((len(lines), 1, lines[0].shape[0], max(widths)), 255, np.uint8)
    for row, line in enumerate(lines):
        images[row, 0, :, : line.shape[1]] = line
    return torch.from_numpy(images).to(device), torch.tensor(widths, dtype=torch.int32, device=device)


def _as_bytes(image: Any) -> bytes:
    """Bytes as they are; base64 (text, a ``data:`` URL) decoded. Raises ValueError for anything else."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        try:
            # MLflow's scoring server hands "inputs" over as the bytes of base64 text. No image
            # format consists of its 64 characters, so a first foreign byte ends this at once.
            return base64.b64decode(image, validate=True)
        except binascii.Error:
            return bytes(image)
    if isinstance(image, str):
        text = image.partition(",")[2] if image.startswith("data:") else image
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError("text that is not base64; pass the bytes of an image file") from None
    raise ValueError(f"expected the bytes of an image file, got {type(image).__name__}")


def save_model(path: Path, recognizer_dir: Path, model: Model) -> None:
    """Write the MLflow model of the recognizer in ``recognizer_dir`` to the new folder ``path``.

    "Models from code": a file of ours and safetensors, nothing pickled. The package goes along,
    so that the model loads where htr-ray is not installed. Nothing is inferred by running the
    model, which keeps this under a second.
    """
    save_pyfunc(
        path=str(path),
        python_model=str(Path(__file__).with_name("model_code.py")),
        code_paths=[str(Path(htr_ray.__file__).parent)],
        artifacts={"recognizer": str(recognizer_dir)},
        mlflow_model=model,
        signature=SIGNATURE,
        input_example=_example(),
        pip_requirements=list(pinned_requirements()),
    )
    for cache in path.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)


@lru_cache
def pinned_requirements() -> tuple[str, ...]:
    """``name==version`` as installed here; without local parts such as ``+cpu``, which no index serves."""
    return tuple(f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS)


def _example() -> pd.DataFrame:
    """A small line image (a few strokes on paper), to show in MLflow what goes in."""
    line = np.full((32, 96), 255, np.uint8)
    for x in range(8, 88, 10):
        cv2.line(line, (x, 26), (x + 5, 8), 0, 2)
    return pd.DataFrame({"image": [encode_png(line)]})
