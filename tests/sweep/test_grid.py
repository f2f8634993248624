"""The grid end to end: real Ray Tune, real MLflow on sqlite, the embedded corpus, a network of a few weights."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
import ray
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from htr_ray import storage
from htr_ray.cli import main
from htr_ray.config import GridSettings, load
from htr_ray.corpus.read import Corpus
from htr_ray.errors import UserError
from htr_ray.sweep.board import Board
from htr_ray.sweep.progress import read_progress
from htr_ray.sweep.results import load_grid
from htr_ray.sweep.run import load_settings, run_grid
from htr_ray.sweep.tracking import attach
from htr_ray.track.dataset import split_digest

TINY = [
    *("model.channels=16", "model.lstm_hidden=16", "model.transformer.dim=16", "model.transformer.heads=2"),
    *("finetune.max_epochs=1", "finetune.min_steps_per_epoch=1", "finetune.batch_size=16"),
    *("pretrain.max_epochs=1", "pretrain.batch_size=32"),
    # As the registered model reads; bfloat16 would change the readings of a network that has learnt nothing.
    "finetune.precision=float32",
]
GRID = ["name=first", "pretexts=[none,flip]", "decoders=[ctc,transformer]", "label_fractions=[0.5,1.0]"]

pytestmark = pytest.mark.usefixtures("ray_local")


class Place:
    """Storage and MLflow of this module's grids."""

    def __init__(self, root: Path, corpus: str) -> None:
        self.root, self.corpus = root, corpus
        self.uri = f"sqlite:///{root}/mlflow.db"
        self.client = MlflowClient(self.uri)
        self.said = ""

    def settings(self, *overrides: str) -> GridSettings:
        fixed = [f"corpora=[{self.corpus}]", f"storage={self.root}", f"tracking_uri={self.uri}"]
        return load(GridSettings, overrides=[*fixed, *TINY, *overrides], environment={})

    def run(self, *overrides: str, **how: Any) -> dict[str, Any]:
        text = io.StringIO()
        try:
            return run_grid(self.settings(*overrides), console=Console(file=text, width=200), **how)
        finally:
            self.said = text.getvalue()

    def runs(self, grid: str, client: MlflowClient | None = None) -> tuple[Run, list[Run]]:
        """The grid's run and its nested ones, in the experiment of its name."""
        client = client or self.client
        experiment = client.get_experiment_by_name(grid)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], max_results=1000)
        (parent,) = [run for run in found if run.data.tags.get("htr_ray.grid") == grid]
        return parent, [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sample_corpus: str) -> Place:
    return Place(tmp_path_factory.mktemp("grids"), sample_corpus)


@pytest.fixture(scope="module")
def first(place: Place, ray_local: None) -> dict[str, Any]:
    """{none, flip} x {ctc, transformer} x {50 %, 100 %}, run once."""
    return place.run(*GRID) | {"said": place.said}


def test_a_dry_run_tells_the_plan_and_starts_nothing(place: Place) -> None:
    told = place.run(*GRID, "name=dry", dry_run=True)
    assert told["trials"] == 9 and told["finished"] == 0
    assert told["estimated_seconds"] > 0
    assert "Grid 'dry': 9 trials, 0 already done" in place.said
    assert not (place.root / "dry").exists()


def test_every_cell_is_trained_and_tested(first: dict[str, Any]) -> None:
    assert first["failed"] == {}
    assert [row["state"] for row in first["rows"]] == ["done"] * 9
    for row in first["rows"]:
        if row["stage"] == "finetune":
            assert row["test_cer"] > 0 and row["val_cer"] > 0 and row["epochs"] == 1
        else:
            assert 0 <= row["val_accuracy"] <= 100 and row["chance"] == 25
    lines = {row["label_fraction"]: row["lines"] for row in first["rows"] if row["stage"] == "finetune"}
    assert lines[0.5] == pytest.approx(lines[1.0] / 2, abs=1)


def test_a_person_sees_plan_progress_and_summary(first: dict[str, Any]) -> None:
    said = first["said"]
    assert "Grid 'first': 9 trials, 0 already done" in said
    assert "estimated time: at most about" in said
    assert "pretrain/sample/flip/seed0: started" in said
    assert "9 done of 9 trials" in said
    assert "test CER / WER in percent" in said
    assert "Browse the runs:" in said
    order = [line.split(":")[0] for line in said.splitlines() if ": started" in line]
    # Two start together, and whichever process is up first is told first.
    assert order.index("pretrain/sample/flip/seed0") <= 1


def test_another_shell_sees_what_the_board_saw(first: dict[str, Any], place: Place) -> None:
    grid = read_progress(f"{place.root}/first")
    assert grid is not None and grid.finished and grid.session.ended is not None
    assert grid.counts["done"] == 9 and grid.use is not None and grid.use.cpus == 4
    rows = {row["key"]: row for row in first["rows"]}
    for trial in grid.trials:
        row, (attempt,) = rows[trial.key], trial.attempts
        figure = "val_accuracy" if trial.stage == "pretrain" else "test_cer"
        assert trial.figures[figure] == pytest.approx(row[figure])
        assert attempt.trained_from is not None and attempt.trained_to is not None and attempt.ended is not None
        assert attempt.began < attempt.trained_from <= attempt.trained_to <= attempt.ended
        assert attempt.share == 0.5 and attempt.node and trial.epoch == 0 and trial.seconds > 0
    assert (place.root / "first/report/timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "How the time was used" in (place.root / "first/report/report.md").read_text()


def test_mlflow_has_one_run_for_the_grid_and_one_for_each_trial(first: dict[str, Any], place: Place) -> None:
    parent, nested = place.runs("first")
    assert parent.info.status == "FINISHED"
    assert "| sample | semi_supervised | ctc | 50 % |" in parent.data.tags["mlflow.note.content"]
    assert sorted(run.data.tags["htr_ray.trial"] for run in nested) == sorted(row["key"] for row in first["rows"])
    rows = {row["key"]: row for row in first["rows"]}
    for run in nested:
        row = rows[run.data.tags["htr_ray.trial"]]
        assert run.info.status == "FINISHED"
        assert run.data.params["pretext"] == run.data.tags["pretext"] == row["pretext"]
        assert run.data.params[f"{row['stage']}.max_epochs"] == "1"
        assert run.data.params["model.channels"] == "16"
        history = place.client.get_metric_history(run.info.run_id, "train_loss")
        assert [point.step for point in history] == [0]
        if row["stage"] == "finetune":
            assert run.data.metrics["test_cer"] == pytest.approx(row["test_cer"])
            files = {file.path for file in place.client.list_artifacts(run.info.run_id)}
            assert {"config.json", "result.json", "predictions.tsv"} <= files


def test_runs_lead_to_encoders_data_and_what_people_look_at(first: dict[str, Any], place: Place) -> None:
    _, nested = place.runs("first")
    runs = {run.data.tags["htr_ray.trial"]: place.client.get_run(run.info.run_id) for run in nested}
    encoder = runs["pretrain/sample/flip/seed0"]
    (made,) = encoder.outputs.model_outputs
    for run in runs.values():
        tags, files = run.data.tags, {file.path for file in place.client.list_artifacts(run.info.run_id)}
        assert tags["grid"] == run.data.params["grid"] == "first" and tags["preset"] == run.data.params["preset"]
        assert tags["htr_ray.recorded"] and "| minutes |" in tags["mlflow.note.content"]
        assert {"config.json", "result.json", "learning_curves.png"} <= files
        assert any(name.startswith("system/") for name in run.data.metrics)
        assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"sample"}
        if tags["stage"] == "pretrain":
            assert "pretext_preview.png" in files
            continue
        assert {"predictions.tsv", "confusions.tsv", "test_lines.html", "test_lines.png"} <= files
        table = Path(place.client.download_artifacts(run.info.run_id, "predictions.tsv", str(place.root)))
        assert len(table.read_text().splitlines()) == 1 + Corpus.open(place.corpus).info.counts["test"].lines
        if tags["pretext"] == "flip":
            assert [item.model_id for item in run.inputs.model_inputs] == [made.model_id]
            assert tags["htr_ray.encoder.run"] == encoder.info.run_id
        else:
            assert not run.inputs.model_inputs and "htr_ray.encoder.run" not in tags
    where = "params.pretext = 'flip' and params.label_fraction = '0.5' and params.decoder = 'ctc'"
    found = place.client.search_runs([encoder.info.experiment_id], where)
    assert [run.data.tags["htr_ray.trial"] for run in found] == ["finetune/sample/semi_supervised/ctc/0.5/flip/seed0"]


def test_the_grids_run_says_how_to_make_it_again(first: dict[str, Any], place: Place, tmp_path: Path) -> None:
    parent, _ = place.runs("first")
    note = parent.data.tags["mlflow.note.content"]
    assert "## Make it again" in note and "python jobs/full_grid.py --config config.yaml" in note
    assert split_digest(Corpus.open(place.corpus), "train") in note

    def stored(path: str) -> Path:
        return Path(place.client.download_artifacts(parent.info.run_id, path, str(tmp_path)))

    settings = load(GridSettings, file=str(stored("config.yaml")), environment={})
    assert settings == GridSettings.model_validate(storage.read_json(f"{place.root}/first/grid.json"))
    assert "ray==" in stored("requirements.txt").read_text()
    found = json.loads(stored("environment.json").read_text())
    assert found["packages"]["ray"] == ray.__version__ and found["cluster"][0]["CPU"] == 4
    assert "first" in stored("report/report.md").read_text()
    assert stored("report/timeline.png").read_bytes().startswith(b"\x89PNG")
    page = storage.read_bytes(f"{place.root}/first/report/report.html")
    assert page.startswith(b"<!doctype html>") and stored("report/report.html").read_bytes() == page
    assert "first/report/report.html" in first["said"]
    # What is made later goes to the same run.
    assert attach(place.settings(*GRID), f"{place.root}/first", {"report/late.txt": b"late"}) == parent.info.run_id
    assert stored("report/late.txt").read_text() == "late"
    assert attach(place.settings("name=never-run"), f"{place.root}/never-run", {"report/late.txt": b"late"}) is None
    assert place.client.get_experiment_by_name("never-run") is None


def test_the_best_are_registered(first: dict[str, Any], place: Place) -> None:
    cells = sorted((row for row in first["rows"] if row["stage"] == "finetune"), key=lambda row: row["val_cer"])
    for alias, row in zip(("champion", "challenger"), cells, strict=False):
        version = place.client.get_model_version_by_alias("htr-ray-sample", alias)
        assert version.tags["htr_ray.trial"] == row["key"]
    assert place.client.get_model_version_by_alias("htr-ray-sample-encoder", "flip").version


def test_a_lost_mlflow_is_written_again_without_training(first: dict[str, Any], place: Place, tmp_path: Path) -> None:
    """As after a driver that died before it had logged: all of it, epoch by epoch, from the grid's own storage."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for turn in range(2):
        place.run(*GRID, f"tracking_uri={uri}")
        assert "9 trials, 9 already done" in place.said and ": started" not in place.said
        assert ("9 trial(s) finished by earlier runs were brought up to date" in place.said) == (turn == 0)
    client = MlflowClient(uri)
    parent, again = place.runs("first", client)
    _, nested = place.runs("first")
    assert parent.info.status == "FINISHED" and len(again) == 9
    before = {run.data.tags["htr_ray.trial"]: run for run in nested}
    for run in again:
        old = before[run.data.tags["htr_ray.trial"]]
        assert run.info.status == "FINISHED" and run.data.params == old.data.params
        assert run.data.metrics == old.data.metrics
        for name in run.data.metrics:
            one, two = (
                sorted((p.step, p.value) for p in which.get_metric_history(found.info.run_id, name))
                for which, found in ((client, run), (place.client, old))
            )
            assert one == two
        assert {f.path for f in client.list_artifacts(run.info.run_id)} == {
            f.path for f in place.client.list_artifacts(old.info.run_id)
        }
        assert len(client.get_run(run.info.run_id).outputs.model_outputs) == 1


def test_a_picture_or_a_report_that_fails_costs_nothing_else(
    first: dict[str, Any],
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no fonts here")

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr("htr_ray.sweep.artifacts.learning_curves", broken)
    monkeypatch.setattr("htr_ray.sweep.tracking.build", broken)
    told = place.run(*GRID, f"tracking_uri={uri}")
    assert told["failed"] == {} and "the report could not be made (RuntimeError: no fonts here)" in place.said
    assert "learning_curves.png could not be made, the results are complete without it" in caplog.text
    client = MlflowClient(uri)
    for run in place.runs("first", client)[1]:
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert run.info.status == "FINISHED" and "result.json" in files and "learning_curves.png" not in files
    monkeypatch.undo()
    place.run(*GRID, f"tracking_uri={uri}")  # the cause is gone, and the next run makes up for it
    for run in place.runs("first", client)[1]:
        assert "learning_curves.png" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_the_champion_reads_lines_from_the_registry(
    first: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = place.client.get_model_version_by_alias("htr-ray-sample", "champion")
    cells = [row for row in first["rows"] if row["stage"] == "finetune"]
    best = min(cells, key=lambda row: row["val_cer"])
    assert version.tags["htr_ray.trial"] == best["key"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    mlflow.set_tracking_uri(place.uri)
    try:
        model = mlflow.pyfunc.load_model("models:/htr-ray-sample@champion")
    finally:
        mlflow.set_tracking_uri(None)
    corpus = Corpus.open(place.corpus)
    lines = corpus.read_row_group(corpus.files("test")[0], 0)
    read = model.predict([lines["image"][0].as_py(), lines["image"][1].as_py(), b"not an image"])
    assert list(read["error"][:2]) == ["", ""] and read["error"][2] != ""
    # What the trial itself read on these lines, it reads again.
    stored = {r["id"]: r["reading"] for r in storage.read_json(f"{place.root}/first/{best['key']}/readings.json")}
    ids = lines["id"].to_pylist()[:2]
    assert [read["text"][i] for i in range(2)] == [stored[name] for name in ids]


def test_the_same_grid_again_has_nothing_to_do(first: dict[str, Any], place: Place) -> None:
    before = {run.info.run_id: run.info.end_time for run in place.runs("first")[1]}
    again = place.run(*GRID)
    assert "9 trials, 9 already done" in place.said and ": started" not in place.said
    assert again["rows"] == first["rows"]
    assert {run.info.run_id: run.info.end_time for run in place.runs("first")[1]} == before


def test_a_new_value_on_an_axis_adds_its_trials_only(first: dict[str, Any], place: Place) -> None:
    wider = place.run(*GRID[:-1], "label_fractions=[0.5,1.0,0.25]", "decoders=[ctc]", "pretexts=[none,flip]")
    started = {line.split(":")[0] for line in place.said.splitlines() if ": started" in line}
    assert started == {f"finetune/sample/semi_supervised/ctc/0.25/{pretext}/seed0" for pretext in ("none", "flip")}
    assert [row["state"] for row in wider["rows"]] == ["done"] * 7
    assert len(place.runs("first")[1]) == 11


def test_another_recipe_under_the_same_name_is_refused(first: dict[str, Any], place: Place) -> None:
    with pytest.raises(UserError) as caught:
        place.run(*GRID, "finetune.learning_rate=0.5", "model.height=40")
    text = str(caught.value)
    assert "grid 'first' exists with other settings" in text
    assert "finetune.learning_rate: was 0.003, now 0.5" in text
    assert "model.height: was 32, now 40" in text
    assert "use another name=..." in text
    # Where and how fast is no part of a recipe.
    assert place.run(*GRID, "finetune.retries=7", "stream.prefetch_batches=2")["failed"] == {}


def test_a_grid_of_another_version_is_named(place: Place) -> None:
    storage.write_json(f"{place.root}/old/grid.json", {"finetune": {"gone": 1}})
    with pytest.raises(UserError, match=r"old/grid\.json: finetune\.gone: .* another version of htr-ray"):
        place.run(*GRID, "name=old")


def test_settings_of_a_grid_are_found_by_its_name(first: dict[str, Any], place: Place) -> None:
    assert load_settings("first", str(place.root)).finetune.batch_size == 16
    with pytest.raises(UserError, match="--resume nope: no grid of that name"):
        load_settings("nope", str(place.root))


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[int, int]] = []
    original = Board.reported

    def kill_once(self: Board, key: str, result: dict[str, Any]) -> None:
        original(self, key, result)
        if result.get("epoch_end"):
            reported.append((result["epoch"], result["pid"]))
            # The report of epoch 2 comes after the checkpoint of epoch 1 was written.
            if result["epoch"] == 2 and len(reported) == 3:
                os.kill(result["pid"], signal.SIGKILL)

    monkeypatch.setattr(Board, "reported", kill_once)
    told = place.run(
        *("name=killed", "pretexts=[none]", "decoders=[ctc]", "label_fractions=[0.5]"),
        *("finetune.max_epochs=5", "finetune.checkpoint_minutes=0"),
    )
    assert told["failed"] == {} and told["rows"][0]["state"] == "done" and told["rows"][0]["epochs"] == 5
    epochs = [epoch for epoch, _ in reported]
    assert epochs == [0, 1, 2, 2, 3, 4]  # epoch 2 was lost and is repeated, 0 and 1 are not
    assert len({pid for _, pid in reported}) == 2
    _, (run,) = place.runs("killed")
    assert run.info.status == "FINISHED"
    steps = [point.step for point in place.client.get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == [0, 1, 2, 3, 4]


def test_a_grid_that_is_interrupted_says_so_and_registers_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ["name=stopped", "pretexts=[none]", "decoders=[ctc]", "label_fractions=[0.5,1.0]", "max_concurrent=1"]
    original = Board.ended

    def stop(self: Board, key: str, failure: str | None, halved: bool = False) -> None:
        original(self, key, failure, halved=halved)
        os.kill(os.getpid(), signal.SIGINT)

    def versions() -> int:
        return len(place.client.search_model_versions("name = 'htr-ray-sample'"))

    before = versions()
    with monkeypatch.context() as patched:
        patched.setattr(Board, "ended", stop)
        assert main(lambda: place.run(*axes), argparse.Namespace(json=None)) == 130
    assert "interrupted; run the same command again to continue" in capsys.readouterr().err
    assert "test CER / WER in percent" in place.said, "what there is is shown"
    parent, nested = place.runs("stopped")
    assert parent.info.status == "KILLED" and versions() == before
    assert "FINISHED" in {run.info.status for run in nested}, "the first trial had ended"
    assert place.run(*axes)["failed"] == {}
    parent, nested = place.runs("stopped")
    assert {run.info.status for run in [parent, *nested]} == {"FINISHED"} and len(nested) == 2
    assert versions() > before


@pytest.fixture
def damaged_corpus(sample_corpus: str, tmp_path: Path) -> Iterator[str]:
    """The sample corpus with junk where the images of train are; its index still reads."""
    target = tmp_path / "damaged"
    shutil.copytree(sample_corpus, target)
    for part in (target / "train").iterdir():
        group = pq.ParquetFile(part).metadata.row_group(0)
        (column,) = [c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == "image"]
        start = column.dictionary_page_offset or column.data_page_offset
        data = bytearray(part.read_bytes())
        data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
        part.write_bytes(data)
    yield str(target)


def test_a_broken_cell_is_reported_while_the_others_finish(place: Place, damaged_corpus: str, tmp_path: Path) -> None:
    overrides = [
        *("name=broken", f"corpora=[{damaged_corpus},{place.corpus}]", "pretexts=[flip]", "decoders=[ctc]"),
        *("label_fractions=[1.0]", "finetune.retries=0", "pretrain.retries=0", "stream.read_retries=1"),
    ]
    result: dict[str, Any] = {}

    def job() -> dict[str, Any]:
        result.update(place.run(*overrides))
        return result

    out = tmp_path / "out.json"
    assert main(job, argparse.Namespace(json=str(out))) == 1
    assert json.loads(out.read_text())["result"]["failed"] == result["failed"]
    states = {row["key"]: row["state"] for row in result["rows"]}
    assert states == {
        "pretrain/damaged/flip/seed0": "failed",
        "pretrain/sample/flip/seed0": "done",
        "finetune/damaged/semi_supervised/ctc/1/flip/seed0": "failed",
        "finetune/sample/semi_supervised/ctc/1/flip/seed0": "done",
    }
    why = result["failed"]["pretrain/damaged/flip/seed0"]
    assert "train/part-" in why and "prepare the corpus again" in why
    assert "pretrain/damaged/flip/seed0 failed" in result["failed"]["finetune/damaged/semi_supervised/ctc/1/flip/seed0"]
    assert why.splitlines()[0][:60] in place.said
    _, nested = place.runs("broken")
    failed = [run for run in nested if run.info.status == "FAILED"]
    assert [run.data.tags["htr_ray.trial"] for run in failed] == ["pretrain/damaged/flip/seed0"]
    assert "train/part-" in failed[0].data.tags["htr_ray.error"]


def test_a_missing_corpus_stops_the_grid_before_it_starts(place: Place) -> None:
    with pytest.raises(UserError, match="no corpus here .*prepare_data.py"):
        place.run("name=nowhere", f"corpora=[{place.root}/nothing]")
    assert not (place.root / "nowhere").exists()


def test_choices_race_within_a_cell_and_the_winner_stands_for_it(place: Place) -> None:
    wanted = [
        *("name=searched", "pretexts=[none]", "decoders=[ctc]", "label_fractions=[1.0]", "seeds=[0,1]"),
        # The last one is far too high to learn anything; the others do learn, or all would stand at 100 % and none fall
        # behind.
        "search.finetune={finetune.learning_rate: [1e-2, 2.0]}",
        *("finetune.learning_rate=5e-3", "finetune.max_epochs=4", "search.first_rung=0.25", "max_concurrent=1"),
        *("model.channels=32", "model.lstm_hidden=32", "finetune.batch_size=8", "finetune.min_steps_per_epoch=120"),
    ]
    stopped = place.run(*wanted, "budget.max_hours=1e-6")
    assert stopped["stopped"] == "budget.max_hours = 1e-06" and stopped["failed"] == {}
    assert {row["state"] for row in stopped["rows"]} == {"missing"}
    assert "Stopped at budget.max_hours = 1e-06: 0 of 2 trials are finished" in place.said

    told = place.run(*wanted)
    assert told["failed"] == {} and told["stopped"] is None
    cell = "finetune/sample/semi_supervised/ctc/1/none"
    record = storage.read_json(f"{place.root}/searched/{cell}/search.json")
    states = {number: choice["state"] for number, choice in record["choices"].items()}
    assert sorted(states) == ["0", "1", "2"] and "halved" in states.values()
    finished = {number: choice["figure"] for number, choice in record["choices"].items() if choice["state"] == "done"}
    best = min(finished, key=lambda number: finished[number])
    assert record["winner"] == int(best)
    assert [row["key"] for row in told["rows"]] == [f"{cell}/choice{best}", f"{cell}/seed1"]
    assert {row["state"] for row in told["rows"]} == {"done"}
    assert f"{cell}: choice {best} of 3 (" in place.said and "ended early" in place.said
    # Every choice is one run in MLflow; those that fell behind say so.
    _, nested = place.runs("searched")
    runs = {run.data.tags["htr_ray.trial"]: run for run in nested}
    assert sorted(runs) == [f"{cell}/choice0", f"{cell}/choice1", f"{cell}/choice2", f"{cell}/seed1"]
    for number, state in states.items():
        run = runs[f"{cell}/choice{number}"]
        assert run.info.status == ("FINISHED" if state == "done" else "KILLED")
        assert ("fell behind after" in run.data.tags.get("halved", "")) == (state == "halved")
        assert run.data.params["choice"] == number
    rate = runs[f"{cell}/choice{best}"].data.params["finetune.learning_rate"]
    assert runs[f"{cell}/seed1"].data.params["finetune.learning_rate"] == rate
    grid = load_grid(f"{place.root}/searched")
    assert [(trial.key, trial.state, trial.seed) for trial in grid.trials] == [
        (f"{cell}/choice{best}", "done", 0),
        (f"{cell}/seed1", "done", 1),
    ]
    assert not list((place.root / "searched").rglob("checkpoint*"))
    page = storage.read_bytes(f"{place.root}/searched/report/report.html").decode()
    assert "Choices of hyperparameters" in page and "finetune.learning_rate=2.0" in page
    lines = storage.read_bytes(f"{place.root}/searched/report/searches.csv").decode().splitlines()
    assert len(lines) == 4 and sum(",True," in line for line in lines) == 1

    again = place.run(*wanted)
    assert ": started" not in place.said and again["rows"] == told["rows"]
    with pytest.raises(UserError, match=r"search\.choices: was 8, now 9"):
        place.run(*wanted, "search.choices=9")
