"""The tracker against real MLflow: sqlite directly, and a server that is killed on the way."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from htr_ray.track.background import Patience
from htr_ray.track.ending import Ending
from htr_ray.track.record import Record
from htr_ray.track.tracker import Tracker

QUICK = Patience(first_delay=0.05, longest_delay=0.5, single=2.0, closing=90.0)
CONFIG = {"name": "grid", "seeds": [0, 1], "model": {"height": 32}}


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return f"htr-ray {request.node.name}"


def track(uri: str, experiment: str, root: Path, patience: Patience = QUICK) -> Tracker:
    return Tracker(uri, experiment, default_root=root, patience=patience)


def runs_of(uri: str, experiment: str, view: int = ViewType.ACTIVE_ONLY) -> dict[str, list[Run]]:
    """All runs of the experiment by trial key; the grid's own under ''."""
    client = MlflowClient(uri)
    found: dict[str, list[Run]] = {}
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    for run in client.search_runs([experiment_id], run_view_type=view):
        found.setdefault(run.data.tags.get("htr_ray.trial", ""), []).append(run)
    return found


def history(uri: str, run: Run, metric: str) -> list[tuple[int, float]]:
    points = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def artifacts(uri: str, run: Run, folder: str | None = None) -> set[str]:
    return {item.path for item in MlflowClient(uri).list_artifacts(run.info.run_id, folder)}


def content(uri: str, run: Run, path: str, to: Path) -> str:
    return Path(MlflowClient(uri).download_artifacts(run.info.run_id, path, str(to))).read_text()


def test_a_whole_grid(uri: str, experiment: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>lines</p>")
    with track(uri, experiment, tmp_path) as tracker:
        tracker.start_grid("grid", CONFIG, {"who": "test"})
        for key in ("a", "b"):
            params = {"seed": 1, "model": {"height": 32}}
            tracker.start_trial(key, f"trial {key}", params, {"corpus": "sample"})
        for step in range(5):
            for key in ("a", "b"):
                loss = math.inf if step == 0 else 1.0
                tracker.log_epoch(key, step, {"val_cer": 100.0 - step, "loss": loss})
        files: dict[str, Any] = {"config.yaml": "seed: 1\n", "sample/lines.json": b"[]"}
        files["sample/page.html"] = page
        tracker.finish_trial("a", {"test_cer": 12.5}, files, None, None)
        tracker.finish_trial("b", {}, {}, None, "ran out of memory")
        tracker.finish_grid("# Result\n\nflip wins", {"report/table.csv": "a,b\n"})
        assert tracker.close() == []

    runs = runs_of(uri, experiment)
    [parent], [a], [b] = runs[""], runs["a"], runs["b"]
    assert tracker.parent_run_id == parent.info.run_id
    assert parent.info.status == "FINISHED" and parent.info.run_name == "grid"
    assert parent.data.tags["mlflow.note.content"] == "# Result\n\nflip wins"
    assert parent.data.params == {"name": "grid", "seeds": "[0, 1]", "model.height": "32"}
    assert artifacts(uri, parent) == {"config.yaml", "summary.md", "report"}
    assert yaml.safe_load(content(uri, parent, "config.yaml", tmp_path)) == CONFIG

    assert a.info.status == "FINISHED" and a.info.run_name == "trial a"
    assert a.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert a.data.tags["corpus"] == "sample" and "mlflow.user" in a.data.tags
    assert a.data.params == {"seed": "1", "model.height": "32"}
    assert history(uri, a, "val_cer") == [(step, 100.0 - step) for step in range(5)]
    assert math.isnan(history(uri, a, "loss")[0][1])
    assert history(uri, a, "test_cer") == [(4, 12.5)]
    assert artifacts(uri, a) == {"config.yaml", "sample"}
    assert artifacts(uri, a, "sample") == {"sample/lines.json", "sample/page.html"}
    assert content(uri, a, "sample/page.html", tmp_path) == "<p>lines</p>"

    assert b.info.status == "FAILED"
    assert b.data.tags["htr_ray.error"] == "ran out of memory"


def test_calls_do_not_wait_for_mlflow(
    uri: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is held up until all calls were made: one that waited for it would only return after a minute."""
    all_made, released = threading.Event(), []
    start_grid = Record.start_grid

    def start_grid_late(*args: Any) -> None:
        released.append(all_made.wait(60))
        start_grid(*args)

    monkeypatch.setattr(Record, "start_grid", start_grid_late)
    with track(uri, experiment, tmp_path) as tracker:
        tracker.start_grid("grid", CONFIG, {})
        tracker.start_trial("a", "a", {}, {})
        for step in range(100):
            tracker.log_epoch("a", step, {"loss": 1 / (step + 1)})
        all_made.set()
    assert released == [True]
    assert len(history(uri, runs_of(uri, experiment)["a"][0], "loss")) == 100


def test_a_gap_that_is_filled_late_doubles_nothing(uri: str, experiment: str, tmp_path: Path) -> None:
    """The driver died before it had logged epoch 1; the next one logs 2, then the end of the trial brings 1 along."""
    figures = [{"val_cer": 9.0}, {"val_cer": 8.0}, {"val_cer": 7.0}]
    ending = Ending(metrics={"val_cer": 7.0, "test_cer": 6.0}, history=list(enumerate(figures)))
    for logged in ([0], [2]):
        with track(uri, experiment, tmp_path) as tracker:
            tracker.start_grid("grid", CONFIG, {})
            tracker.start_trial("a", "a", {}, {})
            for step in logged:
                tracker.log_epoch("a", step, figures[step])
            if logged == [2]:
                time.sleep(0.01)  # MLflow takes the same value of the same millisecond for one
                tracker.end_trial("a", lambda: ending)
    [run] = runs_of(uri, experiment)["a"]
    assert history(uri, run, "val_cer") == [(0, 9.0), (1, 8.0), (2, 7.0)]
    assert history(uri, run, "test_cer") == [(2, 6.0)]


def test_resume_continues_the_same_runs(uri: str, experiment: str, tmp_path: Path) -> None:
    with track(uri, experiment, tmp_path) as first:
        first.start_grid("grid", CONFIG, {})
        for key in ("done", "broken", "cut off"):
            first.start_trial(key, key, {"seed": 0}, {})
            for step in range(6):
                first.log_epoch(key, step, {"val_cer": 50.0 - step})
        first.finish_trial("done", {"test_cer": 7.0}, {}, None, None)
        first.finish_trial("broken", {}, {}, None, "worker died")
    before = runs_of(uri, experiment)
    assert before["cut off"][0].info.status == before[""][0].info.status == "KILLED"

    with track(uri, experiment, tmp_path) as second:
        second.start_grid("grid", CONFIG, {})
        # The sweep replays what it knows of a finished trial, and continues others from a checkpoint.
        second.start_trial("done", "done", {"seed": 0}, {})
        second.finish_trial("done", {"test_cer": 7.0}, {}, None, None)
        for key in ("broken", "cut off"):
            second.start_trial(key, key, {"seed": 0, "late": "x"}, {})
            for step in range(4, 10):
                second.log_epoch(key, step, {"val_cer": 49.9 - step})
            second.finish_trial(key, {"test_cer": 8.0}, {}, None, None)
        second.finish_grid("done", {})
        assert second.close() == []

    after = runs_of(uri, experiment)
    assert {key: [r.info.run_id for r in runs] for key, runs in after.items()} == {
        key: [r.info.run_id for r in runs] for key, runs in before.items()
    }
    assert {runs[0].info.status for runs in after.values()} == {"FINISHED"}
    assert len(history(uri, after["done"][0], "test_cer")) == 1
    for key in ("broken", "cut off"):
        [run] = after[key]
        points = history(uri, run, "val_cer")
        assert [step for step, _ in points] == list(range(10))  # complete, and each epoch once
        assert points[5] == (5, 45.0) and points[6] == (6, pytest.approx(43.9))
        assert run.data.params["late"] == "x"
        assert "htr_ray.error" not in run.data.tags


def test_runs_of_a_driver_that_vanished_are_not_running_for_ever(uri: str, experiment: str, tmp_path: Path) -> None:
    first = track(uri, experiment, tmp_path)
    first.start_grid("grid", CONFIG, {})
    first.start_trial("a", "a", {}, {})
    first.log_epoch("a", 0, {"loss": 1.0})
    deadline = time.monotonic() + 20
    while "a" not in (runs := runs_of(uri, experiment)) or not runs["a"][0].data.metrics:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # No close(): the driver was killed.
    with track(uri, experiment, tmp_path) as second:
        second.start_grid("grid", CONFIG, {})
        second.finish_grid("nothing more", {})
    assert runs_of(uri, experiment)["a"][0].info.status == "KILLED"


def test_another_grid_gets_runs_of_its_own(uri: str, experiment: str, tmp_path: Path) -> None:
    for name in ("one", "it's two"):
        with track(uri, experiment, tmp_path) as tracker:
            tracker.start_grid(name, CONFIG, {})
            tracker.start_trial("a", "a", {}, {})
            tracker.finish_trial("a", {"test_cer": 1.0}, {}, None, None)
            assert tracker.close() == []
    assert len(runs_of(uri, experiment)["a"]) == 2


@pytest.mark.parametrize(
    ("seed", "error"),
    [pytest.param(1, 0.0, id="other parameters"), pytest.param(0, 0.5, id="other results")],
)
def test_a_trial_trained_anew_replaces_its_old_run(
    seed: int, error: float, uri: str, experiment: str, tmp_path: Path
) -> None:
    for attempt in (0, 1):
        with track(uri, experiment, tmp_path) as tracker:
            tracker.start_grid("grid", CONFIG, {})
            tracker.start_trial("a", "a", {"seed": seed * attempt}, {"try": str(attempt)})
            for step in range(3):
                tracker.log_epoch("a", step, {"val_cer": 10.0 - step + error * attempt})
            tracker.finish_trial("a", {"val_cer": 8.0 + error * attempt}, {}, None, None)
            assert tracker.close() == []
    [run] = runs_of(uri, experiment)["a"]
    assert run.data.params["seed"] == str(seed) and run.data.tags["try"] == "1"
    assert history(uri, run, "val_cer") == [(step, 10.0 - step + error) for step in range(3)]
    [old] = runs_of(uri, experiment, ViewType.DELETED_ONLY)["a"]
    assert old.data.params["seed"] == "0"


def test_mistakes_are_reported_and_spoil_nothing_else(uri: str, experiment: str, tmp_path: Path) -> None:
    tracker = track(uri, experiment, tmp_path)
    tracker.start_grid("grid", CONFIG, {})
    tracker.log_epoch("never started", 0, {"loss": 1.0})
    tracker.start_trial("a", "a", {}, {})
    tracker.log_epoch("a", 0, {"loss": "much"})  # type: ignore[dict-item]
    tracker.finish_trial("a", {"cer": 1.0}, {"../../escape": "x"}, tmp_path / "no-model-here", None)
    tracker.register_champion("sample", "a")
    tracker.finish_grid("done", {})
    lost = {item.what: item.why for item in tracker.close()}
    assert set(lost) == {
        "trial never started: epoch 0",
        "trial a: epoch 0",
        "trial a: files",
        "trial a: model",
        "champion of sample",
    }
    assert "leaves the run's folder" in lost["trial a: files"]
    assert "no-model-here" in lost["trial a: model"]
    assert runs_of(uri, experiment)["a"][0].info.status == "FINISHED"
    assert not (tmp_path.parent / "escape").exists()


def test_many_threads(uri: str, experiment: str, tmp_path: Path) -> None:
    with track(uri, experiment, tmp_path) as tracker:
        tracker.start_grid("grid", CONFIG, {})

        def trial(key: str) -> None:
            tracker.start_trial(key, key, {}, {})
            for step in range(10):
                tracker.log_epoch(key, step, {"loss": float(step)})
            tracker.finish_trial(key, {}, {}, None, None)

        threads = [threading.Thread(target=trial, args=(str(number),)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracker.close() == []
    runs = runs_of(uri, experiment)
    assert all(len(history(uri, runs[str(number)][0], "loss")) == 10 for number in range(6))


def test_a_server_that_is_killed_and_comes_back_loses_nothing(
    server: Any,
    experiment: str,
    tmp_path: Path,
    recognizer_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = server.uri
    tracker = track(uri, experiment, tmp_path)
    tracker.start_grid("grid", CONFIG, {})
    tracker.start_trial("a", "a", {"seed": 0}, {})
    for step in range(60):
        if step == 20:
            server.kill()  # with some of the epochs still on their way
        tracker.log_epoch("a", step, {"val_cer": 100.0 - step})
    tracker.start_trial("b", "b", {"seed": 1}, {})
    tracker.log_epoch("b", 0, {"val_cer": 3.0})
    tracker.finish_trial("b", {"test_cer": 2.0}, {"sample.json": b"[]"}, recognizer_dir, None)
    tracker.finish_trial("a", {"test_cer": 1.0}, {}, None, None)
    tracker.register_champion("Outage", "b")
    tracker.finish_grid("done", {})
    time.sleep(0.5)
    server.start(wait=False)
    assert tracker.close() == []

    runs = runs_of(uri, experiment)
    assert {key: len(found) for key, found in runs.items()} == {"": 1, "a": 1, "b": 1}
    assert {found[0].info.status for found in runs.values()} == {"FINISHED"}
    assert history(uri, runs["a"][0], "val_cer") == [(step, 100.0 - step) for step in range(60)]
    assert artifacts(uri, runs["b"][0]) == {"sample.json"}
    assert MlflowClient(uri).get_model_version_by_alias("htr-ray-outage", "champion").version == "1"
    assert "MLflow is away" in caplog.text and "MLflow is back" in caplog.text


def test_a_server_that_stays_away_is_given_up_and_named(server: Any, experiment: str, tmp_path: Path) -> None:
    patience = Patience(first_delay=0.05, longest_delay=0.2, closing=1.0)
    tracker = track(server.uri, experiment, tmp_path, patience)
    tracker.start_grid("grid", CONFIG, {})
    server.kill()
    tracker.start_trial("a", "a", {}, {})
    tracker.finish_trial("a", {"test_cer": 1.0}, {}, None, None)
    lost = [item.what for item in tracker.close()]
    assert lost[-7:] == [
        *("trial a", "trial a: history", "trial a: files", "trial a: model", "trial a: results", "trial a: end"),
        "end of unfinished runs",
    ]
    assert tracker.close() == []
