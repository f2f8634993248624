"""cluster/compose.yaml: against the compose specification, and against what we promise of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<text>[^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
ENVIRONMENT = {
    name: "0123456789abcdef" for name in ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "RAY_AUTH_TOKEN")
}


def interpolate(value: Any, environment: dict[str, str]) -> Any:
    """Compose's ``${NAME:-default}`` and ``${NAME:?message}``; KeyError when a required one is missing."""
    if isinstance(value, dict):
        return {key: interpolate(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if environment.get(match["name"]):
            return environment[match["name"]]
        if match["kind"] == ":-":
            return match["text"]
        raise KeyError(match["name"], match["text"])

    return VARIABLE.sub(replace, value)


@pytest.fixture(scope="module")
def raw(cluster: Path) -> dict[str, Any]:
    return yaml.safe_load((cluster / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def compose(raw: dict[str, Any]) -> dict[str, Any]:
    return interpolate(raw, ENVIRONMENT)


def test_fits_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    loaded = json.loads(schema.read_text())
    jsonschema.validators.validator_for(loaded)(loaded).validate(compose)


def test_compose_itself_accepts_the_file(cluster: Path) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker has no compose plugin here; the schema check above still ran")
    result = subprocess.run(
        ["docker", "compose", "--file", str(cluster / "compose.yaml"), "--profile", "*", "config", "--quiet"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **ENVIRONMENT},
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_refuses_to_start_without_a_password_and_says_the_cure(raw: dict[str, Any], name: str) -> None:
    with pytest.raises(KeyError) as missing:
        interpolate(raw, {key: value for key, value in ENVIRONMENT.items() if key != name})
    assert missing.value.args[0] == name
    assert "secrets.sh" in missing.value.args[1]


def test_every_variable_has_a_default_or_a_message(cluster: Path) -> None:
    text = (cluster / "compose.yaml").read_text()
    assert {match["name"] for match in VARIABLE.finditer(text)} >= set(ENVIRONMENT)
    assert not [match.group() for match in VARIABLE.finditer(text) if not match["kind"]]


def test_ports_are_bound_to_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports
    assert not [name for name, service in compose["services"].items() if service.get("network_mode") == "host"]


def test_no_password_is_written_down(raw: dict[str, Any]) -> None:
    seen = 0
    for service in raw["services"].values():
        for key, value in (service.get("environment") or {}).items():
            if SECRET.search(key):
                seen += 1
                assert re.fullmatch(r"\$\{\w+:\?[^}]*\}", value), f"{key}: {value}"
            elif "://" in str(value) and "@" in str(value):
                seen += 1
                assert re.search(r"://\w+:\$\{\w+:\?[^}]*\}@", value), f"{key}: {value}"
    assert seen >= 10


def test_dependencies_are_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, rule in service.get("depends_on", {}).items():
            if rule["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}, which has none"
            else:
                assert services[other]["restart"] == "no", f"{other} would never be 'completed'"


def test_workers_can_be_scaled_and_gpus_are_optional(compose: dict[str, Any]) -> None:
    worker, gpu = compose["services"]["worker"], compose["services"]["worker-gpu"]
    assert "container_name" not in worker and "ports" not in worker and "profiles" not in worker
    assert gpu["profiles"] == ["gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_the_store_serves_nothing_without_a_password(compose: dict[str, Any]) -> None:
    command = compose["services"]["s3"]["command"]
    assert "-ip.bind=127.0.0.1" in command, "master, volume server and filer must stay on loopback"
    opened = [flag for flag in command if "0.0.0.0" in flag]
    assert opened == ["-s3.ip.bind=0.0.0.0"]
    assert {"-s3.port.iceberg=0", "-s3.port.lance=0"} <= set(command)
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(compose["services"]["s3"]["environment"])


def test_all_of_ray_asks_for_the_token(compose: dict[str, Any]) -> None:
    started = [name for name, service in compose["services"].items() if service.get("command", [""])[0] == "ray"]
    assert started == ["head", "worker", "worker-gpu"]
    for name in started:
        environment = compose["services"][name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token" and environment["RAY_AUTH_TOKEN"]
