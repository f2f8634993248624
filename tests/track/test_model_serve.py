"""``mlflow models serve`` in a process of its own, called over HTTP as people call it."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from mlflow.models import Model

from htr_ray.model.files import load_encoder, save_encoder
from htr_ray.track.package import save_model

START_SECONDS = 180  # on a busy machine; it takes ten


class Served:
    """A scoring server for the model in ``folder``."""

    def __init__(self, folder: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        # --env-manager local starts "uvicorn" from the PATH; that of this environment.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=folder.parent, env={**os.environ, "PATH": path}, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while self.get("ping") != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def get(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
                return int(answer.status)
        except (urllib.error.URLError, OSError):
            return 0

    def post(self, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
        """``/invocations``: status and the answer's JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data, {"Content-Type": content_type}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, recognizer_dir: Path) -> Path:
    path = tmp_path_factory.mktemp("served") / "model"
    save_model(path, recognizer_dir, Model())
    return path


@pytest.fixture(scope="module")
def server(saved: Path) -> Iterator[Served]:
    served = Served(saved, saved.parent / "server.log")
    yield served
    served.stop()


@pytest.fixture(scope="module")
def lines(make_line: Callable[..., bytes]) -> list[bytes]:
    return [make_line(seed, width) for seed, width in enumerate((310, 90, 200))]


@pytest.fixture(scope="module")
def expected(saved: Path, lines: list[bytes]) -> list[str]:
    return list(mlflow.pyfunc.load_model(str(saved)).predict(lines)["text"])


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def test_every_way_to_ask_gives_the_texts(server: Served, lines: list[bytes], expected: list[str]) -> None:
    texts = [base64_of(image) for image in lines]
    bodies: list[Any] = [
        {"inputs": texts},
        {"inputs": {"image": texts}},
        {"inputs": [[text] for text in texts]},
        {"instances": texts},
        {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}},
        {"dataframe_split": {"columns": ["scan"], "index": [7, 8, 9], "data": [[text] for text in texts]}},
        {"dataframe_records": [{"image": text} for text in texts]},
    ]
    for body in bodies:
        status, answer = server.post(body)
        assert status == 200, answer
        assert [row["text"] for row in answer["predictions"]] == expected, body
        assert [row["error"] for row in answer["predictions"]] == ["", "", ""]
        assert all(0 <= row["confidence"] <= 1 for row in answer["predictions"])


def test_one_line_and_scores(server: Served, lines: list[bytes], expected: list[str]) -> None:
    status, answer = server.post({"inputs": base64_of(lines[0]), "params": {"scores": True}})
    assert status == 200, answer
    [row] = answer["predictions"]
    assert row["text"] == expected[0] and len(row["scores"]) == len(row["text"])


def test_csv(server: Served, lines: list[bytes], expected: list[str]) -> None:
    table = "image\n" + "\n".join(base64_of(image) for image in lines) + "\n"
    status, answer = server.post(table.encode(), "text/csv")
    assert status == 200, answer
    assert [row["text"] for row in answer["predictions"]] == expected


def test_the_saved_example_can_be_sent_as_it_is(server: Served, saved: Path) -> None:
    status, answer = server.post((saved / "serving_input_example.json").read_bytes())
    assert status == 200 and answer["predictions"][0]["error"] == ""


def test_wrong_lines_are_told_one_by_one(server: Served, lines: list[bytes], expected: list[str], saved: Path) -> None:
    wrong = [None, "no base64!", base64_of(b"no image"), base64_of(lines[1][:200]), "", str(saved / "MLmodel"), 7]
    items = [base64_of(lines[0]), *wrong]
    for body in ({"inputs": items}, {"dataframe_split": {"columns": ["image"], "data": [[item] for item in items]}}):
        status, answer = server.post(body)
        assert status == 200, answer
        first, *others = answer["predictions"]
        assert first == {"text": expected[0], "confidence": first["confidence"], "error": ""}
        assert [row["text"] for row in others] == [""] * len(wrong)
        assert all(row["error"] and "Traceback" not in row["error"] for row in others)
        assert "base64" in others[1]["error"] and "not an image" in others[2]["error"]
        assert "opens no paths" in others[5]["error"]


@pytest.mark.parametrize(
    "inputs", [5, [1, 2], [[1, 2], [3, 4]], [[[1]]], {"other": 3}, {}, [{"a": "b"}], True, [["a", "b"]], [], ""]
)
def test_no_input_whatever_ends_in_a_stack_trace(server: Served, inputs: Any) -> None:
    status, answer = server.post({"inputs": inputs})
    assert status == 200, answer
    assert all(row["error"] and row["text"] == "" for row in answer["predictions"])


@pytest.mark.parametrize("body", [{}, {"images": ["x"]}, b"{", {"inputs": ["x"], "params": {"scores": "much"}}])
def test_a_request_that_is_none_is_the_caller_s_mistake(server: Served, body: Any) -> None:
    status, answer = server.post(body)
    assert status == 400 and answer["message"]


def test_an_encoder_serves_vectors(tmp_path: Path, recognizer_dir: Path, lines: list[bytes]) -> None:
    encoder = load_encoder(recognizer_dir)
    save_encoder(tmp_path / "encoder", encoder)
    save_model(tmp_path / "model", tmp_path / "encoder", Model())
    server = Served(tmp_path / "model", tmp_path / "server.log")
    try:
        status, answer = server.post({"inputs": [base64_of(lines[0]), "broken!"]})
    finally:
        server.stop()
    assert status == 200, answer
    good, bad = answer["predictions"]
    assert len(good["features"]) == encoder.dim and good["error"] == ""
    assert bad["features"] == [] and "base64" in bad["error"]
