"""Where the recognizer comes from: a folder, a store, MLflow's registry; and what is said when it is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.models import Model
from transcribe_helpers import save_small

from htr_ray import storage
from htr_ray.errors import UserError
from htr_ray.track.package import save_model
from htr_ray.transcribe.model import fetch

pytest_plugins = ["s3_server"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small(tmp_path_factory.mktemp("trial") / "model")


@pytest.fixture(scope="module")
def registry(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mlflow.db, in which version 2 of htr-ray-wills is the champion."""
    root = tmp_path_factory.mktemp("registry")
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    client.create_registered_model("htr-ray-wills")
    client.create_registered_model("htr-ray-letters")
    for seed in (1, 0):
        recognizer = save_small(root / f"recognizer{seed}", seed=seed)
        save_model(root / f"saved{seed}", Path(recognizer), Model())
        client.create_model_version("htr-ray-wills", (root / f"saved{seed}").as_uri())
    client.set_registered_model_alias("htr-ray-wills", "champion", "2")
    return root


def test_folders(model: str, s3: str) -> None:
    bundle = fetch(model)
    assert bundle.settings.height == 32 and bundle.load().alphabet == bundle.alphabet
    assert fetch(str(Path(model).parent)).digest == bundle.digest  # the folder of a trial
    storage.upload_dir(model, f"{s3}/m")
    assert fetch(f"{s3}/m").digest == bundle.digest
    with pytest.raises(UserError, match=r"--model .*nothing: no model.json there; give the folder"):
        fetch(f"{model}/nothing")


def test_damaged_models_are_told_at_once(model: str, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "m"))
    (broken / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        fetch(str(broken))
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors: not found"):
        fetch(str(broken))


def test_the_registry(model: str, registry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    champion = fetch("models:/htr-ray-wills@champion", registry)
    assert champion.digest == fetch(model).digest
    assert champion.name == "models:/htr-ray-wills/2 (champion)"
    assert fetch("models:/htr-ray-wills/1", registry).digest != champion.digest
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry}/mlflow.db")
    assert fetch("models:/htr-ray-wills@champion", tmp_path).digest == champion.digest
    assert fetch(str(registry / "saved0")).digest == champion.digest  # a folder of MLflow's
    # Asking makes no database where there was none.
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("models:/htr-ray-wills@best", "there are models:/htr-ray-wills@champion, models:/htr-ray-wills/1, models:"),
        ("models:/htr-ray-wills/7", "there are models:/htr-ray-wills@champion"),
        ("models:/htr-ray-wills/seven", "there are models:/htr-ray-wills@champion"),
        ("models:/htr-ray-wills", "which version? there are models:/htr-ray-wills@champion"),
        ("models:/wills@champion", "there are htr-ray-letters, htr-ray-wills"),
        ("models:wills", "write models:/NAME@champion or models:/NAME/VERSION"),
    ],
)
def test_what_is_not_in_the_registry(asked: str, told: str, registry: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch(asked, registry)
    assert str(caught.value).startswith(f"--model {asked}: ") and told in str(caught.value)


def test_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=f"no MLflow database at {tmp_path}/runs/mlflow.db; set MLFLOW_TRACKING_URI"):
        fetch("models:/a@champion", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="the registry at http://127.0.0.1:9 did not give it"):
        fetch("models:/a@champion", tmp_path)
