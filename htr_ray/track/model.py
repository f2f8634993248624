"""The recognizer as an MLflow model: line images in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from htr_ray.track.lines import BATCH_LINES, in_batches, items_of

if TYPE_CHECKING:
    from htr_ray.model.recognizer import Reading, Recognizer

# No schema of the input on purpose: with one (also of AnyType), MLflow makes a frame of whatever comes, and so takes
# an array for a table, refuses a list of arrays and does not know a Path (mlflow/models/utils.py, _enforce_schema).
SIGNATURE = ModelSignature(
    outputs=Schema(
        [
            ColSpec(DataType.string, "text"),
            ColSpec(DataType.double, "confidence"),
            ColSpec(DataType.string, "error"),
            ColSpec(Array(DataType.double), "scores", required=False),
        ]
    ),
    params=ParamSchema([ParamSpec("scores", DataType.boolean, False)]),
)


class LineReader(PythonModel):
    """MLflow's view of a recognizer. Artifact ``recognizer``: the folder that ``save_recognizer`` wrote."""

    def load_context(self, context: Any) -> None:
        """Load the weights, on a GPU when there is one."""
        import torch

        from htr_ray.model.files import load_recognizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        folder = Path(context.artifacts["recognizer"])
        self.recognizer = load_recognizer(folder, device=self.device, folded=True)

    # MLflow reads the hint of model_input: what is hinted as a frame it neither checks nor converts.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Read lines.

        Args:
            context: unused; MLflow passes it.
            model_input: line images, one or many: the content of image files (``bytes``, or base64 text), paths
                or URIs (str, Path), or uint8 arrays, grey [H, W] or RGB [H, W, 3]; as a list, a Series, an array,
                or the column ``image`` (else the first one) of a frame.
            params: ``{"scores": True}`` adds the column ``scores``.

        Returns:
            A frame with one row per image, indexed as the input: ``text``, ``confidence`` (0 to 1, per
            character) and ``error``, which is empty when the line was read; ``scores``: the confidence of each
            character of ``text``. What is not an image has an empty text, confidence 0 and the reason in ``error``.
        """
        items, index = items_of(model_input)
        rows = read_images(self.recognizer, items, device=self.device)
        found = pd.DataFrame(
            {
                "text": [reading.text if reading else "" for reading, _ in rows],
                "confidence": [float(reading.confidence) if reading else 0.0 for reading, _ in rows],
                "error": [error for _, error in rows],
            },
            index=index,
        )
        if params and params.get("scores"):
            found["scores"] = [[float(s) for s in reading.scores] if reading else [] for reading, _ in rows]
        return found


def read_images(
    recognizer: Recognizer, images: Sequence[Any], *, device: str = "cpu", batch_lines: int = BATCH_LINES
) -> list[tuple[Reading | None, str]]:
    """Read line images (see :func:`~htr_ray.track.lines.grey_line`): the reading, or None and why, in order."""
    found: list[tuple[Reading | None, str]] = [(None, "")] * len(images)
    for position, reading, error in in_batches(images, recognizer.settings, device, recognizer.read, batch_lines):
        found[position] = (reading, error)
    return found
