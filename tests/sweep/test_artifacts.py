"""The files that people look at, from a trial's folder; what cannot be made is told and costs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.corpus.read import Corpus
from htr_ray.sweep.artifacts import Shelf, predictions_table, trial_files
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.record import ending

RESULT: dict[str, Any] = {
    "test_cer": 12.5,
    "minutes": 3.0,
    "unreadable": [],
    "history": [{"epoch": e, "train_loss": 2.0 - e / 4, "val_cer": 50.0 - e, "minutes": e + 1.0} for e in range(4)],
}


@pytest.fixture
def trials(sample_corpus: str, grid: Callable[..., GridSettings], tmp_path: Path) -> dict[str, Trial]:
    """A pre-training and a fine-tuning by stage, with what training left in their folders."""
    axes = ["pretexts=[flip]", "decoders=[ctc]", "label_fractions=[1.0]", "seeds=[0]"]
    found = expand(grid(f"corpora=[{sample_corpus}]", f"storage={tmp_path}", "name=g", *axes))
    corpus = Corpus.open(sample_corpus)
    lines = corpus.index("test", columns=("id", "text"))
    readings = [
        {"id": i, "truth": text, "reading": text[1:] + "x", "confidence": 0.5, "edits": 2}
        for i, text in zip(lines["id"].to_pylist(), lines["text"].to_pylist(), strict=True)
    ]
    image = base64.b64encode(corpus.read_row_group(corpus.files("test")[0], 0)["image"][0].as_py()).decode()
    shown = {"line": image, "view": image, "answer": "upright", "guess": "upside down", "right": 0.0}
    for trial in found:
        storage.write_json(storage.join(trial.job.folder, "result.json"), RESULT)
        extra = ("preview.json", [shown]) if trial.stage == "pretrain" else ("readings.json", readings)
        storage.write_json(storage.join(trial.job.folder, extra[0]), extra[1])
    return {trial.stage: trial for trial in found}


def test_a_fine_tuning_shows_its_lines_and_a_pre_training_its_task(trials: dict[str, Trial]) -> None:
    made = {stage: trial_files(trial, RESULT) for stage, trial in trials.items()}
    assert made["pretrain"].missing == made["finetune"].missing == []
    common = {"config.json", "result.json", "learning_curves.png"}
    assert set(made["pretrain"].files) == common | {"pretext_preview.png"}
    readings = {"predictions.tsv", "confusions.tsv", "test_lines.html", "test_lines.png"}
    assert set(made["finetune"].files) == common | readings
    for shelf in made.values():
        for path, content in shelf.files.items():
            if path.endswith(".png"):
                assert isinstance(content, bytes) and content.startswith(b"\x89PNG")
    page = made["finetune"].files["test_lines.html"]
    assert isinstance(page, str) and page.count("data:image/") > 10  # the corpus' own images


def test_without_its_corpus_a_trial_keeps_all_but_the_images(
    trials: dict[str, Trial], caplog: pytest.LogCaptureFixture
) -> None:
    trial = trials["finetune"]
    trial.job.corpus = "/nowhere/at/all"
    found = ending(trial)
    assert not found.complete and found.metrics["test_cer"] == 12.5 and len(found.history) == 4
    assert {"predictions.tsv", "confusions.tsv", "learning_curves.png"} <= set(found.files)
    assert "test_lines.html" not in found.files
    assert "test_lines.html could not be made, the results are complete without it (UserError: /nowhere" in caplog.text


def test_a_pre_training_of_an_earlier_version_has_no_preview(trials: dict[str, Trial]) -> None:
    trial = trials["pretrain"]
    storage.delete_file(storage.join(trial.job.folder, "preview.json"))
    shelf = trial_files(trial, RESULT)
    assert "pretext_preview.png" not in shelf.files and shelf.missing == []


def test_damaged_readings_are_told(trials: dict[str, Trial], caplog: pytest.LogCaptureFixture) -> None:
    trial = trials["finetune"]
    storage.write_bytes(storage.join(trial.job.folder, "readings.json"), b"[{")
    shelf = trial_files(trial, RESULT)
    assert shelf.missing == ["predictions.tsv"] and "learning_curves.png" in shelf.files
    assert "readings.json: not valid JSON" in caplog.text


def test_no_fault_of_a_picture_gets_out() -> None:
    shelf = Shelf("a")
    shelf.add("one.png", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    shelf.add("two.txt", lambda: "two")
    assert shelf.files == {"two.txt": "two"} and shelf.missing == ["one.png"]


def test_every_line_is_one_row_of_the_table() -> None:
    text = "a\tb\nc\u2028d\re"
    readings = [{"id": "1", "truth": text, "reading": "", "confidence": 0.98765, "edits": 3}]
    assert predictions_table(readings).split("\n")[1:] == ["1\ta b c d e\t\t0.988\t3", ""]
