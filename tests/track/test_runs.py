"""What people do with a grid's runs in MLflow: search, follow lineage, come back after a crash. Real MLflow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from htr_ray.corpus.read import Corpus
from htr_ray.track.background import Patience
from htr_ray.track.dataset import dataset_inputs, split_digest
from htr_ray.track.ending import Ending
from htr_ray.track.record import RECORDED, Record
from htr_ray.track.tracker import Tracker

QUICK = Patience(first_delay=0.05, longest_delay=0.5, single=2.0, closing=90.0)
PRETRAINING = "pretrain/sample/flip/seed0"


def track(uri: str, experiment: str, root: Path, **how: Any) -> Tracker:
    tracker = Tracker(uri, experiment, default_root=root, patience=QUICK, **how)
    tracker.start_grid("grid", {"name": "grid"}, {})
    return tracker


def runs_of(uri: str, experiment: str, where: str = "", view: int = ViewType.ACTIVE_ONLY) -> dict[str, Run]:
    """Runs by trial key (the grid's under ''); two of one trial are an error."""
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], where, view)
    by_key = {run.data.tags.get("htr_ray.trial", ""): run for run in found}
    assert len(by_key) == len(found), "a trial has two runs"
    return by_key


def ending(model_dir: Path | None = None, epochs: int = 4, cer: float = 12.0, **more: Any) -> Ending:
    history = [(step, {"val_cer": cer + 4 - step, "minutes": 2.0 * (step + 1)}) for step in range(epochs)]
    metrics = {"test_cer": cer, "val_cer": cer + 5 - epochs}
    return Ending(metrics=metrics, history=history, model_dir=model_dir, note="What it is.", **more)


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> str:
    """A tracking URI of an empty sqlite file."""
    target = tmp_path / "mlflow.db"
    target.write_bytes(empty_database.read_bytes())
    return f"sqlite:///{target}"


def test_cells_are_found_by_their_coordinates(database: str, tmp_path: Path) -> None:
    with track(database, "sweep", tmp_path) as tracker:
        for pretext in ("none", "flip"):
            for fraction in ("0.05", "1"):
                place = {"pretext": pretext, "label_fraction": fraction, "grid": "grid"}
                key = f"{pretext}/{fraction}"
                tracker.start_trial(key, key, place, place)
                tracker.finish_trial(key, {"test_cer": 100 * float(fraction)}, {}, None, None)
    assert set(runs_of(database, "sweep", "params.pretext = 'flip' and params.label_fraction = '0.05'")) == {
        "flip/0.05"
    }
    assert set(runs_of(database, "sweep", "tags.pretext = 'none' and metrics.test_cer < 50")) == {"none/0.05"}
    assert len(runs_of(database, "sweep", "params.grid = 'grid'")) == 4


def test_a_fine_tuning_leads_to_its_encoder_and_its_data(
    uri: str, request: pytest.FixtureRequest, tmp_path: Path, recognizer_dir: Path, sample_corpus: str
) -> None:
    experiment = f"lineage {request.node.name}"
    corpus = Corpus.open(sample_corpus)
    with track(uri, experiment, tmp_path) as tracker:
        for key, splits, encoder in (
            (PRETRAINING, ("train", "val"), None),
            ("tuned", ("train", "val", "test"), PRETRAINING),
        ):
            tracker.start_trial(key, key, {}, {}, inputs=lambda s=splits: dataset_inputs(corpus, s), encoder=encoder)
            tracker.end_trial(key, lambda: ending(recognizer_dir))
        assert tracker.close() == []

    runs = runs_of(uri, experiment)
    encoder, tuned = runs[PRETRAINING], runs["tuned"]
    (made,) = encoder.outputs.model_outputs
    tuned = MlflowClient(uri).get_run(tuned.info.run_id)  # a search leaves out the models
    (taken,) = tuned.inputs.model_inputs
    assert taken.model_id == made.model_id
    assert tuned.data.tags["htr_ray.encoder.run"] == encoder.info.run_id
    assert tuned.data.tags["htr_ray.encoder.trial"] == PRETRAINING
    assert tuned.data.tags["htr_ray.encoder.model"] == made.model_id
    assert encoder.info.run_id in tuned.data.tags["mlflow.note.content"]

    datasets = {item.tags[0].value: item.dataset for item in tuned.inputs.dataset_inputs}
    assert set(datasets) == {"training", "validation", "testing"}
    assert {item.tags[0].value for item in encoder.inputs.dataset_inputs} == {"training", "validation"}
    assert {dataset.name for dataset in datasets.values()} == {corpus.info.name}
    assert datasets["testing"].digest == split_digest(corpus, "test")
    assert corpus.uri in datasets["training"].source
    # MLflow's own search by data, and the figures of a model by the data that they were measured on.
    digest = split_digest(corpus, "test")
    where = f"dataset.name = '{corpus.info.name}' and dataset.digest = '{digest}'"
    assert set(runs_of(uri, experiment, where)) == {"tuned"}
    (output,) = tuned.outputs.model_outputs
    measured = {m.key: m.dataset_digest for m in MlflowClient(uri).get_logged_model(output.model_id).metrics}
    assert measured["test_cer"] == digest


def test_system_metrics_keep_the_names_that_mlflow_looks_for(database: str, tmp_path: Path) -> None:
    with track(database, "sweep", tmp_path) as tracker:
        tracker.start_trial("a", "a", {}, {})
        tracker.log_epoch("a", 0, {"val_cer": 1.0, "system/cpu_utilization_percentage": 55.0})
    assert runs_of(database, "sweep")["a"].data.metrics["system/cpu_utilization_percentage"] == 55.0


# ---- A driver that died, or an older one, left MLflow behind.


def crash(uri: str, root: Path, epochs: int) -> None:
    """A driver that logged some epochs of trial ``a`` and vanished: its run is RUNNING."""
    tracker = track(uri, "sweep", root)
    tracker.start_trial("a", "a", {"seed": 0}, {})
    for step in range(epochs):
        tracker.log_epoch("a", step, {"val_cer": 16.0 - step, "minutes": 2.0 * (step + 1)})
    tracker._background.close()


def catch_up(uri: str, root: Path, load: Callable[[], Ending], params: dict[str, Any] | None = None) -> Tracker:
    tracker = track(uri, "sweep", root)
    tracker.catch_up("a", "a", params or {"seed": 0}, {"pretext": "flip"}, load, seconds=lambda: 480.0)
    tracker.finish_grid("done", {})
    assert tracker.close() == []
    return tracker


def state_of(uri: str, root: Path) -> dict[str, Any]:
    """All that MLflow has of trial ``a``."""
    client = MlflowClient(uri)
    run = runs_of(uri, "sweep")["a"]
    points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    models = client.search_logged_models([run.info.experiment_id])
    return {
        "status": run.info.status,
        "tags": {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
        "params": run.data.params,
        "points": {name: sorted((p.step, p.value) for p in found) for name, found in points.items()},
        "files": {item.path for item in client.list_artifacts(run.info.run_id)},
        "models": [(model.source_run_id == run.info.run_id, model.status.value) for model in models],
        "note": run.data.tags.get("mlflow.note.content"),
    }


@pytest.mark.parametrize("epochs", [0, 2, 4])
def test_what_a_dead_driver_did_not_log_is_logged_by_the_next(
    epochs: int, database: str, tmp_path: Path, recognizer_dir: Path
) -> None:
    def load() -> Ending:
        return ending(recognizer_dir, files={"predictions.tsv": "id\n"})

    crash(database, tmp_path, epochs)
    tracker = catch_up(database, tmp_path, load)
    assert tracker.caught_up == 1
    state = state_of(database, tmp_path)
    assert state["status"] == "FINISHED"
    assert state["points"]["val_cer"] == sorted({(step, 16.0 - step) for step in range(4)} | {(3, 13.0)})
    assert state["points"]["test_cer"] == [(3, 12.0)]
    assert state["files"] == {"predictions.tsv"} and state["models"] == [(True, "READY")]
    assert state["note"] == "What it is." and state["tags"]["htr_ray.recorded"] == RECORDED

    def never() -> Ending:
        raise AssertionError("read again although MLflow has all of it")

    assert catch_up(database, tmp_path, never).caught_up == 0
    assert state_of(database, tmp_path) == state


def test_a_trial_without_any_run_gets_one_with_the_time_it_took(database: str, tmp_path: Path) -> None:
    catch_up(database, tmp_path, lambda: ending())
    run = runs_of(database, "sweep")["a"]
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time >= 480_000
    history = MlflowClient(database).get_metric_history(run.info.run_id, "val_cer")
    times = [point.timestamp for point in sorted(history, key=lambda point: point.step)][:4]
    assert [after - before for before, after in zip(times, times[1:], strict=False)] == [120_000] * 3


def test_an_older_record_gets_what_is_new_and_keeps_its_run(database: str, tmp_path: Path) -> None:
    """As recorded before there were notes, pictures and marks."""
    with track(database, "sweep", tmp_path) as old:
        old.start_trial("a", "a", {"seed": 0}, {})
        for step in range(4):
            old.log_epoch("a", step, {"val_cer": 16.0 - step})
        old.finish_trial("a", {"test_cer": 12.0}, {"result.json": "{}"}, None, None)
        old.close()
    client = MlflowClient(database)
    before = runs_of(database, "sweep")["a"]
    client.set_tag(before.info.run_id, "htr_ray.recorded", "1")

    catch_up(database, tmp_path, lambda: ending(files={"learning_curves.png": b"png"}), {"seed": 0, "corpus": "c"})
    after = runs_of(database, "sweep")["a"]
    assert after.info.run_id == before.info.run_id and after.info.end_time == before.info.end_time
    state = state_of(database, tmp_path)
    assert state["files"] == {"result.json", "learning_curves.png"}
    assert state["params"] == {"seed": "0", "corpus": "c"} and state["tags"]["pretext"] == "flip"
    assert state["points"]["val_cer"] == [(step, 16.0 - step) for step in range(4)]
    assert len(state["points"]["minutes"]) == 4


def test_a_finished_run_of_another_training_is_replaced(database: str, tmp_path: Path) -> None:
    """The trial's folder was deleted, it was trained anew, and that driver died: two trainings are not mixed."""
    catch_up(database, tmp_path, lambda: ending(cer=12.0))
    MlflowClient(database).set_tag(runs_of(database, "sweep")["a"].info.run_id, "htr_ray.recorded", "no")
    catch_up(database, tmp_path, lambda: ending(cer=9.0))
    state = state_of(database, tmp_path)
    assert state["points"]["test_cer"] == [(3, 9.0)]
    assert state["points"]["val_cer"] == sorted({(step, 13.0 - step) for step in range(4)} | {(3, 10.0)})
    assert len(runs_of(database, "sweep", view=ViewType.DELETED_ONLY)) == 1


def test_an_ending_that_cannot_be_read_is_named_and_tried_again_by_the_next_run(database: str, tmp_path: Path) -> None:
    def broken() -> Ending:
        raise ValueError("result.json: not valid JSON")

    tracker = track(database, "sweep", tmp_path)
    tracker.catch_up("a", "a", {}, {}, broken, seconds=lambda: 0.0)
    tracker.finish_grid("done", {})
    assert "trial a: history: result.json: not valid JSON" in {str(item) for item in tracker.close()}
    assert "htr_ray.recorded" not in state_of(database, tmp_path)["tags"]
    catch_up(database, tmp_path, lambda: ending(), {})
    assert state_of(database, tmp_path)["tags"]["htr_ray.recorded"] == RECORDED


def test_a_trial_with_a_missing_picture_is_not_called_complete(database: str, tmp_path: Path) -> None:
    assert catch_up(database, tmp_path, lambda: ending(complete=False)).caught_up == 1
    assert state_of(database, tmp_path)["status"] == "FINISHED"
    assert catch_up(database, tmp_path, lambda: ending()).caught_up == 1
    assert catch_up(database, tmp_path, lambda: ending()).caught_up == 0


def test_what_failed_at_first_counts_once_it_is_logged(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that is laid aside and done at the end: the trial is complete all the same."""
    original, calls = Record.log_trial_files, []

    def second_time(self: Record, key: str, files: dict[str, Any]) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise ValueError("not now")
        original(self, key, files)

    monkeypatch.setattr(Record, "log_trial_files", second_time)
    catch_up(database, tmp_path, lambda: ending(files={"a.txt": "a"}))
    assert calls == ["a", "a"]
    assert state_of(database, tmp_path)["tags"]["htr_ray.recorded"] == RECORDED


def test_an_end_that_was_laid_aside_is_still_an_end(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written after what was left open was marked as KILLED."""
    original, calls = Record.end_trial, []

    def second_time(self: Record, key: str, failed: str | None, now: int) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise ValueError("not now")
        original(self, key, failed, now)

    monkeypatch.setattr(Record, "end_trial", second_time)
    catch_up(database, tmp_path, lambda: ending())
    assert calls == ["a", "a"] and state_of(database, tmp_path)["status"] == "FINISHED"


def test_a_trial_goes_on_with_more_workers_in_the_same_run(database: str, tmp_path: Path) -> None:
    for workers in (1, 4):
        with track(database, "sweep", tmp_path) as tracker:
            where = {"ray.io/market-type": "spot" if workers == 1 else "on-demand"}
            params = {"seed": 0, "finetune": {"workers": workers, "node_labels": where}}
            tracker.start_trial("a", "a", params, {}, free={"finetune.workers", "finetune.node_labels"})
            tracker.log_epoch("a", workers, {"val_cer": 1.0})
            assert tracker.close() == []
    state = state_of(database, tmp_path)
    assert state["params"]["finetune.workers"] == "1"  # MLflow's parameters never change
    assert state["points"]["val_cer"] == [(1, 1.0), (4, 1.0)]


def test_an_interrupted_grid_is_killed_and_leaves_old_trials_for_the_next_run(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def busy() -> Ending:
        begun.set()
        assert go_on.wait(60)
        return ending()

    with track(database, "sweep", tmp_path) as tracker:
        tracker.start_trial("new", "new", {}, {})
        tracker.end_trial("new", busy)
        assert begun.wait(60)
        tracker.catch_up("old", "old", {}, {}, ending, seconds=lambda: 1.0)
        tracker.finish_grid("some of it", {}, interrupted=True)
        go_on.set()
        assert tracker.close() == []
    assert "are left for the next run" in caplog.text
    runs = runs_of(database, "sweep")
    assert set(runs) == {"", "new"} and runs["new"].info.status == "FINISHED"
    assert runs[""].info.status == "KILLED" and runs[""].data.tags["mlflow.note.content"] == "some of it"
    with track(database, "sweep", tmp_path) as tracker:
        tracker.catch_up("old", "old", {}, {}, ending, seconds=lambda: 1.0)
        tracker.finish_grid("all of it", {})
        assert tracker.close() == []
    runs = runs_of(database, "sweep")
    assert {run.info.status for run in runs.values()} == {"FINISHED"} and set(runs) == {"", "new", "old"}


def test_a_long_summary_leaves_room_for_how_to_make_it_again(database: str, tmp_path: Path) -> None:
    table = "| row |\n" * 3000
    with track(database, "sweep", tmp_path) as tracker:
        tracker.finish_grid(table, {}, "\n## Make it again\n\nlike this")
        assert tracker.close() == []
    run = runs_of(database, "sweep")[""]
    note = run.data.tags["mlflow.note.content"]
    assert len(note) <= 8000 and note.endswith("like this") and "(all of it: summary.md)" in note
    path = MlflowClient(database).download_artifacts(run.info.run_id, "summary.md", str(tmp_path))
    assert Path(path).read_text() == table + "\n## Make it again\n\nlike this"
