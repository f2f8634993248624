"""jobs/report.py as a person runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from grid_on_disk import write_grid

ROOT = Path(__file__).resolve().parents[2]


def report(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HTR_RAY_", "MLFLOW_"))}
    command = [sys.executable, str(ROOT / "jobs" / "report.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/demo``, in which one trial is missing."""
    folder = tmp_path_factory.mktemp("work")
    write_grid(folder, lines=8, skip=lambda trial: trial.key.endswith("/1/flip/seed0"))
    return folder


def test_help_teaches() -> None:
    done = report("--help")
    assert done.returncode == 0
    assert "python jobs/report.py dhsd-ssl" in done.stdout
    for word in ("storage=URI", "--output FOLDER", "--json FILE", "report.html"):
        assert word in done.stdout


def test_help_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, runpy\nsys.argv = ['jobs/report.py', '--help']\nsys.path.insert(0, 'jobs')\n"
        "try: runpy.run_path('jobs/report.py', run_name='__main__')\nexcept SystemExit: pass\n"
        "print('loaded:', [m for m in ('ray', 'torch', 'mlflow', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("loaded: []"), done.stdout[-300:] + done.stderr


def test_a_report_by_name_lands_in_the_grids_folder(place: Path) -> None:
    done = report("demo", "--json", "out.json", cwd=place)
    assert done.returncode == 0, done.stderr
    page = place / "runs" / "demo" / "report" / "report.html"
    assert page.is_file()
    assert f"Report of the grid demo (7 done, 1 missing): {page}" in done.stdout
    result = json.loads((place / "out.json").read_text())["result"]
    assert result["page"] == str(page)
    assert all(Path(file).is_file() for file in result["files"])
    assert result["trials"] == {"done": 7, "failed": 0, "missing": 1}
    again = report("demo", cwd=place)
    assert again.returncode == 0, "the report's own folder is no trial"
    assert "7 done, 1 missing" in again.stdout


def test_a_report_made_later_joins_the_grids_run_in_mlflow(place: Path) -> None:
    from mlflow import MlflowClient

    without = report("demo", cwd=place)
    assert "The grid has no run in MLflow to store it with." in without.stdout
    assert not (place / "runs" / "mlflow.db").exists(), "looking for a run makes no database"
    client = MlflowClient(f"sqlite:///{place}/runs/mlflow.db")
    client.create_experiment("another")
    without = report("demo", cwd=place)
    assert "The grid has no run in MLflow to store it with." in without.stdout
    assert client.get_experiment_by_name("demo") is None, "nor an experiment"
    experiment = client.create_experiment("demo", artifact_location=(place / "runs" / "mlartifacts").as_uri())
    run = client.create_run(experiment, tags={"htr_ray.grid": "demo"}).info.run_id
    done = report("demo", "--json", "out.json", cwd=place)
    assert "Stored with the grid's run in MLflow." in done.stdout, done.stdout + done.stderr
    assert json.loads((place / "out.json").read_text())["result"]["mlflow_run"] == run
    assert "report/report.html" in [file.path for file in client.list_artifacts(run, "report")]


def test_a_grid_that_was_moved_is_found_in_the_mlflow_beside_it(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    write_grid(tmp_path / "before", lines=8)
    (tmp_path / "before" / "runs").rename(tmp_path / "now")
    client = MlflowClient(f"sqlite:///{tmp_path}/now/mlflow.db")
    experiment = client.create_experiment("demo", artifact_location=(tmp_path / "now" / "mlartifacts").as_uri())
    run = client.create_run(experiment, tags={"htr_ray.grid": "demo"}).info.run_id
    done = report(tmp_path / "now" / "demo", "--json", tmp_path / "out.json", cwd=tmp_path)
    assert "Stored with the grid's run in MLflow." in done.stdout, done.stdout + done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["result"]["mlflow_run"] == run
    assert not (tmp_path / "before" / "runs").exists(), "where it was is left alone"


def test_mlflow_out_of_reach_costs_no_report(place: Path, tmp_path: Path) -> None:
    arguments = ("demo", f"storage={place / 'runs'}", "--output", tmp_path / "out")
    assert "MLflow" not in report(*arguments, "--no-mlflow", cwd=tmp_path).stdout
    (tmp_path / "out" / "report.html").unlink()
    settings = json.loads((place / "runs" / "demo" / "grid.json").read_text())
    kept = dict(settings)
    settings["tracking_uri"] = "http://127.0.0.1:9"
    (place / "runs" / "demo" / "grid.json").write_text(json.dumps(settings))
    try:
        done = report(*arguments, cwd=tmp_path)
    finally:
        (place / "runs" / "demo" / "grid.json").write_text(json.dumps(kept))
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").is_file()
    assert "Not stored in MLflow: tracking_uri = http://127.0.0.1:9" in done.stdout


def test_storage_and_output_can_be_elsewhere(place: Path, tmp_path: Path) -> None:
    done = report("demo", f"storage={place / 'runs'}", "--output", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.md").is_file()
    done = report(place / "runs" / "demo", "--output", tmp_path / "again", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "results.csv").read_bytes() == (tmp_path / "out" / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dmeo"], "no grid of that name"),
        (["demo", "seeds=[0]"], "'seeds=[0]': there is one setting here, storage=URI"),
        (["demo", "storage="], "there is one setting here"),
        (["demo", "--output", "/proc/nowhere"], "error: /proc/nowhere"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], says: str, place: Path) -> None:
    done = report(*arguments, cwd=place)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
