"""The jobs as a person runs them: in a process of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Line
from htr_ray.corpus.write import CorpusWriter
from htr_ray.model.files import load_recognizer

ROOT = Path(__file__).resolve().parents[2]
JOBS = ["full_grid", "pretrain", "finetune", "prepare_data"]
NETWORK = ["preset=tiny", "model.channels=16", "model.lstm_hidden=16"]
TINY = [*NETWORK, "finetune.max_epochs=1", "finetune.min_steps_per_epoch=1", "pretrain.max_epochs=1"]


def job(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``jobs/NAME.py`` with a Ray of its own, whatever else runs on this machine."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HTR_RAY_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "RAY_ADDRESS": "local", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("name", JOBS)
def test_help_explains_with_examples(name: str) -> None:
    done = job(name, "--help")
    assert done.returncode == 0
    assert re.search(rf"python jobs/{name}\.py --?\w", done.stdout), "no example"
    assert "--json FILE" in done.stdout
    if name != "prepare_data":
        assert "key=value" in done.stdout
        for setting in ("model.height = ", "finetune.max_minutes = ", "stream.cache_mb = "):
            assert setting in done.stdout


NEEDED = {
    "full_grid": [],
    "pretrain": ["--corpus", "c", "--pretext", "flip", "--output", "o"],
    "finetune": ["--corpus", "c", "--output", "o"],
}


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_an_unknown_setting_is_explained(name: str) -> None:
    done = job(name, *NEEDED[name], "finetune.max_epoch=3")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: settings:\n  finetune.max_epoch (command line): unknown setting; did you mean"
    )
    assert "finetune.max_epochs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["full_grid", "finetune"])
def test_a_missing_corpus_is_explained(name: str, tmp_path: Path) -> None:
    where = tmp_path / "nothing"
    arguments = [f"corpora=[{where}]"] if name == "full_grid" else ["--corpus", where, "--output", tmp_path / "out"]
    done = job(name, *arguments)
    assert done.returncode == 2
    assert f"error: {where}: no corpus here" in done.stderr
    assert "make one with: python jobs/prepare_data.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_grid_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    done = job("full_grid", "--resume", "nope", f"storage={tmp_path}")
    assert done.returncode == 2
    assert "--resume nope: no grid of that name" in done.stderr


@pytest.fixture(scope="module")
def flawed_corpus(sample_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve lines of each split of the sample: one image that cannot be decoded, one text beyond the alphabet."""
    source = Corpus.open(sample_corpus)
    uri = str(tmp_path_factory.mktemp("flawed") / "flawed")
    with CorpusWriter(uri, "flawed") as writer:
        for split in SPLITS:
            rows = source.read_row_group(source.files(split)[0], 0).slice(0, 12).to_pylist()
            for number, row in enumerate(rows):
                if split == "train" and number == 0:
                    row |= {"id": "broken-image", "image": row["image"][:40]}
                if split == "train" and number == 1:
                    row |= {"id": "foreign-text", "text": "ab\u0416"}
                writer.add(Line(**row), split)
    # As after a merge by hand: the text is there, the alphabet does not know of it.
    file = Path(uri) / "corpus.json"
    about = json.loads(file.read_text())
    about["alphabet"] = about["alphabet"].replace("\u0416", "")
    file.write_text(json.dumps(about))
    return uri


def test_pretrain_then_finetune(flawed_corpus: str, tmp_path: Path) -> None:
    encoder, output = tmp_path / "encoder", tmp_path / "recognizer"
    first = job(
        *("pretrain", "--corpus", flawed_corpus, "--pretext", "flip", "--output", encoder),
        *("--json", tmp_path / "pretrain.json", *TINY),
    )
    assert first.returncode == 0, first.stderr
    assert re.search(r"^epoch 0: train_loss \d", first.stdout, re.M)
    said = r"% right on held-out lines \(guessing: 25.0 %\); 1 epochs, \d\.\d min; encoder: "
    assert re.search(said + re.escape(f"{encoder}/model"), first.stdout)
    told = json.loads((tmp_path / "pretrain.json").read_text())
    assert told["asked"]["pretext"] == "flip"
    assert told["result"]["unreadable"] == ["broken-image: not an image"]
    assert told["seconds"] > 0
    assert "1 unreadable line(s) were left out: broken-image: not an image" in first.stdout

    arguments = ["--corpus", flawed_corpus, "--encoder", f"{encoder}/model", "--output", output, *TINY]
    second = job("finetune", *arguments, "label_fraction=1.0")
    assert second.returncode == 0, second.stderr
    assert re.search(r"^test CER \d+\.\d\d %, WER \d+\.\d\d % on 12 lines", second.stdout, re.M)
    assert "1 unreadable line(s) were left out: broken-image: not an image" in second.stdout
    assert "foreign-text: \u0416" in second.stderr
    result = json.loads((output / "result.json").read_text())
    assert (result["lines"], result["epochs"], result["set_aside"]) == (11, 1, ["foreign-text: \u0416"])
    assert load_recognizer(output / "model").settings.channels == 16
    assert not list(output.glob("checkpoint*"))

    again = job("finetune", *arguments, "--json", tmp_path / "again.json")
    assert again.returncode == 0
    assert "is finished already" in again.stdout
    assert json.loads((tmp_path / "again.json").read_text())["result"]["test_cer"] == result["test_cer"]


def test_a_grid_and_its_resumption_by_name(sample_corpus: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    place = f"storage={tmp_path / 'runs'}"
    axes = [f"corpora=[{sample_corpus}]", "pretexts=[none]", "decoders=[ctc]", "label_fractions=[1.0]", "name=small"]
    planned = job("full_grid", "--dry-run", *axes, place, *TINY)
    assert planned.returncode == 0, planned.stderr
    assert "Grid 'small': 1 trials, 0 already done" in planned.stdout
    assert not (tmp_path / "runs").exists()

    done = job("full_grid", *axes, place, *TINY, "--json", out)
    assert done.returncode == 0, done.stderr
    assert "Started a local Ray" in done.stdout and "Grid 'small': test CER / WER in percent" in done.stdout
    result = json.loads(out.read_text())["result"]
    assert [row["state"] for row in result["rows"]] == ["done"]
    assert (tmp_path / "runs" / "mlflow.db").exists()

    resumed = job("full_grid", "--resume", "small", place, "--json", out)
    assert resumed.returncode == 0, resumed.stderr
    assert "Grid 'small': 1 trials, 1 already done" in resumed.stdout
    assert json.loads(out.read_text())["result"]["rows"] == result["rows"]
