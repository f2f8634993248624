"""What of a trial becomes a curve in MLflow, and what does not."""

from __future__ import annotations

from pathlib import Path

from grid_on_disk import write_grid

from htr_ray.sweep.cells import expand
from htr_ray.sweep.record import ending, epoch_metrics
from htr_ray.sweep.results import read_settings


def test_what_never_changes_is_no_metric(tmp_path: Path) -> None:
    trials = expand(read_settings(write_grid(tmp_path, "pretexts=[flip]", "label_fractions=[1.0]", lines=8)))
    found = {trial.stage: ending(trial) for trial in trials}
    assert set(found["finetune"].metrics) == {
        *("test_cer", "test_wer", "val_cer", "val_wer", "lines", "test_lines", "minutes"),
    }
    assert found["finetune"].tags == {"parameters": "700000", "gflops": "0.5"}
    # The registry compares encoders by how far they are above chance.
    assert set(found["pretrain"].metrics) == {"val_accuracy", "chance", "lines", "minutes"}
    assert found["pretrain"].tags == {}


def test_an_epoch_shows_its_curves() -> None:
    curves = {"train_loss": 1.0, "val_cer": 50.0, "learning_rate": 0.1, "waiting_share": 0.1, "system/cpu": 5.0}
    told = {**curves, "epoch": 3, "best": 40.0, "progress": 0.5, "seconds": 9.0, "epoch_end": True}
    assert epoch_metrics(told) == curves
