"""What a team runs, for tests and benchmarks: PostgreSQL, an S3 server, MLflow on both; and drivers that log to it."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXPERIMENT = "team"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "mlflow"
ATTEMPTS = 1200  # with waits of half a second: on a busy machine MLflow's workers take minutes to start


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # Debian keeps them off the PATH
    folders += [Path(found).resolve().parent for name in ("initdb", "postgres") if (found := shutil.which(name))]
    return next(
        (folder for folder in folders if (folder / "initdb").is_file() and (folder / "pg_isready").is_file()), None
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """SQLAlchemy's URI of a new, empty PostgreSQL cluster in a temporary folder."""
    # It refuses to run as root.
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="htr-ray-postgres-"))
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "mlflow", "-A", "trust", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=folder,
            **user,
        )
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder}
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **user)
        try:
            for _ in range(ATTEMPTS):
                ready = subprocess.run(
                    [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"], capture_output=True
                )
                if ready.returncode == 0:
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # "fast" shutdown: open sessions are ended
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def object_store() -> Iterator[str]:
    """Endpoint of an S3 server with an empty bucket ``BUCKET``."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


def client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=KEYS["AWS_DEFAULT_REGION"],
    )


class TeamServer:
    """``mlflow server`` with several workers, its runs in PostgreSQL and its artifacts in S3."""

    def __init__(self, database: str, endpoint: str, folder: Path, workers: int = 4) -> None:
        self._database, self._folder, self._workers = database, folder, workers
        self._environment = {
            **os.environ,
            **KEYS,
            "AWS_ENDPOINT_URL": endpoint,
            "MLFLOW_S3_ENDPOINT_URL": endpoint,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs of language models, in processes of their own
        }
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", str(self._workers), "--backend-store-uri", self._database]
        command += ["--artifacts-destination", f"s3://{BUCKET}/artifacts"]
        # A busy machine needs longer than five seconds to import MLflow; uvicorn would kill its workers for that.
        command += ["--uvicorn-opts", "--timeout-worker-healthcheck 120"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(ATTEMPTS):
            assert self._process.poll() is None, (self._folder / "server.log").read_text()[-5000:]
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError("the MLflow server does not start: " + (self._folder / "server.log").read_text()[-5000:])

    def kill(self) -> None:
        """As a power cut would: no farewell, for any of its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def team_server(folder: Path, programs: Path, workers: int = 4) -> Iterator[tuple[TeamServer, str]]:
    """A running server, and the endpoint of its object store."""
    with postgres(programs) as database, object_store() as endpoint:
        server = TeamServer(database, endpoint, folder, workers)
        server.start()
        try:
            yield server, endpoint
        finally:
            server.kill()


# ---- Drivers: each a process with a tracker, its trials logging from threads of their own.


def figures(grid: str, trial: int, step: int) -> dict[str, float]:
    """What trial number ``trial`` reports of an epoch; known beforehand, so that nothing can be confused."""
    number = int(grid.rpartition("-")[2]) * 1000 + trial
    return {"val_cer": 100.0 - step - number / 10_000, "train_loss": number + step / 8}


def drive(uri: str, grid: str, trials: int, epochs: int, seconds: float, every: int, folder: Path) -> list[str]:
    """Log a grid of ``trials`` as a driver does, an epoch every ``seconds``, a model for one trial in ``every``.

    Returns what the tracker could not log.
    """
    import torch

    from htr_ray.config import PRESETS, ModelSettings
    from htr_ray.corpus.alphabet import Alphabet
    from htr_ray.model.files import save_recognizer
    from htr_ray.model.recognizer import Recognizer
    from htr_ray.track.background import Patience
    from htr_ray.track.tracker import Tracker

    torch.manual_seed(int(grid.rpartition("-")[2]))
    settings = ModelSettings(**{**PRESETS["tiny"]["model"], "channels": 16, "lstm_hidden": 16})
    model = folder / f"model-{grid}"
    model.mkdir()
    save_recognizer(model, Recognizer(settings, "ctc", Alphabet("abc")), {"corpus": "team"})
    tracker = Tracker(uri, EXPERIMENT, default_root=folder, patience=Patience(longest_delay=5.0, closing=600.0))
    tracker.start_grid(grid, {"name": grid, "trials": trials}, {"team": "yes"})

    def trial(number: int) -> None:
        key = f"trial-{number}"
        tracker.start_trial(key, f"{grid} {key}", {"grid": grid, "seed": number}, {"pretext": "flip"})
        for step in range(epochs):
            time.sleep(seconds)
            tracker.log_epoch(key, step, figures(grid, number, step))
        files = {"predictions.tsv": f"{grid}\t{number}\n", "sheet/page.html": b"<p>page</p>"}
        with_model = model if number % every == 0 else None
        tracker.finish_trial(key, {"test_cer": float(number)}, files, with_model, None)

    threads = [threading.Thread(target=trial, args=(number,)) for number in range(trials)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.register_champion("team", "trial-0")
    tracker.finish_grid("all done", {"report/report.html": b"<h1>report</h1>"})
    return [str(item) for item in tracker.close()]


def start_driver(uri: str, grid: str, folder: Path, **how: float) -> subprocess.Popen[str]:
    """A driver in a process of its own; its last line of output is the JSON list of what was lost."""
    command = [sys.executable, __file__, "--uri", uri, "--grid", grid, "--folder", str(folder)]
    for name, value in how.items():
        command += [f"--{name}", str(value)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=(folder / f"{grid}.log").open("ab"), text=True, cwd=folder
    )


def audit(uri: str, endpoint: str, grids: list[str], trials: int, epochs: int, every: int) -> dict[str, int]:
    """Compare all that the server holds with what was logged; returns counts. Raises AssertionError on a difference."""
    from mlflow import MlflowClient

    mlflow_client = MlflowClient(uri)
    experiment = mlflow_client.get_experiment_by_name(EXPERIMENT)
    runs = []
    token = None
    while True:
        page = mlflow_client.search_runs([experiment.experiment_id], max_results=500, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    parents = {run.data.tags["htr_ray.grid"]: run for run in runs if "htr_ray.grid" in run.data.tags}
    nested = [run for run in runs if "htr_ray.trial" in run.data.tags]
    assert sorted(parents) == sorted(grids) and len(runs) == len(grids) * (trials + 1), (len(parents), len(nested))
    by_place = {(run.data.tags["mlflow.parentRunId"], run.data.tags["htr_ray.trial"]): run for run in nested}
    assert len(by_place) == len(nested), "a trial has two runs"
    counts = {"runs": len(runs), "points": 0, "files": 0, "models": 0}
    for grid, parent in parents.items():
        assert parent.info.status == "FINISHED" and parent.data.tags["mlflow.note.content"].startswith("all done")
        for number in range(trials):
            run = by_place[parent.info.run_id, f"trial-{number}"]
            assert run.info.status == "FINISHED", (run.info.run_name, run.info.status)
            assert run.data.params["seed"] == str(number) and run.data.params["grid"] == grid
            for name in ("val_cer", "train_loss"):
                points = mlflow_client.get_metric_history(run.info.run_id, name)
                expected = [(step, figures(grid, number, step)[name]) for step in range(epochs)]
                assert sorted((point.step, point.value) for point in points) == expected, (grid, number, name)
                counts["points"] += len(points)
            points = mlflow_client.get_metric_history(run.info.run_id, "test_cer")
            assert [(point.step, point.value) for point in points] == [(epochs - 1, float(number))]
            counts["points"] += 1
            outputs = run.outputs.model_outputs if run.outputs else []
            assert len(outputs) == (1 if number % every == 0 else 0), (grid, number, len(outputs))
            for output in outputs:
                model = mlflow_client.get_logged_model(output.model_id)
                assert model.status.value == "READY" and model.source_run_id == run.info.run_id
                names = {item.path for item in mlflow_client.list_logged_model_artifacts(output.model_id)}
                assert "MLmodel" in names, names
                counts["models"] += 1
    models = mlflow_client.search_logged_models([experiment.experiment_id], max_results=500)
    assert len(models) == counts["models"], "a model was made twice"
    store = client(endpoint)
    stored: dict[str, int] = {}
    for listing in store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        stored |= {item["Key"]: item["Size"] for item in listing.get("Contents", [])}
    for run in nested:
        ending = f"{run.info.run_id}/artifacts/predictions.tsv"
        (place,) = [name for name in stored if name.endswith(ending)]
        grid = run.data.params["grid"]
        text = store.get_object(Bucket=BUCKET, Key=place)["Body"].read().decode()
        assert text == f"{grid}\t{run.data.params['seed']}\n"
    counts["files"] = len(stored)
    versions = mlflow_client.search_model_versions("name = 'htr-ray-team'")
    assert len(versions) == len(grids), "a champion was registered twice, or not at all"
    counts["versions"] = len(versions)
    return counts


def outage(server: TeamServer, runs: int, seconds: float) -> None:
    """Kill the server once it has more than ``runs`` runs, and start it again when it was away for ``seconds``."""
    from mlflow import MlflowClient

    mlflow_client = MlflowClient(server.uri)
    for _ in range(ATTEMPTS):
        experiment = mlflow_client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None and len(mlflow_client.search_runs([experiment.experiment_id])) > runs:
            break
        time.sleep(0.5)
    server.kill()
    time.sleep(seconds)
    server.start()


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("--uri")
    asked.add_argument("--grid")
    asked.add_argument("--folder", type=Path)
    asked.add_argument("--trials", type=int)
    asked.add_argument("--epochs", type=int)
    asked.add_argument("--seconds", type=float)
    asked.add_argument("--every", type=int)
    given = asked.parse_args()
    print(json.dumps(drive(**vars(given))), flush=True)
