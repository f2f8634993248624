"""jobs/transcribe.py as a person runs it: in a process of its own, killed, resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from htr_ray.config import ModelSettings, TransformerSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.read import Corpus
from htr_ray.model.files import save_recognizer
from htr_ray.model.recognizer import Recognizer

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "jobs" / "transcribe.py")


def environment() -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("HTR_RAY_", "MLFLOW_"))}
    return {**own, "RAY_ADDRESS": "local", "COLUMNS": "200"}


def job(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, JOB, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    transformer = TransformerSettings(dim=16, layers=1, heads=2, feedforward=16)
    settings = ModelSettings(height=32, channels=16, lstm_hidden=8, max_width=512, transformer=transformer)
    recognizer = Recognizer(settings, "ctc", Alphabet("abcdefghijklmnopqrstuvwxyz "))
    with torch.no_grad():
        recognizer.decoder.linear.weight *= 20
    save_recognizer(folder, recognizer)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(60):
        image = np.full((48, 300), 220, np.uint8)
        cv2.putText(image, f"line {number}", (6, 34), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.0, 30, 2, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
        (folder / f"{number:03d}.gt.txt").write_text(f"line {number}")
    return folder


def test_help_explains_with_examples() -> None:
    done = job("--help")
    assert done.returncode == 0
    assert re.search(r"python jobs/transcribe\.py --model", done.stdout) and "--json FILE" in done.stdout
    for setting in ("beam = null", "language_text = null", "existing = replace", "part_lines = 256"):
        assert setting in done.stdout


def test_a_split_of_a_corpus(model: Path, sample_corpus: str, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = job(
        *("--model", model, "--input", sample_corpus, "--output", tmp_path / "out", "--split", "test"),
        *("--json", told, "batch_size=8"),
    )
    assert done.returncode == 0, done.stderr
    lines = Corpus.open(sample_corpus).info.counts["test"].lines
    assert re.search(rf"^{lines} lines: {lines} read, 0 unreadable$", done.stdout, re.M)
    assert re.search(rf"^CER \d+\.\d\d %, WER \d+\.\d\d % on {lines} lines$", done.stdout, re.M)
    assert re.search(rf"^  test: CER \d+\.\d\d %, WER \d+\.\d\d % on {lines} lines$", done.stdout, re.M)
    result = json.loads(told.read_text())["result"]
    assert result["read"] == lines and result["cer"] > 0
    assert "Started a local Ray" not in done.stdout, "a few lines need no Ray"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--model": "models:/nothing"}, "error: --model models:/nothing: "),
        ({"--model": "/nowhere"}, "error: --model /nowhere: no model.json there"),
        ({"--input": "/nowhere"}, "error: --input /nowhere: not found"),
        ({"--format": "odd"}, "error: --format odd: unknown; use one of corpus, parquet"),
        ({"beams=4": ""}, "error: settings:\n  beams (command line): unknown setting; did you mean beam"),
        ({"part_lines=0": ""}, "error: settings:\n  part_lines = 0 (command line): input should be greater"),
    ],
)
def test_mistakes_are_explained(model: Path, images: Path, tmp_path: Path, change: dict[str, str], told: str) -> None:
    asked = {"--model": str(model), "--input": str(images), "--output": str(tmp_path / "out"), **change}
    done = job(*[word for pair in asked.items() for word in pair if word])
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_killed_run_goes_on_where_it_stopped(model: Path, images: Path, tmp_path: Path) -> None:
    # A wide beam makes reading slow enough to be killed in the middle of it.
    arguments = ["--model", model, "--input", images, "part_lines=5", "beam=24", "precision=float32"]
    parts = tmp_path / "out" / "lines"
    process = subprocess.Popen(
        [sys.executable, JOB, *map(str, arguments), "--output", str(tmp_path / "out")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not (parts.is_dir() and len(list(parts.glob("part-*"))) >= 3):
            assert process.poll() is None and time.monotonic() < deadline, "no parts appeared"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    assert 3 <= len(kept) < 12 and not (tmp_path / "out" / "transcription.json").exists()

    done = job(*arguments, "--output", tmp_path / "out", "--json", tmp_path / "told.json")
    assert done.returncode == 0, done.stderr
    assert f"; {5 * len(kept)} lines were finished before" in done.stdout
    result = json.loads((tmp_path / "told.json").read_text())["result"]
    assert (result["read"], result["resumed_lines"], result["parts"]) == (60, 5 * len(kept), 12)
    now = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert len(now) == 12 and {name: now[name] for name in kept} == kept

    whole = job(*arguments, "--output", tmp_path / "whole", "--json", tmp_path / "whole.json")
    assert whole.returncode == 0
    assert (tmp_path / "out/lines.tsv").read_bytes() == (tmp_path / "whole/lines.tsv").read_bytes()
    assert json.loads((tmp_path / "whole.json").read_text())["result"]["cer"] == result["cer"]

    again = job(*arguments, "--output", tmp_path / "out")
    assert again.returncode == 0 and "finished already" in again.stdout
