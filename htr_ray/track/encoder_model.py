"""A pre-trained encoder as an MLflow model: line images in, one feature vector per line out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from htr_ray.track.lines import in_batches, items_of

# No schema of the input, see model.py.
SIGNATURE = ModelSignature(
    outputs=Schema([ColSpec(Array(DataType.float), "features"), ColSpec(DataType.string, "error")])
)


class LineEncoder(PythonModel):
    """MLflow's view of an encoder. Artifact ``encoder``: the folder that ``save_encoder`` wrote.

    The folder serves everything else as well (``htr_ray.model.files.load_encoder``, ``jobs/finetune.py
    --encoder``); :attr:`folder` tells where it lies once the model was loaded.
    """

    def load_context(self, context: Any) -> None:
        """Load the weights, on a GPU when there is one."""
        import torch

        from htr_ray.model.files import load_encoder

        self.folder = str(context.artifacts["encoder"])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.encoder = load_encoder(Path(self.folder), device=self.device)

    # MLflow reads the hint of model_input: what is hinted as a frame it neither checks nor converts.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Describe lines by numbers, for search, clustering or a look at what pre-training has learnt.

        Args:
            context: unused; MLflow passes it.
            model_input: line images as :meth:`htr_ray.track.model.LineReader.predict` takes them.
            params: unused.

        Returns:
            A frame with one row per image, indexed as the input: ``features``, float32 [dim], the mean of the
            encoder's output over the frames of the line; ``error``, empty when all is well, else the reason why
            ``features`` is empty (float32 [0]).
        """
        items, index = items_of(model_input)
        features: list[np.ndarray] = [np.empty(0, np.float32)] * len(items)
        errors = [""] * len(items)
        for position, vector, error in in_batches(items, self.encoder.settings, self.device, self._means):
            if vector is None:
                errors[position] = error
            else:
                features[position] = vector
        return pd.DataFrame({"features": pd.Series(features, dtype=object, index=index), "error": errors}, index=index)

    def _means(self, images: Any, widths: Any) -> list[np.ndarray]:
        import torch

        with torch.no_grad():
            features, frames = self.encoder(images, widths)  # [B, T, dim], zero beyond the frames of a line
            means = features.sum(dim=1) / frames[:, None].to(features.dtype)
        return list(means.float().cpu().numpy())
