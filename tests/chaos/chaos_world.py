"""The world that a grid runs in, each part a process of its own: Ray's nodes, S3, MLflow, a small disk, the driver."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUCKET = "chaos"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
DISK_MIB = 48
PATIENCE = 600.0
"""Seconds after which something hangs, however busy the machine is."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, ready: Callable[[], Any], seconds: float = PATIENCE, every: float = 0.3) -> Any:
    """Wait until ``ready()`` is true and return its value. Raises AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
    return found


class Cluster:
    """The process of ``chaos_cluster.py``."""

    def __init__(self, log: Path, nodes: int, environment: dict[str, str]) -> None:
        # Sockets of Ray lie below: the path must be short. And no other Ray of this machine is mistaken for it.
        self._folder = tempfile.mkdtemp(prefix="chaos-")
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "chaos_cluster.py"), "--nodes", str(nodes)],
            env={**os.environ, **environment, "RAY_TMPDIR": self._folder, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("wb"),
            text=True,
            start_new_session=True,
        )
        self.address = str(self._answer())

    def ask(self, command: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        print(json.dumps([command, *arguments]), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process of the cluster died"
        return json.loads(line)

    def workers(self, title: str) -> list[psutil.Process]:
        """Processes of this cluster that Ray has given a title which holds ``title``."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if title in " ".join(process.cmdline()[:1]):
                    found.append(process)
            except psutil.Error:  # it has just ended
                continue
        return found

    def stop(self) -> None:
        try:
            self.ask("stop")
            self._process.wait(60)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            shutil.rmtree(self._folder, ignore_errors=True)


class Server:
    """A server process that may be killed and started again on the same port."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str], ready: Callable[[], bool]) -> None:
        self._command, self._log, self._environment, self._ready = command, log, environment, ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(f"{self._command[1:4]} (see {self._log})", self._is_ready)

    def _is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()[-3000:]
        try:
            return self._ready()
        except OSError:
            return False

    def kill(self) -> None:
        """As a power cut would: no farewell."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class S3:
    """The process of ``chaos_s3.py``, with one bucket."""

    def __init__(self, root: Path, seed: int) -> None:
        import boto3

        port = free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}
        command = [sys.executable, str(HERE / "chaos_s3.py"), "--port", str(port), "--seed", str(seed)]
        self._server = Server(command, root / "s3.log", dict(os.environ), lambda: self.strike("well", 0.0) == 0)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=self.endpoint, **keys)

    def start(self) -> None:
        self._server.start()
        self.client.create_bucket(Bucket=BUCKET)

    def strike(self, mode: str, share: float) -> int:
        """Set what is done to a share of the requests; how many were struck so far."""
        body = json.dumps({"mode": mode, "share": share}).encode()
        request = urllib.request.Request(f"{self.endpoint}/-/chaos", data=body, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.loads(answer.read()))

    def stop(self) -> None:
        self._server.kill()


def mlflow_server(root: Path) -> tuple[Server, str]:
    """An MLflow server on sqlite and a local folder, and its address."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db"]
    command += ["--artifacts-destination", str(root / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    def ready() -> bool:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)

    return Server(command, root / "mlflow.log", environment, ready), uri


class Disk:
    """A small file system of its own that can be filled (a tmpfs: needs root)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], check=True)

    @staticmethod
    def possible() -> bool:
        """Whether this process may mount."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
            if done.returncode == 0:
                subprocess.run(["umount", folder], check=True)
            return done.returncode == 0

    def fill(self) -> None:
        """Take all that is left."""
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            size = 2**20
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def stop(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Driver:
    """``jobs/full_grid.py`` with fixed arguments, started as often as needed; its output is one log."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path, name: str) -> None:
        self.name = name
        self.log, self.json = folder / f"{name}.log", folder / f"{name}.json"
        self._command = [sys.executable, str(ROOT / "jobs" / "full_grid.py"), "--json", str(self.json), *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self) -> None:
        """``kill -9``; the cluster notices by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self.alive:
            self.kill()

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(PATIENCE)
