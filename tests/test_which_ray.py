"""Which Ray a job joins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from rich.console import Console

from htr_ray import connect
from htr_ray.errors import UserError


@pytest.fixture(autouse=True)
def no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ray.is_initialized()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connect, "get_ray_address_file", lambda folder: str(tmp_path / "ray_current_cluster"))


def test_ray_start_is_found_where_it_notes_its_address(tmp_path: Path) -> None:
    """Where a login sets TMPDIR, that is not /tmp/ray."""
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        told = subprocess.run(
            [sys.executable, "-c", "from htr_ray.connect import started_here; print(started_here())"],
            env={**os.environ, "TMPDIR": str(tmp_path), "RAY_TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert told.stdout.strip() == address


def test_auto_without_a_ray_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(**options: object) -> None:  # Ray itself would find one that another program has started meanwhile
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match="RAY_ADDRESS=auto: no Ray runs"), connect.cluster(Console(quiet=True)):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"])
def test_an_address_where_nothing_answers_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    nobody = pytest.raises(UserError, match=f"RAY_ADDRESS={address}: no Ray answers there")
    with nobody, connect.cluster(Console(quiet=True)):
        pass
    assert not ray.is_initialized()


def test_a_job_beside_another_gets_a_ray_of_its_own(tmp_path: Path) -> None:
    """The Ray that another job started for itself ends with that job; joining it would end this one too."""
    # What ``ray start`` noted before the machine went down must not hold anyone up.
    (tmp_path / "ray_current_cluster").write_text("127.0.0.1:9")
    code = (
        "from htr_ray.connect import cluster; from rich.console import Console; import ray, sys\n"
        "with cluster(Console(quiet=True)):\n"
        "    print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.readline()"
    )
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        its_address = other.stdout.readline().strip()
        assert its_address
        with connect.cluster(Console(quiet=True)):
            assert ray.get_runtime_context().gcs_address != its_address
            other.stdin.close()
            assert other.wait(60) == 0
            assert ray.get(ray.remote(lambda: 1).remote()) == 1
    finally:
        other.kill()
