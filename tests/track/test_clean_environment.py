"""Models where nothing is installed but what their ``requirements.txt`` lists (takes minutes: it installs torch)."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.models import Model

from htr_ray.config import PRESETS, ModelSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.images import decode_grey
from htr_ray.model.files import save_encoder, save_recognizer
from htr_ray.model.recognizer import Recognizer
from htr_ray.stream.scale import scale_line
from htr_ray.track.package import save_model

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = "Änne 7"
STEPS = 400  # some 60 are enough

SCRIPT = """
import importlib.metadata, importlib.util, json, sys
assert importlib.util.find_spec("htr_ray") is None, "htr_ray is installed here after all"
import mlflow.pyfunc
recognizer, encoder, line = sys.argv[1:]
reader = mlflow.pyfunc.load_model(recognizer)
content = open(line, "rb").read()
found = reader.predict([line, "file://" + line, content, "gone.png", b"broken"], params={"scores": True})
vectors = mlflow.pyfunc.load_model(encoder).predict(content)
import htr_ray
answer = {
    "text": found["text"].tolist(),
    "error": found["error"].tolist(),
    "scores": [len(scores) for scores in found["scores"]],
    "vector": [len(vector) for vector in vectors["features"]],
    "from": htr_ray.__file__,
    "installed": sorted(d.metadata["Name"].lower() for d in importlib.metadata.distributions()),
}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def line(make_line: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lines") / "line.png"
    path.write_bytes(make_line(3, 120))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, line: Path) -> Path:
    """MLflow models ``recognizer`` and ``encoder`` of a network that has learnt the one line by heart."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    recognizer = Recognizer(ModelSettings(**PRESETS["tiny"]["model"]), "ctc", Alphabet(sorted(set(TEXT))))
    settings = recognizer.settings
    array = scale_line(decode_grey(line.read_bytes()), settings.height, settings.width_scale, settings.max_width)
    targets = torch.tensor([recognizer.alphabet.encode(TEXT)])
    batch: dict[str, Any] = {
        "images": torch.from_numpy(array)[None, None].repeat(2, 1, 1, 1),
        "widths": torch.tensor([array.shape[1]] * 2),
        "targets": targets.repeat(2, 1),
        "lengths": torch.tensor([len(TEXT)] * 2),
    }
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=2e-3)
    for step in range(STEPS):
        recognizer.train()
        optimizer.zero_grad()
        recognizer.loss(batch).mean().backward()
        optimizer.step()
        if step % 20 == 19 and recognizer.read(batch["images"], batch["widths"])[0].text == TEXT:
            break
    assert recognizer.read(batch["images"], batch["widths"])[0].text == TEXT
    save_recognizer(folder / "recognizer.weights", recognizer)
    save_encoder(folder / "encoder.weights", recognizer.encoder)
    for kind in ("recognizer", "encoder"):
        save_model(folder / kind, folder / f"{kind}.weights", Model())
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """The interpreter of a new environment with the models' requirements (both have the same)."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    requirements = [models / kind / "requirements.txt" for kind in ("recognizer", "encoder")]
    assert requirements[0].read_text() == requirements[1].read_text()
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["-c", str(REPOSITORY / "constraints.txt"), "-r", str(requirements[0])]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return python


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_models_load_and_read_with_their_requirements_alone(
    clean: Path, models: Path, line: Path, tmp_path: Path
) -> None:
    command = [str(clean), "-c", SCRIPT, str(models / "recognizer"), str(models / "encoder"), str(line)]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["text"] == [TEXT, TEXT, TEXT, "", ""]
    assert answer["error"][:3] == ["", "", ""] and "not found" in answer["error"][3]
    assert answer["error"][4] == "not an image"
    assert answer["scores"] == [len(TEXT)] * 3 + [0, 0]
    assert answer["vector"] == [2 * PRESETS["tiny"]["model"]["lstm_hidden"]]
    assert Path(answer["from"]).is_relative_to(models)
    assert not {"htr-ray", "ray", "mlflow", "editdistance", "rapidfuzz"} & set(answer["installed"])


def test_the_scoring_server_of_that_environment_reads_too(
    clean: Path, models: Path, line: Path, tmp_path: Path
) -> None:
    """``mlflow models predict``: what the server does with a request, without its port."""
    (tmp_path / "in.json").write_text(json.dumps({"inputs": [base64.b64encode(line.read_bytes()).decode()]}))
    command = [str(clean.with_name("mlflow")), "models", "predict", "-m", str(models / "recognizer")]
    command += ["-i", "in.json", "-o", "out.json", "--env-manager", "local"]
    result = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    [row] = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert row["text"] == TEXT
