"""The commands that containers and nodes run are commands of the installed Ray and MLflow."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from test_compose import ENVIRONMENT, interpolate


@pytest.fixture(scope="module")
def compose(cluster: Path) -> dict[str, Any]:
    return interpolate(yaml.safe_load((cluster / "compose.yaml").read_text()), ENVIRONMENT)["services"]


def manifest(cluster: Path, name: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((cluster / "kubernetes" / "services" / f"{name}.yaml").read_text())
    return next(item for item in documents if item["kind"] in ("Deployment", "StatefulSet"))


def container(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["template"]["spec"]["containers"][0]


def parse(command: Any, arguments: list[str]) -> dict[str, Any]:
    """Parse with the program's own click command; an unknown flag or wrong value raises."""
    return command.make_context("test", list(arguments)).params


def mlflow_options(words: list[str]) -> dict[str, Any]:
    from mlflow.cli import server

    assert words[:2] == ["mlflow", "server"]
    options = parse(server, words[2:])
    # MLflow passes these on unread.
    patience = parse(uvicorn.main, [*shlex.split(options["uvicorn_opts"]), "app"])
    assert patience["timeout_worker_healthcheck"] >= 60, "a busy machine needs long to start a worker"
    return options


def ray_start_options(words: list[str]) -> dict[str, Any]:
    from ray.scripts.scripts import start

    assert words[:2] == ["ray", "start"]
    return parse(start, words[2:])


def test_mlflow_server_is_the_same_on_compose_and_kubernetes(cluster: Path, compose: dict[str, Any]) -> None:
    options = mlflow_options(compose["mlflow"]["command"])
    assert options["artifacts_destination"] == "s3://mlflow" and options["serve_artifacts"]
    assert options["host"] == "0.0.0.0" and options["port"] == 5000
    assert not options["disable_security_middleware"]
    assert container(manifest(cluster, "mlflow"))["command"] == compose["mlflow"]["command"]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("mlflow:5000", True),  # the workers
        ("localhost:5000", True),  # a browser through the published port or a tunnel
        ("127.0.0.1:15000", True),  # ... on another port
        ("mlflow.evil.example", False),  # DNS rebinding
        ("evil.example:5000", False),
    ],
)
def test_mlflow_answers_to_its_names_alone(compose: dict[str, Any], host: str, allowed: bool) -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    names = mlflow_options(compose["mlflow"]["command"])["allowed_hosts"].split(",")
    assert is_allowed_host_header(names, host) is allowed


def test_the_store_is_the_same_on_compose_and_kubernetes(cluster: Path, compose: dict[str, Any]) -> None:
    store = container(manifest(cluster, "s3"))
    assert store["args"] == compose["s3"]["command"]
    assert store["image"] == compose["s3"]["image"]
    assert container(manifest(cluster, "postgres"))["image"] == compose["postgres"]["image"]


def test_ray_start_of_compose(compose: dict[str, Any]) -> None:
    head = ray_start_options(compose["head"]["command"])
    assert head["head"] and head["block"] and head["num_cpus"] == 0 and head["dashboard_port"] == 8265
    for name in ("worker", "worker-gpu"):
        worker = ray_start_options(compose[name]["command"])
        assert worker["block"] and worker["address"] == f"head:{head['port']}"


def test_object_stores_fit_their_shared_memory(compose: dict[str, Any]) -> None:
    for name in ("head", "worker", "worker-gpu"):
        store = ray_start_options(compose[name]["command"])["object_store_memory"]
        assert store < int(compose[name]["shm_size"].removesuffix("gb")) * 1024**3, name


def test_health_check_of_the_head(compose: dict[str, Any]) -> None:
    from ray.scripts.scripts import healthcheck

    words = compose["head"]["healthcheck"]["test"]
    assert words[:3] == ["CMD", "ray", "health-check"]
    assert parse(healthcheck, words[3:])["address"] == "127.0.0.1:6379"


def test_commands_of_virtual_machines(cluster: Path) -> None:
    config = yaml.safe_load((cluster / "aws.yaml").read_text().replace("${", "{"))
    mlflow = next(line for line in config["head_start_ray_commands"] if "mlflow server" in line)
    words = shlex.split(mlflow.split(">")[0])
    assert mlflow_options(words[words.index("mlflow") :])["artifacts_destination"] == "s3://{BUCKET}/mlflow"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        line = next(line for line in config[key] if "ray start" in line)
        options = ray_start_options(shlex.split(line[line.index("ray start") :]))
        if options["head"]:
            assert options["dashboard_host"] == "127.0.0.1" and options["num_cpus"] == 0


def test_symmetric_run_of_slurm_takes_its_arguments(cluster: Path) -> None:
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    text = (cluster / "slurm.sh").read_text().replace("\\\n", " ")
    words = shlex.split(next(line for line in text.splitlines() if "ray symmetric-run" in line and "srun" in line))
    words = words[words.index("symmetric-run") + 1 :]
    split = words.index("--")
    flags = {option for parameter in symmetric_run.params for option in parameter.opts}
    assert {"--address", "--min-nodes"} <= flags
    own = ["--address", "node:20000", "--min-nodes", "2", "--num-cpus=16", "--num-gpus=1"]
    assert [word.split("=")[0] for word in words[:split] if word.startswith("--")] == [
        word.split("=")[0] for word in own if word.startswith("--")
    ]
    assert curate_and_validate_ray_start_args(own) == ["--num-cpus=16", "--num-gpus=1"]
