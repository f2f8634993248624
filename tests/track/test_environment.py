"""What a grid ran on."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from htr_ray.track.environment import command, environment, environment_digest, requirements, revision


def test_versions_and_machine_are_told() -> None:
    found = environment([{"CPU": 2.0}])
    assert found["packages"]["mlflow"] == metadata.version("mlflow") and found["python"].startswith("3.")
    assert found["machine"]["cores"] >= 1 and found["cluster"] == [{"CPU": 2.0}]
    assert environment_digest(found) == environment_digest(environment([{"CPU": 2.0}]))
    assert environment_digest(found) != environment_digest({**found, "python": "2.7"})


def test_requirements_list_what_pip_lists() -> None:
    lines = requirements().splitlines()
    named = {line.partition("==")[0].lower() for line in lines if re.match(r"[\w.-]+==", line)}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, timeout=300
    )
    if listed.returncode:
        pytest.skip("no pip in this environment")
    wanted = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert wanted - named <= {"htr-ray"}  # editable: a path that nobody else has
    local = metadata.version("torch").partition("+")[2]
    assert not local or lines[0].endswith(f"/whl/{local}")


def test_the_revision_is_that_of_this_checkout() -> None:
    here = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    if here.returncode:
        pytest.skip("not in a git checkout")
    assert (revision() or "").removesuffix("-dirty") == here.stdout.strip()


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs/full_grid.py", "corpora=[a b]"])
    assert command() == "python jobs/full_grid.py 'corpora=[a b]'"
