"""A grid read back: what is done, failed and missing, and what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from grid_on_disk import write_grid

from htr_ray.errors import UserError
from htr_ray.report.results import GridResults, TrialResult
from htr_ray.sweep.results import load_grid, write_failures

pytest_plugins = ["s3_server"]

FLIP = "finetune/wills/semi_supervised/ctc/0.1/flip/seed0"


def by_key(grid: GridResults) -> dict[str, TrialResult]:
    return {trial.key: trial for trial in grid.trials}


def test_all_that_is_there_is_read(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, "seeds=[0,1]", lines=12)
    grid = load_grid("demo", str(tmp_path / "runs"))
    assert grid.name == "demo"
    assert grid.settings["seeds"] == [0, 1]
    assert len(grid.trials) == 2 * 2 + 2 * 2 * 3
    assert {trial.state for trial in grid.trials} == {"done"}
    trial = by_key(grid)[FLIP]
    assert (trial.stage, trial.corpus, trial.pretext, trial.seed) == ("finetune", "wills", "flip", 0)
    assert (trial.decoder, trial.label_fraction, trial.protocol) == ("ctc", 0.1, "semi_supervised")
    assert trial.result["lines"] == 100
    assert trial.readings is not None and len(trial.readings) == 12
    assert by_key(grid)["pretrain/wills/flip/seed1"].readings is None
    assert grid.corpora["wills"]["licence"] == "CC-BY-4.0"
    assert grid.corpora["wills"]["uri"] == str(tmp_path / "corpora" / "wills")
    assert grid.notes == []
    assert by_key(load_grid(folder)) == by_key(grid), "by the folder's URI"


def test_a_grid_that_was_moved_is_read_where_it_is(tmp_path: Path) -> None:
    write_grid(tmp_path, lines=5)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert all(trial.state == "done" for trial in load_grid("demo", str(tmp_path / "elsewhere")).trials)


def test_failed_and_missing_are_told_apart(tmp_path: Path) -> None:
    folder = write_grid(tmp_path, lines=5, skip=lambda trial: trial.pretext == "flip")
    assert {t.state for t in load_grid(folder).trials if t.pretext == "flip"} == {"missing"}
    write_failures(folder, {FLIP: "the disk is full", "finetune/wills/semi_supervised/ctc/1/none/seed0": "long ago"})
    grid = load_grid(folder)
    failed = by_key(grid)[FLIP]
    assert (failed.state, failed.failure, failed.result, failed.readings) == ("failed", "the disk is full", {}, None)
    assert by_key(grid)["pretrain/wills/flip/seed0"].state == "missing"
    assert by_key(grid)["finetune/wills/semi_supervised/ctc/1/none/seed0"].state == "done", "it went well later"
    told = load_grid(folder, failed={"pretrain/wills/flip/seed0": "no GPU"})
    assert by_key(told)["pretrain/wills/flip/seed0"].failure == "no GPU"
    assert by_key(told)[FLIP].failure == "the disk is full"


def test_damaged_files_are_named_and_cost_only_their_own_trial(tmp_path: Path) -> None:
    folder = Path(write_grid(tmp_path, lines=5))
    sorting = FLIP.replace("flip", "sorting")
    none = FLIP.replace("flip", "none")
    (folder / FLIP / "result.json").write_text("{")
    (folder / sorting / "readings.json").write_text(json.dumps([{"id": "x", "truth": None, "reading": "a"}]))
    (folder / none / "readings.json").unlink()
    (folder / "pretrain/wills/flip/seed0/result.json").write_text("[]")
    grid = load_grid(str(folder))
    trials = by_key(grid)
    assert trials[FLIP].state == "failed" and "not valid JSON" in str(trials[FLIP].failure)
    assert trials["pretrain/wills/flip/seed0"].state == "failed"
    assert "no val_accuracy" in str(trials["pretrain/wills/flip/seed0"].failure)
    assert trials[sorting].state == trials[none].state == "done"
    assert trials[sorting].readings is None and trials[none].readings is None
    assert len(grid.notes) == 2
    assert any(sorting in note and "damaged" in note for note in grid.notes)
    assert any(none in note and "missing" in note for note in grid.notes)


def test_finished_trials_of_an_earlier_run_count(tmp_path: Path) -> None:
    folder = Path(write_grid(tmp_path, "seeds=[0,1]", lines=5))
    settings = json.loads((folder / "grid.json").read_text())
    settings |= {"seeds": [0], "pretexts": ["none", "sorting"]}
    (folder / "grid.json").write_text(json.dumps(settings))
    (folder / "finetune/wills/oddly/named").mkdir(parents=True)
    (folder / "finetune/wills/oddly/named/result.json").write_text("{}")
    trials = by_key(load_grid(str(folder)))
    assert len(trials) == 2 * 2 + 2 * 2 * 3
    earlier = trials[FLIP.replace("seed0", "seed1")]
    assert (earlier.state, earlier.seed, earlier.label_fraction, earlier.pretext) == ("done", 1, 0.1, "flip")
    assert earlier.readings is not None and len(earlier.readings) == 5


def test_gpus_are_those_that_the_trial_held(tmp_path: Path) -> None:
    folder = Path(write_grid(tmp_path, "finetune.gpus_per_worker=null", lines=5))
    assert by_key(load_grid(str(folder)))[FLIP].gpus is None, "its results do not say"

    def with_epoch(extra: dict[str, float]) -> float | None:
        path = folder / FLIP / "result.json"
        result = json.loads(path.read_text())
        result["history"][0] |= extra
        path.write_text(json.dumps(result))
        return by_key(load_grid(str(folder)))[FLIP].gpus

    assert with_epoch({"system/cpu_utilization_percentage": 50.0}) == 0.0
    assert with_epoch({"system/gpu_0_memory_usage_megabytes": 9.0}) == 0.25, "the default share of a fine-tuning"


def test_a_corpus_that_is_gone_is_a_note(tmp_path: Path) -> None:
    grid = load_grid(write_grid(tmp_path, lines=5, with_corpus=False))
    assert grid.corpora["wills"] == {"uri": str(tmp_path / "corpora" / "wills")}
    assert len(grid.notes) == 1 and "not found" in grid.notes[0]


def test_a_wrong_name_names_the_grids_that_are_there(tmp_path: Path) -> None:
    write_grid(tmp_path, lines=5)
    with pytest.raises(UserError, match=r"demmo: no grid of that name.*grids there: demo; check the name and storage="):
        load_grid("demmo", str(tmp_path / "runs"))
    with pytest.raises(UserError, match="no grid of that name"):
        load_grid(str(tmp_path / "nowhere" / "demo"))


def test_settings_of_another_version_are_explained(tmp_path: Path) -> None:
    folder = Path(write_grid(tmp_path, lines=5))
    settings = json.loads((folder / "grid.json").read_text())
    (folder / "grid.json").write_text(json.dumps({**settings, "colour": "blue"}))
    with pytest.raises(UserError, match=r"grid\.json: colour: .*another version of htr-ray"):
        load_grid(str(folder))


def test_a_grid_in_s3(tmp_path: Path, s3: str) -> None:
    from htr_ray import storage

    folder = write_grid(tmp_path, lines=5)
    storage.upload_dir(folder, f"{s3}/runs/demo")
    grid = load_grid("demo", f"{s3}/runs")
    assert {trial.state for trial in grid.trials} == {"done"}
    assert by_key(grid) == by_key(load_grid(folder))
