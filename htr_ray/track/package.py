"""Packing a recognizer or an encoder as an MLflow model: code, weights, requirements; nothing pickled."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc import save_model as save_pyfunc

import htr_ray
from htr_ray.corpus.images import encode_png
from htr_ray.model.files import read_description
from htr_ray.track import encoder_model, model

# What the models import to read a line. Skinny MLflow loads and serves models; who tracks runs has the whole.
REQUIREMENTS = (
    "mlflow-skinny",
    "numpy",
    "omegaconf",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "torch",
)
INPUT = "line images: file contents, paths or URIs, base64 text, or uint8 arrays; one or many"


@dataclass(frozen=True)
class _Kind:
    """How one kind of model is packed."""

    code: str
    """The file that MLflow executes to load it."""
    signature: ModelSignature


_KINDS = {
    "recognizer": _Kind("model_code.py", model.SIGNATURE),
    "encoder": _Kind("encoder_code.py", encoder_model.SIGNATURE),
}


def save_model(path: Path, model_dir: Path, meta: Model) -> None:
    """Write the MLflow model of the recognizer or encoder in ``model_dir`` to the new folder ``path``.

    "Models from code": files of ours and safetensors. The package goes along, so that the model loads where
    htr-ray is not installed. Nothing is inferred by running the model, which keeps this under a second.

    Raises UserError when ``model_dir`` holds neither kind.
    """
    name = str(read_description(model_dir)["kind"])
    kind = _KINDS[name]
    with tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
        # MLflow keeps the folder's own name; people are told artifacts/recognizer. It follows no links out of it.
        named = Path(folder) / name
        shutil.copytree(model_dir, named)
        save_pyfunc(
            path=str(path),
            python_model=str(Path(__file__).with_name(kind.code)),
            code_paths=[str(Path(htr_ray.__file__).parent)],
            artifacts={name: str(named)},
            mlflow_model=meta,
            signature=kind.signature,
            input_example=_example(),
            pip_requirements=list(pinned_requirements()),
            metadata={"input": INPUT},
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
