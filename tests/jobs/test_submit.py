"""``ray job submit --working-dir . -- python jobs/full_grid.py`` on a cluster of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
# As cluster/README.md has it: Ray answers only who knows the token. One of the test's own, whatever ~/.ray holds.
TOKEN = secrets.token_hex(32)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    foreign = ("RAY_", "HTR_RAY_", "MLFLOW_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    # An activated virtual environment: the job's `python` is found by PATH.
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, **more}


@pytest.fixture
def head() -> Iterator[str]:
    """Address of the dashboard of a Ray head with ports of its own; other Rays on this machine are left alone."""
    pytest.importorskip("aiohttp_cors", reason="the job server needs ray[default]")
    port, dashboard = free_port(), free_port()
    # Ray's sockets lie below it, and a socket's path may have 107 characters.
    scratch = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    command = [RAY, "start", "--head", "--block", f"--port={port}", "--include-dashboard=true"]
    command += [
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    command += [
        f"--ray-client-server-port={free_port()}",
        "--num-cpus=4",
        f"--temp-dir={scratch}",
        "--disable-usage-stats",
    ]
    log = (scratch / "start.log").open("wb")
    process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (scratch / "start.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
                break
            except urllib.error.HTTPError as error:
                if error.code == 401:  # up, and asks for the token that Ray's command line knows
                    break
            except OSError:
                pass
            time.sleep(0.5)
        yield address
    finally:
        # Ray's own end: on SIGTERM, `ray start --block` stops what it has started. Then its group, for what hangs.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
        shutil.rmtree(scratch, ignore_errors=True)


def submit(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAY, "job", "submit", "--working-dir", ".", "--", "python", "jobs/full_grid.py", *arguments],
        cwd=ROOT,
        env=environment(RAY_API_SERVER_ADDRESS=address),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_submitted_grid(head: str, sample_corpus: str, tmp_path: Path) -> None:
    done = submit(
        head,
        *(f"corpora=[{sample_corpus}]", f"storage={tmp_path}", f"tracking_uri=sqlite:///{tmp_path}/mlflow.db"),
        *("name=submitted", "pretexts=[none]", "decoders=[ctc]", "label_fractions=[0.5]"),
        *("model.channels=16", "model.lstm_hidden=16", "finetune.max_epochs=1", "finetune.min_steps_per_epoch=1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Grid 'submitted': test CER / WER in percent" in done.stdout
    assert "Started a local Ray" not in done.stdout  # it ran on the cluster
    result = json.loads(next(tmp_path.glob("submitted/finetune/**/result.json")).read_text())
    assert result["epochs"] == 1

    # The same cluster, and a mistake: its message and its failure come back through Ray.
    wrong = submit(head, "finetune.max_epoch=3")
    assert wrong.returncode != 0
    assert "did you mean finetune.max_epochs" in wrong.stdout + wrong.stderr
