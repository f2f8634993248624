"""A real MLflow server in its own process, which tests may kill and start again."""

from __future__ import annotations

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

import pytest


class Server:
    """``mlflow server`` on a loopback port, with its database and artifacts in ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.root}/mlflow.db"]
        command += ["--artifacts-destination", f"{self.root}/artifacts"]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.root, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while wait and not self.answers():
            assert self.process.poll() is None, (self.root / "server.log").read_text()
            assert time.monotonic() < deadline, "the MLflow server does not start"
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """As a power cut would: no farewell."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    (server.root / "mlflow.db").write_bytes(empty_database.read_bytes())
    yield server
    server.kill()


@pytest.fixture
def server(one_server: Server) -> Server:
    """The server that all tests share, as starting one takes seconds; a test may kill it."""
    if one_server.process is None:
        one_server.start()
    return one_server


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> str:
    """A tracking URI of each kind; the sqlite one is empty, the server is shared."""
    if request.param == "server":
        return str(request.getfixturevalue("server").uri)
    target = tmp_path / "mlflow.db"
    target.write_bytes(empty_database.read_bytes())
    return f"sqlite:///{target}"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database, copied by tests: making one takes seconds of migrations."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture(scope="session")
def recognizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained recognizer on disk."""
    import torch

    from htr_ray.config import PRESETS, ModelSettings
    from htr_ray.corpus.alphabet import Alphabet
    from htr_ray.model.files import save_recognizer
    from htr_ray.model.recognizer import Recognizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("recognizer")
    settings = ModelSettings(**PRESETS["tiny"]["model"])
    save_recognizer(folder, Recognizer(settings, "ctc", Alphabet("abcdefgh äß")), {"corpus": "test"})
    return folder


@pytest.fixture(scope="session")
def make_line() -> Callable[..., bytes]:
    """``make_line(seed, width)``: a PNG of strokes on paper, 48 px high."""
    import cv2
    import numpy as np

    from htr_ray.corpus.images import encode_png

    def make(seed: int = 0, width: int = 240) -> bytes:
        rng = np.random.default_rng(seed)
        line = np.full((48, width), 240, np.uint8)
        for x in range(6, width - 12, 9):
            cv2.line(line, (x, int(rng.integers(8, 40))), (x + 6, int(rng.integers(8, 40))), 20, 2)
        return encode_png(line)

    return make
