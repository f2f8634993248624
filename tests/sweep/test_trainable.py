"""What a trial does with results that are there already, and with errors that may pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray import tune

from htr_ray import storage
from htr_ray.config import RunSettings, load
from htr_ray.sweep import trainable
from htr_ray.train import launch
from htr_ray.train.job import Job, finetune_job

# A trial asks Ray for its place, and Ray would start one of its own, which nobody shuts down.
pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return finetune_job(load(RunSettings, environment={}), str(tmp_path / "corpus"), str(tmp_path / "trial"), None)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", found.append)
    monkeypatch.setattr(trainable, "PAUSE_SECONDS", 0.0)
    return found


def test_a_trial_that_died_after_its_result_is_not_trained_again(job: Job, reports: list[dict[str, Any]]) -> None:
    """There is no corpus: training would fail. What the dead process could not delete any more is deleted."""
    storage.write_json(storage.join(job.folder, "result.json"), {"test_cer": 3.5, "history": [{"epoch": 0}]})
    storage.write_bytes(storage.join(job.folder, "checkpoint-00001-0a1b2c3d", "state.json"), b"{}")
    trainable.run_trial({"key": "k", "job": job.model_dump(mode="json")}, gpus=0.0)
    assert reports == [{"finished": True, "epoch_end": False, "progress": 1.0, "result": {"test_cer": 3.5}}]
    assert storage.walk(job.folder) == ["result.json"]


@pytest.mark.parametrize("fault", [storage.Unavailable("s3://b: away"), storage.DiskFull("/d: full")])
def test_what_may_pass_is_left_to_tune_to_try_again(
    job: Job, reports: list[dict[str, Any]], fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "run_here", _raising(fault))
    with pytest.raises(storage.MayPass):
        trainable.run_trial({"key": "k", "job": job.model_dump(mode="json")}, gpus=0.0)
    assert reports == []


def test_what_the_user_must_cure_is_told_once(job: Job, reports: list[dict[str, Any]]) -> None:
    trainable.run_trial({"key": "k", "job": job.model_dump(mode="json")}, gpus=0.0)
    assert len(reports) == 1 and "no corpus here" in reports[0]["failure"]


def _raising(error: Exception) -> Any:
    def run_here(*_: object) -> dict[str, Any]:
        raise error

    return run_here
