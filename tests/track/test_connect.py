"""Wrong tracking URIs: every one ends in a message that says what to do."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from htr_ray.errors import UserError
from htr_ray.track.connect import find_experiment, open_experiment, resolve_uri


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def open_(uri: str | None, root: Path, wait: float = 0.0) -> str:
    return open_experiment(resolve_uri(uri, root), "test", root, wait).experiment_id


def test_setting_wins_over_environment_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment:5000")
    assert resolve_uri(None, tmp_path) == "http://from-environment:5000"
    assert resolve_uri("http://from-setting:5000", tmp_path) == "http://from-setting:5000"


def test_default_is_a_new_database_with_artifacts_beside_it(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "runs"
    experiment = open_(None, root)
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    location = client.get_experiment(experiment).artifact_location
    assert location.removeprefix("file://") == str(root / "mlartifacts")
    assert open_(None, root) == experiment


def test_finding_makes_nothing(tmp_path: Path, empty_database: Path) -> None:
    uri = f"sqlite:///{tmp_path}/deep/mlflow.db"
    assert find_experiment(uri, "test", 0.0) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mlflow.db").write_bytes(empty_database.read_bytes())
    assert find_experiment(uri, "test", 0.0) is None
    assert MlflowClient(uri).get_experiment_by_name("test") is None
    experiment = open_(uri, tmp_path)
    found = find_experiment(uri, "test", 0.0)
    assert found is not None and found.experiment_id == experiment


@pytest.mark.parametrize(
    ("uri", "cure"),
    [
        ("/some/folder", "sqlite:////some/folder/mlflow.db"),
        ("file:///some/folder", "sqlite:////some/folder/mlflow.db"),
        ("mlruns", "sqlite:///mlruns/mlflow.db"),
        ("htp://host:5000", "http://HOST:PORT"),
        ("http://", "names no host"),
        ("http://127.0.0.1:9", "mlflow server"),
        ("sqlite:////proc/none/mlflow.db", "cannot make the folder"),
        ("postgresql+nodriver://user:secret@127.0.0.1:1/x", "psycopg2"),
    ],
)
def test_wrong_uri(uri: str, cure: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_(uri, tmp_path)
    message = str(caught.value)
    assert message.startswith("tracking_uri = ")
    assert cure in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    with pytest.raises(UserError, match="cannot be opened as an MLflow database"):
        open_(f"sqlite:///{tmp_path}/notes.txt", tmp_path, wait=20)


def test_a_server_that_is_not_mlflow_is_not_waited_for(
    tmp_path: Path, stranger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: pytest.fail("waits"))
    monkeypatch.setattr("htr_ray.track.connect.time", clock)
    with pytest.raises(UserError, match="not an MLflow server"):
        open_(stranger, tmp_path, wait=20)


def test_a_deleted_experiment(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    experiment = open_(None, tmp_path)
    MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").delete_experiment(experiment)
    with pytest.raises(UserError, match=f"mlflow experiments restore --experiment-id {experiment}"):
        open_(None, tmp_path)


@pytest.fixture
def stranger() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_address[1]}"
    web.shutdown()
    web.server_close()
