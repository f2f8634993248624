"""jobs/status.py as a person runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from grid_on_disk import write_grid
from grid_simulation import Kind, progress_after

from htr_ray.sweep.progress import GridProgress, write_progress

ROOT = Path(__file__).resolve().parents[2]
SMALL = Kind("small", ["corpora=[/x/a]", "pretexts=[none,flip]", "seeds=[0,1]"], 2)


def status(*arguments: object, cwd: Path, wait: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HTR_RAY_")}
    command = [sys.executable, str(ROOT / "jobs" / "status.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**environment, "COLUMNS": "100"}, capture_output=True, text=True, timeout=wait
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the grid ``runs/demo``."""
    folder = tmp_path_factory.mktemp("work")
    write_grid(folder, lines=4)
    return folder


def running(share: float, age: float = 0.0) -> GridProgress:
    """The progress of a simulated grid after a share of its time, as its driver wrote it ``age`` seconds ago."""
    made = progress_after(SMALL, share)
    by = time.time() - age - made.heartbeat
    sessions = tuple(replace(session, began=session.began + by) for session in made.sessions)
    return replace(made, heartbeat=made.heartbeat + by, sessions=sessions)


def test_help_teaches_and_starts_without_heavy_libraries(place: Path) -> None:
    done = status("--help", cwd=place)
    assert done.returncode == 0
    for word in ("jobs/status.py dhsd-ssl --watch", "storage=URI", "--json FILE", "progress.json"):
        assert word in done.stdout
    code = (
        "import sys; import htr_ray.sweep.status\n"
        "print('loaded:', [m for m in ('ray', 'torch', 'mlflow', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("loaded: []"), done.stdout + done.stderr


def test_a_grid_that_runs(place: Path) -> None:
    write_progress(str(place / "runs" / "demo"), running(0.5))
    done = status("demo", "--json", "out.json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "Note:" not in done.stdout and "ETA" in done.stdout and "2 training" in done.stdout
    assert "at most 2 trials at a time" in done.stdout and "pre-training" in done.stdout
    result = json.loads((place / "out.json").read_text())["result"]
    assert result["driver"] == "running" and result["trials"]["training"] == 2 and result["eta_seconds"] > 0


def test_a_driver_that_was_killed(place: Path) -> None:
    write_progress(str(place / "runs" / "demo"), running(0.5, age=240))
    done = status(place / "runs" / "demo", "--json", "out.json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "the driver has not been heard of for 4 min" in done.stdout
    assert "the same command again continues the grid" in " ".join(done.stdout.split())
    assert json.loads((place / "out.json").read_text())["result"]["driver"] == "silent"


def test_watching_ends_with_the_driver(place: Path) -> None:
    write_progress(str(place / "runs" / "demo"), running(1.0))
    done = status("demo", "--watch", f"storage={place / 'runs'}", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "18 done of 18 trials" in done.stdout
    assert "Note:" not in done.stdout and "ETA" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dmeo"], "no grid of that name"),
        (["demo", "seeds=[0]"], "'seeds=[0]': there is one setting here, storage=URI"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], says: str, place: Path) -> None:
    done = status(*arguments, cwd=place)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert says in done.stderr and "Traceback" not in done.stderr
    if arguments == ["dmeo"]:
        assert "grids there: demo" in done.stderr


def test_a_file_that_is_missing_or_damaged_is_explained(place: Path) -> None:
    file = place / "runs" / "demo" / "progress.json"
    file.unlink(missing_ok=True)
    assert "has no progress.json" in status("demo", cwd=place).stderr
    file.write_text('{"name": 5}')
    done = status("demo", cwd=place)
    file.unlink()
    assert done.returncode == 2 and "delete it to go on without" in done.stderr
