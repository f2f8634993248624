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
from htr_ray.track.model import read_images
from htr_ray.track.package import pinned_requirements, save_model


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


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.fixture(scope="module")
def paths(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("lines of Zürich")
    for number, image in enumerate(lines):
        (folder / f"line {number}.png").write_bytes(image)
    return sorted(folder.iterdir())


ITEMS: dict[str, Callable[[list[bytes], list[Path]], list[Any]]] = {
    "bytes": lambda images, paths: images,
    "base64": lambda images, paths: [base64_of(image) for image in images],
    "data url": lambda images, paths: ["data:image/png;base64," + base64_of(image) for image in images],
    "wrapped base64": lambda images, paths: [base64.encodebytes(image).decode() for image in images],
    "base64 bytes": lambda images, paths: [base64.b64encode(image) for image in images],
    "path": lambda images, paths: list(paths),
    "path text": lambda images, paths: [str(path) for path in paths],
    "file uri": lambda images, paths: [path.as_uri() for path in paths],
    "grey array": lambda images, paths: [decode_grey(image) for image in images],
    "deep grey array": lambda images, paths: [decode_grey(image)[:, :, None] for image in images],
    "rgb array": lambda images, paths: [np.stack([decode_grey(image)] * 3, axis=-1) for image in images],
}
WRAPS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "frame": as_frame,
    "any column": lambda items: pd.DataFrame({"photo": items}),
    "image among others": lambda items: pd.DataFrame({"id": ["a", "b", "c"], "image": items}),
    "dict": lambda items: {"image": items},
    "series": pd.Series,
    "object array": lambda items: object_array(items),
}


def object_array(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("make", ITEMS.values(), ids=ITEMS)
def test_any_way_to_hand_images_over(
    make: Any, wrap: Any, lines: list[bytes], paths: list[Path], reader: Any, expected: list[str]
) -> None:
    found = reader.predict(wrap(make(lines, paths)))
    assert found["error"].tolist() == ["", "", ""]
    assert found["text"].tolist() == expected
    assert found["confidence"].between(0, 1).all()


@pytest.mark.parametrize("make", ITEMS.values(), ids=ITEMS)
def test_one_image_alone(make: Any, lines: list[bytes], paths: list[Path], reader: Any, expected: list[str]) -> None:
    [item, *_] = make(lines[1:], paths[1:])
    found = reader.predict(item)
    assert found["error"].tolist() == [""] and found["text"].tolist() == expected[1:2]


def test_a_stack_of_arrays_is_many_images(reader: Any, lines: list[bytes], expected: list[str]) -> None:
    grey = np.stack([decode_grey(lines[1])] * 4)
    assert reader.predict(grey)["text"].tolist() == expected[1:2] * 4
    assert reader.predict(np.stack([grey] * 3, axis=-1))["text"].tolist() == expected[1:2] * 4


def test_arrays_that_are_no_images_say_what_is_expected(reader: Any) -> None:
    wrong = [
        np.zeros((32, 100)),
        np.zeros((32, 100, 4), np.uint8),
        np.zeros((0, 100), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((3, 32, 100), np.uint8),
    ]
    found = reader.predict(wrong)
    assert found["text"].tolist() == [""] * 5
    assert "float64 [32, 100]" in found["error"][0] and "uint8 [32, 100, 4]" in found["error"][1]
    assert found["error"][2] == "zero-size image"
    assert all("[H, W, 3]" in found["error"][row] for row in (0, 1, 3, 4))
    assert "float64" in reader.predict(wrong[0])["error"][0]


def test_paths_are_opened_by_the_storage_and_missing_ones_named(reader: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image at all")
    found = reader.predict(
        [tmp_path / "gone.png", str(tmp_path / "text.png"), "ftp://host/line.png", "s3://", tmp_path]
    )
    assert "gone.png: not found" in found["error"][0]
    assert found["error"][1] == "not an image"
    assert "ftp://host/line.png" in found["error"][2] and "names no bucket" in found["error"][3]
    assert "is a " in found["error"][4]  # directory


def test_a_served_model_opens_no_files(
    reader: Any, lines: list[bytes], paths: list[Path], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    found = reader.predict([str(paths[0]), paths[0], "/etc/passwd", base64_of(lines[0])])
    assert found["text"].tolist() == ["", "", "", expected[0]]
    assert all("opens no paths" in error for error in found["error"][:3])


def test_scores_for_each_character(reader: Any, lines: list[bytes], expected: list[str]) -> None:
    found = reader.predict([*lines, b"broken"], params={"scores": True})
    assert found["text"].tolist() == [*expected, ""]
    assert [len(scores) for scores in found["scores"]] == [len(text) for text in [*expected, ""]]
    assert all(0 <= score <= 1 for scores in found["scores"] for score in scores)
    assert any(found["scores"]) and "scores" not in reader.predict(lines).columns


def test_none_at_all(reader: Any) -> None:
    assert len(reader.predict([])) == len(reader.predict(pd.DataFrame())) == len(reader.predict({})) == 0
    empty = reader.predict(pd.DataFrame({"image": pd.Series([], dtype=object)}))
    assert list(empty.columns) == ["text", "confidence", "error"] and len(empty) == 0


def test_rows_keep_the_index_of_the_frame(reader: Any, lines: list[bytes]) -> None:
    assert reader.predict(as_frame(lines)).index.tolist() == [5, 7, 9]


def test_a_corrupt_image_spoils_its_own_row_only(reader: Any, lines: list[bytes], expected: list[str]) -> None:
    wrong = [b"no image", lines[1][:200], b"", None, "not base64!", "", "AAAA" * 5000, 7, {"a": 1}, float("nan"), pd.NA]
    found = reader.predict(pd.DataFrame({"image": [lines[0], *wrong, lines[2]]}))
    assert found["text"].tolist() == [expected[0], *[""] * len(wrong), expected[2]]
    assert [bool(error) for error in found["error"]] == [False, *[True] * len(wrong), False]
    assert found["confidence"].tolist()[1:-1] == [0.0] * len(wrong)
    assert "not an image" in found["error"][1] and "base64" in found["error"][5]
    assert all(len(error) < 300 for error in found["error"])


def test_batches_of_unlike_lines_read_like_single_ones(recognizer_dir: Path, make_line: Callable[..., bytes]) -> None:
    recognizer = load_recognizer(recognizer_dir)
    images = [make_line(seed, 40 + 37 * (seed * 7 % 11)) for seed in range(11)]
    together = read_images(recognizer, images, batch_lines=4)
    alone = [read_images(recognizer, [image])[0] for image in images]
    assert [reading and reading.text for reading, _ in together] == [reading and reading.text for reading, _ in alone]
    assert [reading.confidence for reading, _ in together if reading] == pytest.approx(
        [reading.confidence for reading, _ in alone if reading], abs=1e-4
    )


def test_nothing_is_pickled_and_the_example_fits(saved: Path, reader: Any) -> None:
    names = {path.name for path in saved.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".pickle", ".pyc"))]
    assert {"model.safetensors", "model.json", "model_code.py", "input_example.json"} <= names
    example = Model.load(str(saved)).load_input_example(str(saved))
    assert reader.predict(example)["error"].tolist() == [""]
    signature = reader.metadata.signature
    assert signature.outputs.input_names() == ["text", "confidence", "error", "scores"]
    assert [param.name for param in signature.params] == ["scores"]


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
