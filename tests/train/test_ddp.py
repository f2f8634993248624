"""Ray Train worker groups: the number of workers changes nothing, nor does the death of one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.cloudpickle
from ray.train import UserCallback
from train_helpers import PLAIN, changed_copy, damage, finetuning, into, losses

from htr_ray import storage
from htr_ray.corpus.read import Corpus
from htr_ray.errors import UserError
from htr_ray.model.files import load_recognizer
from htr_ray.train.data import FinetuneData, open_data
from htr_ray.train.fit import EvalBatches
from htr_ray.train.launch import run_group, run_here
from htr_ray.train.single import run_single
from htr_ray.train.worker import Worker

pytestmark = pytest.mark.usefixtures("ray_local")

# Ray's processes do not find this folder: send them the classes, not their names.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# At higher rates rounding errors grow too fast for a comparison of the third epoch.
OPTIONS = [*PLAIN, "finetune.max_epochs=3", "finetune.learning_rate=0.001", "model.sync_batchnorm=true"]


@pytest.fixture(scope="module")
def alone(sample_corpus: str, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of one worker."""
    return run_here(finetuning(sample_corpus, tmp_path_factory.mktemp("alone"), *OPTIONS), into([]))


class Keep(UserCallback):
    """Writes down what was reported (Ray Train runs callbacks in a process of its own)."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        with self.file.open("a") as stream:
            stream.write(f"{len(metrics)} {metrics[0]['epoch']}\n")


class KillOnce(Keep):
    """Kills a training worker of this Ray, once, when the second epoch is reported."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        super().after_report(run_context, metrics, checkpoint)
        flag = self.file.with_suffix(".killed")
        if metrics[0]["epoch"] == 1 and not flag.exists():
            import psutil

            # Siblings of this process belong to the same raylet: no other Ray of the machine is meant.
            raylet = psutil.Process().parent()
            workers = [p for p in raylet.children() if "RayTrainWorker" in " ".join(p.cmdline())]
            flag.write_text(str(len(workers)))
            os.kill(workers[-1].pid, signal.SIGKILL)


def test_two_workers_learn_the_same_as_one(sample_corpus: str, alone: dict[str, Any], tmp_path: Path) -> None:
    """Same global batch, batch statistics over both workers: the same losses and error rates."""
    job = finetuning(sample_corpus, tmp_path / "run", *OPTIONS, "finetune.workers=2")
    log = tmp_path / "log"
    result = run_group(job, gpus_per_worker=0, name="two", callbacks=[Keep(log)])
    assert log.read_text().split("\n")[:-1] == ["2 0", "2 1", "2 2"]
    assert losses(result) == pytest.approx(losses(alone), rel=1e-3)
    for figure in ("val_cer", "test_cer"):
        assert result[figure] == pytest.approx(alone[figure], abs=4.0)  # of 240 characters
    assert result["lines"] == alone["lines"] and result["test_lines"] == alone["test_lines"]
    readings = storage.read_json(storage.join(job.folder, "readings.json"))
    assert len({reading["id"] for reading in readings}) == len(readings) == alone["test_lines"]


def test_killed_worker(sample_corpus: str, alone: dict[str, Any], tmp_path: Path) -> None:
    """The group starts again at the checkpoint and ends where an undisturbed run ends."""
    job = finetuning(sample_corpus, tmp_path / "run", *OPTIONS, "finetune.workers=2", "finetune.checkpoint_minutes=0")
    log = tmp_path / "log"
    result = run_group(job, gpus_per_worker=0, name="killed", callbacks=[KillOnce(log)])
    assert (tmp_path / "log.killed").read_text() == "2"
    epochs = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert epochs[:2] == [0, 1] and epochs[-1] == 2
    assert epochs.count(0) == 1, "it must not begin anew"
    assert [entry["epoch"] for entry in result["history"]] == [0, 1, 2]
    assert losses(result) == pytest.approx(losses(alone), rel=1e-3)


def test_a_group_that_starts_again_after_its_result_trains_no_more(sample_corpus: str, tmp_path: Path) -> None:
    """As when the node of a worker that is done goes while rank 0 stores the result."""
    job = finetuning(sample_corpus, tmp_path / "run", *OPTIONS, "finetune.workers=2")
    storage.write_json(storage.join(job.folder, "result.json"), {"test_cer": 12.5})
    (tmp_path / "run" / "checkpoint-00003-0123abcd").mkdir()
    log = tmp_path / "log"
    assert run_group(job, gpus_per_worker=0, name="again", callbacks=[Keep(log)]) == {"test_cer": 12.5}
    assert not log.exists() and not list((tmp_path / "run").glob("checkpoint-*"))


def test_figures_and_unreadable_lines_are_those_of_all_workers(sample_corpus: str, tmp_path: Path) -> None:
    """Also where each has batch statistics of its own: the figures are those of the model that is stored."""
    corpus = changed_copy(sample_corpus, tmp_path / "corpus", damage(7))
    job = finetuning(
        corpus,
        tmp_path / "run",
        *(*OPTIONS, "finetune.workers=2", "finetune.max_epochs=2", "model.sync_batchnorm=false", "stream.cache_mb=0"),
    )
    result = run_group(job, gpus_per_worker=0, name="own", callbacks=[])
    named = sorted(name.split(":")[0] for name in result["unreadable"])
    assert named == [f"{split}-{number}" for split in ("test", "train", "val") for number in range(7)]
    stored = load_recognizer(tmp_path / "run" / "model")
    readings = {line["id"]: line["reading"] for line in storage.read_json(storage.join(job.folder, "readings.json"))}
    data = open_data(job)
    assert isinstance(data, FinetuneData)
    for batch in EvalBatches(data.test, data.plain_recipe, job.stream, Worker()):
        found = [line.text for line in stored.read(batch["images"], batch["widths"], None)]
        assert found == [readings.get(line_id, text) for line_id, text in zip(batch["ids"], found, strict=True)]
    assert len(readings) == result["test_lines"] == Corpus.open(corpus).info.counts["test"]["lines"] - 7


def test_single_stage_returns_a_finished_result(
    sample_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``jobs/finetune.py`` on one worker: a line per epoch; the second time nothing is trained."""
    job = finetuning(sample_corpus, tmp_path, "finetune.max_epochs=1")
    result = run_single(job)
    printed = capsys.readouterr().out
    assert "epoch 0: train_loss" in printed and "val_cer" in printed
    assert "history" not in result and result["epochs"] == 1
    assert run_single(job) == result
    assert "finished already" in " ".join(capsys.readouterr().out.split())


def test_more_workers_than_lines(sample_corpus: str, tmp_path: Path) -> None:
    """Said before any worker is started."""
    lines = Corpus.open(sample_corpus).info.counts["val"]["lines"]
    job = finetuning(sample_corpus, tmp_path, f"finetune.workers={lines + 1}", "finetune.batch_size=4096")
    with pytest.raises(UserError, match="lower 'workers'"):
        run_group(job, gpus_per_worker=0, name="many", callbacks=[])
