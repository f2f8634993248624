"""The MLflow model of an encoder: one vector per line, the same as the encoder itself gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import Model

from htr_ray.corpus.images import decode_grey
from htr_ray.errors import UserError
from htr_ray.model.files import load_encoder, save_encoder
from htr_ray.stream.scale import scale_line
from htr_ray.track.package import save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, recognizer_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(folder / "trained", load_encoder(recognizer_dir), {"pretext": "flip"})
    save_model(folder / "model", folder / "trained", Model())
    return folder / "model"


@pytest.fixture(scope="module")
def model(saved: Path) -> Any:
    return mlflow.pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def lines(make_line: Callable[..., bytes]) -> list[bytes]:
    return [make_line(seed, width) for seed, width in enumerate((310, 90, 200))]


def test_a_vector_is_the_mean_over_the_frames_of_its_line(model: Any, lines: list[bytes], recognizer_dir: Path) -> None:
    encoder = load_encoder(recognizer_dir)
    found = model.predict(pd.DataFrame({"image": lines}, index=["a", "b", "c"]))
    assert found.index.tolist() == ["a", "b", "c"] and found["error"].tolist() == ["", "", ""]
    settings = encoder.settings
    for line, vector in zip(lines, found["features"], strict=True):
        array = scale_line(decode_grey(line), settings.height, settings.width_scale, settings.max_width)
        with torch.no_grad():
            features, frames = encoder(torch.from_numpy(array)[None, None], torch.tensor([array.shape[1]]))
        assert frames.tolist() == [features.shape[1]]
        assert vector.dtype == np.float32 and vector.shape == (encoder.dim,)
        np.testing.assert_allclose(vector, features[0].mean(dim=0).numpy(), rtol=1e-3, atol=1e-4)


def test_what_is_no_image_has_no_vector_and_a_reason(model: Any, lines: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "line.png").write_bytes(lines[1])
    found = model.predict([b"broken", tmp_path / "line.png", decode_grey(lines[1]), None])
    assert [len(vector) > 0 for vector in found["features"]] == [False, True, True, False]
    np.testing.assert_allclose(found["features"][1], found["features"][2], rtol=1e-3, atol=1e-4)
    assert found["error"].tolist() == ["not an image", "", "", "no image (empty value)"]
    assert len(model.predict([])) == 0


def test_its_folder_goes_on_to_fine_tuning(model: Any, saved: Path, recognizer_dir: Path) -> None:
    folder = Path(model.unwrap_python_model().folder)
    assert folder == saved / "artifacts" / "encoder"
    theirs, ours = load_encoder(folder).state_dict(), load_encoder(recognizer_dir).state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_nothing_is_pickled_and_the_example_fits(model: Any, saved: Path) -> None:
    names = {path.name for path in saved.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".pickle", ".pyc"))]
    assert {"model.safetensors", "model.json", "encoder_code.py", "input_example.json"} <= names
    example = Model.load(str(saved)).load_input_example(str(saved))
    assert model.predict(example)["error"].tolist() == [""]
    assert model.metadata.signature.outputs.input_names() == ["features", "error"]


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model here"):
        save_model(tmp_path / "model", tmp_path, Model())
