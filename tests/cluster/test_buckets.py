"""cluster/make_buckets.py against a real S3 server (moto)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

moto_server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def run(cluster: Path, endpoint: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        **extra,
    }
    return subprocess.run(
        [sys.executable, str(cluster / "make_buckets.py"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


def names(endpoint: str) -> set[str]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    return {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}


def test_makes_what_is_missing_and_keeps_what_is_there(cluster: Path, endpoint: str) -> None:
    first = run(cluster, endpoint, "corpora", "runs")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == ["corpora: made", "runs: made"]
    second = run(cluster, endpoint, "corpora", "mlflow")
    assert second.stdout.splitlines() == ["corpora: exists", "mlflow: made"]
    assert names(endpoint) == {"corpora", "runs", "mlflow"}


def test_works_outside_the_first_region(cluster: Path, endpoint: str) -> None:
    result = run(cluster, endpoint, "europe", AWS_REGION="eu-central-1")
    assert result.stdout.splitlines() == ["europe: made"], result.stderr


def test_says_where_it_failed(cluster: Path) -> None:
    result = run(cluster, "http://127.0.0.1:9", "corpora", "--wait=0", AWS_MAX_ATTEMPTS="1")
    assert result.returncode == 1
    assert "corpora" in result.stderr and "http://127.0.0.1:9" in result.stderr
