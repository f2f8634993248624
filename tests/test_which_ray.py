"""Which Ray a job joins."""

from __future__ import annotations

import os
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
    monkeypatch.setattr(connect, "_CURRENT", tmp_path / "ray_current_cluster")


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
