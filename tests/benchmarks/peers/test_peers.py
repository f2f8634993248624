"""The peers get the lines that we get, and what they print is read rightly: all that a comparison rests on."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from contenders import (
    CONTENDERS,
    REPOSITORY,
    Race,
    kraken_best,
    kraken_validations,
    pylaia_readings,
    pylaia_validations,
)
from cpu_clock import ROOT, cpu_clock
from export import export, read_lines, symbols, text_of, tokens
from hypothesis import given
from hypothesis import strategies as st
from recognition import anywhere
from table import BEGIN, END, over_seeds, put, recognition

from htr_ray.config import RunSettings, load
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.train.data import open_data
from htr_ray.train.job import finetune_job


def test_same_lines_as_ours(sample_corpus: str, tmp_path: Path) -> None:
    """The number and ids of the training lines are those of fine-tuning; images and texts those of the corpus."""
    corpus = Corpus.open(sample_corpus)
    written = export(corpus, tmp_path / "data", 0.1, seed=3)
    settings = load(RunSettings, overrides=["label_fraction=0.1", "seed=3", "stream.cache_mb=0"], environment={})
    ours = open_data(finetune_job(settings, corpus.uri, str(tmp_path / "run"), None)).train
    assert len(written["train"]) == ours.lines == round(0.1 * corpus.info.counts["train"].labelled)
    reached, numbers = ours.reach(np.arange(ours.lines))
    assert {line.id for line in written["train"]} == set(reached.columns(numbers)["id"])
    assert read_lines(tmp_path / "data") == written
    assert len({line.name for lines in written.values() for line in lines}) == sum(map(len, written.values()))

    table = corpus.index("test", columns=("id", "text", "image")).to_pylist()
    assert [(line.id, line.text) for line in written["test"]] == [(row["id"], row["text"]) for row in table]
    kraken, pylaia = tmp_path / "data" / "kraken", tmp_path / "data" / "pylaia"
    listed = [Path(line) for line in (kraken / "test.txt").read_text().splitlines()]
    assert [path.with_suffix(".gt.txt").read_text() for path in listed] == [row["text"] for row in table]
    assert (decode_grey(listed[0].read_bytes()) == decode_grey(table[0]["image"])).all()
    texts = [line.partition(" ")[2] for line in (pylaia / "test.txt").read_text().splitlines()]
    assert [text_of(text) for text in texts] == [row["text"] for row in table]
    assert {decode_grey(path.read_bytes()).shape[0] for path in (pylaia / "48").iterdir()} == {48}
    known = {line.split(" ")[0] for line in (pylaia / "symbols.txt").read_text().splitlines()}
    assert {token for text in texts for token in text.split()} <= known


@given(st.text(st.characters(exclude_categories=("Z", "C"))).map(lambda text: " ".join(text)) | st.just("a b"))
def test_tokens_come_back(text: str) -> None:
    assert text_of(tokens(text)) == text


def test_blank_is_first_symbol() -> None:
    assert symbols(" ab") == "<ctc> 0\n<space> 1\na 2\nb 3\n"


def test_kraken_log() -> None:
    log = (
        "[11/24/26 00:08:25] INFO     validation run: total chars 9514.0 errors 7646.0 accuracy 0.1963   vgsl.py:404\n"
        "                    INFO     something else   vgsl.py:1\n"
        "[11/24/26 00:11:21] INFO     validation run: total chars 9514.0 errors 951.4 accuracy 0.9   vgsl.py:404\n"
    )
    assert kraken_validations(log) == pytest.approx([80.366, 10.0], abs=1e-3)


def test_kraken_best(tmp_path: Path) -> None:
    names = ("checkpoint_00-0.1963", "checkpoint_07-0.3276", "checkpoint_08--0.0100", "checkpoint_abort")
    paths = [tmp_path / f"{name}.ckpt" for name in names]
    for path in paths:
        path.touch()
    assert kraken_best(paths) == paths[1]
    with pytest.raises(SystemExit, match="no checkpoint"):
        kraken_best(paths[-1:])


def test_pylaia_output() -> None:
    said = (
        'Epoch 0, global step 99: Monitor.va_cer reached 0.90000 (best 0.90000), saving model to "a.ckpt" as top 1\n'
        "Metric Monitor.va_cer improved by 0.650 >= min_delta = 0.0. New best score: 0.250\n"
        'Epoch 1, global step 199: va_cer reached 0.25000 (best 0.25000), saving model to "b.ckpt" as top 2\n'
    )
    assert pylaia_validations(said) == [(100, 90.0), (200, 25.0)]
    log = "[2026 INFO laia] Loaded\ntest-000000 a <space> b\ntest-000001 \nGPU available: False\n"
    assert pylaia_readings(log, {"test-000000", "test-000001"}) == {"test-000000": "a b", "test-000001": ""}


def test_own_pretraining_is_paid_from_the_same_minutes(tmp_path: Path) -> None:
    """A third of the minutes without labels, the rest with a tenth of them, from the encoder that the first left."""
    race = Race("corpora/x", tmp_path, tmp_path, tmp_path, 0.1, seed=3, minutes=15, every=1, extra=("preset=small",))
    shell, option, line = CONTENDERS["htr-ray-sorting"].train(race)
    assert (shell, option) == ("/bin/sh", "-c")
    first, second = (shlex.split(command) for command in line.split(" && "))
    assert {"--pretext", "sorting", "pretrain.max_minutes=5", "seed=3", "preset=small"} <= set(first)
    assert {"label_fraction=0.1", "finetune.max_minutes=10", "seed=3", "preset=small"} <= set(second)
    assert not any(word.startswith("label_fraction") for word in first)
    assert second[second.index("--encoder") + 1] == first[first.index("--output") + 1] + "/model"


@pytest.mark.skipif(not os.access(ROOT, os.W_OK), reason="no cgroup v1 to write to")
def test_clock_counts_children_and_stops_them(tmp_path: Path) -> None:
    """A child of the command spins; the command itself only waits."""
    spin = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with cpu_clock() as clock:
        spent = clock.run([sys.executable, "-c", spin], tmp_path / "log", budget=0.5)
        assert spent.exit_code is None
        assert spent.cpu_seconds >= 0.5
        assert clock.run(["/bin/sh", "-c", "exit 3"], tmp_path / "log").exit_code == 3


def test_table_keeps_the_text_around() -> None:
    record = {
        "corpus": "c",
        "label_fraction": 0.1,
        "train_lines": 1234,
        "minutes": 15.0,
        "seed": 0,
        "val_cer": 9.0,
        "test_wer": 20.0,
        "lines_per_cpu_second": 5.0,
        "curve": [{"epochs": 2.0}],
        "cpu_seconds": 900.0,
        "wall_seconds": 901.0,
    }
    made = recognition([{**record, "contender": name, "test_cer": cer} for name, cer in (("b", 12.0), ("a", 11.0))])
    rows = made.splitlines()[2:]
    assert [row.split(" | ")[4:6] for row in rows] == [["a", "11.0"], ["b", "12.0"]]
    assert put(f"before\n{BEGIN}\nold\n{END}\nafter\n", made) == f"before\n{BEGIN}\n\n{made}\n{END}\nafter\n"
    with pytest.raises(SystemExit, match="marks"):
        put("no marks", made)


def test_seeds_of_one_race_are_one_row() -> None:
    common = {"label_fraction": 1.0, "minutes": 15.0, "val_cer": 9.0, "curve": [{"epochs": 2.0}]}

    def run(corpus: str, contender: str, seed: int, cer: float) -> dict[str, object]:
        return {**common, "corpus": corpus, "contender": contender, "seed": seed, "test_cer": cer}

    runs = [run("c", "b", 1, 14.0), run("c", "b", 0, 10.0), run("c", "a", 0, 11.0), run("c", "a", 2, 12.0)]
    rows = [line.split(" | ") for line in over_seeds([*runs, run("d", "a", 0, 5.0)]).splitlines()[2:]]
    assert [(row[3], row[4], row[5]) for row in rows] == [
        ("a", "0, 2", "11.5 (11.0 to 12.0)"),
        ("b", "0, 1", "12.0 (10.0 to 14.0)"),
    ]
    assert over_seeds([run("c", "a", 0, 5.0), {**run("c", "a", 1, 5.0), "minutes": 60.0}]) == ""


@pytest.mark.parametrize("name", ["htr-ray-sorting", "pylaia-small", "kraken-small"])
def test_a_command_is_told_without_folders_of_this_machine(tmp_path: Path, name: str) -> None:
    places = {key: tmp_path / key for key in ("data", "work", "environments")}
    race = Race(corpus=f"{tmp_path}/corpora/c", label_fraction=1.0, seed=0, minutes=1.0, every=1.0, **places)
    told = anywhere(shlex.join(CONTENDERS[name].train(race)), race)
    assert told.startswith(("/bin/sh -c 'python jobs/pretrain.py --corpus CORPUS_URI", "PEERS/")) and "W/" in told
    assert not any(place in told for place in (str(tmp_path), sys.executable, str(REPOSITORY)))
