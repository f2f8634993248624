"""The MLflow model: what it takes, what it gives back, and that it stands on its own."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import Model
from packaging.requirements import Requirement
from PIL import Image

from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.model.files import load_recognizer
from htr_ray.stream.scale import scale_line
from htr_ray.track.model import pinned_requirements, read_images, save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, recognizer_dir: Path) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    save_model(path, recognizer_dir, Model())
    return path


@pytest.fixture(scope="module")
def reader(saved: Path) -> Any:
    return mlflow.pyfunc.load_model(str(saved))


@pytest.fixture(scope="module")
def lines(make_line: Callable[..., bytes]) -> list[bytes]:
    return [make_line(seed, width) for seed, width in enumerate((310, 90, 200))]


@pytest.fixture(scope="module")
def expected(recognizer_dir: Path, lines: list[bytes]) -> list[str]:
    """The texts of three lines, read one by one without any of our batching."""
    recognizer = load_recognizer(recognizer_dir)
    settings = recognizer.settings
    texts = []
    for image in lines:
        line = scale_line(decode_grey(image), settings.height, settings.width_scale, settings.max_width)
        [reading] = recognizer.read(torch.from_numpy(line)[None, None], torch.tensor([line.shape[1]]))
        texts.append(reading.text)
    return texts


def as_frame(images: list[bytes]) -> pd.DataFrame:
    return pd.DataFrame({"image": images}, index=[5, 7, 9])


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        as_frame,
        lambda images: pd.DataFrame({"photo": images}),
        lambda images: {"image": images},
        lambda images: pd.Series(images),
        lambda images: np.array(images, dtype=object),
        lambda images: [base64.b64encode(image).decode() for image in images],
        lambda images: ["data:image/png;base64," + base64.b64encode(image).decode() for image in images],
    ],
    ids=["list", "frame", "any column", "dict", "series", "array", "base64", "data url"],
)
def test_any_way_to_hand_images_over(wrap: Any, lines: list[bytes], reader: Any, expected: list[str]) -> None:
    found = reader.predict(wrap(lines))
    assert found["text"].tolist() == expected
    assert found["error"].tolist() == ["", "", ""]
    assert found["confidence"].between(0, 1).all()


def test_one_image_alone_and_none_at_all(reader: Any, lines: list[bytes], expected: list[str]) -> None:
    assert reader.predict(lines[1])["text"].tolist() == expected[1:2]
    empty = reader.predict(pd.DataFrame({"image": pd.Series([], dtype=object)}))
    assert list(empty.columns) == ["text", "confidence", "error"] and len(empty) == 0


def test_rows_keep_the_index_of_the_frame(reader: Any, lines: list[bytes]) -> None:
    assert reader.predict(as_frame(lines)).index.tolist() == [5, 7, 9]


def test_a_corrupt_image_spoils_its_own_row_only(reader: Any, lines: list[bytes], expected: list[str]) -> None:
    images = [lines[0], b"no image", lines[1][:200], b"", None, "not base64!", lines[2]]
    found = reader.predict(pd.DataFrame({"image": images}))
    assert found["text"].tolist() == [expected[0], "", "", "", "", "", expected[2]]
    assert [bool(error) for error in found["error"]] == [False, True, True, True, True, True, False]
    assert found["confidence"].tolist()[1:6] == [0.0] * 5
    assert "not an image" in found["error"][1] and "base64" in found["error"][5]


def test_batches_of_unlike_lines_read_like_single_ones(recognizer_dir: Path, make_line: Callable[..., bytes]) -> None:
    recognizer = load_recognizer(recognizer_dir)
    images = [make_line(seed, 40 + 37 * (seed * 7 % 11)) for seed in range(11)]
    together = read_images(recognizer, images, batch_lines=4)
    alone = [read_images(recognizer, [image])[0] for image in images]
    assert [text for text, _, _ in together] == [text for text, _, _ in alone]
    assert [c for _, c, _ in together] == pytest.approx([c for _, c, _ in alone], abs=1e-4)


def test_served_as_json(saved: Path, lines: list[bytes], expected: list[str]) -> None:
    """The scoring server's own parsing, as ``mlflow models serve`` does it."""
    from mlflow.pyfunc import scoring_server

    text = [base64.b64encode(image).decode() for image in lines]
    model = mlflow.pyfunc.load_model(str(saved))
    split = {"columns": ["image"], "data": [[t] for t in text]}
    for body in ({"dataframe_split": split}, {"inputs": text}):
        schema = model.metadata.get_input_schema()
        answer = scoring_server.invocations(json.dumps(body), "application/json", model, schema)
        assert answer.status == 200, answer.response
        assert [row["text"] for row in json.loads(answer.response)["predictions"]] == expected


def test_nothing_is_pickled_and_the_example_fits(saved: Path, reader: Any) -> None:
    names = {path.name for path in saved.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".pickle", ".pyc"))]
    assert {"model.safetensors", "model.json", "model_code.py", "input_example.json"} <= names
    example = Model.load(str(saved)).load_input_example(str(saved))
    assert reader.predict(example)["error"].tolist() == [""]


def test_requirements_can_be_installed_anywhere(saved: Path) -> None:
    written = (saved / "requirements.txt").read_text().split()
    assert written == list(pinned_requirements())
    for line in written:
        [pin] = Requirement(line).specifier
        assert pin.operator == "==" and "+" not in pin.version


ELSEWHERE = """
import importlib.abc, json, sys

class Block(importlib.abc.MetaPathFinder):
    # htr_ray may come from the model alone, and what only training needs must not be needed.
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "editdistance", "HersheyFonts"):
            raise ModuleNotFoundError(name)

sys.meta_path = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "") + repr(f)]
sys.meta_path.insert(0, Block())
sys.path = [p for p in sys.path if p != sys.argv[3] and "__editable__" not in p]
try:
    import htr_ray
except ModuleNotFoundError:
    pass
else:
    sys.exit("htr_ray is installed here after all: " + str(htr_ray.__file__))
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
found = model.predict([open(sys.argv[2], "rb").read(), b"broken"])
import htr_ray
answer = {"text": found["text"].tolist(), "error": found["error"].tolist(), "from": htr_ray.__file__}
print(json.dumps(answer))
"""


def test_loads_where_htr_ray_is_not_installed(
    saved: Path, lines: list[bytes], expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "line.png").write_bytes(lines[0])
    repository = str(Path(__file__).resolve().parents[2])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, str(saved), str(tmp_path / "line.png"), repository],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["text"] == [expected[0], ""] and answer["error"] == ["", "not an image"]
    assert Path(answer["from"]).is_relative_to(saved)


def test_reads_an_array_as_training_scales_it(reader: Any, lines: list[bytes], recognizer_dir: Path) -> None:
    """A line of another height, and in colour, gives what its grey, scaled self gives."""
    settings = load_recognizer(recognizer_dir).settings
    grey = decode_grey(lines[0])
    scaled = scale_line(grey, settings.height, settings.width_scale, settings.max_width)
    colour = io.BytesIO()
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(colour, "PNG")
    texts = reader.predict([colour.getvalue(), encode_png(scaled)])["text"].tolist()
    assert texts[0] == texts[1]
