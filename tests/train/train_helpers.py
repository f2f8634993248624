"""Small jobs for this folder's tests: seconds on one core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from htr_ray.config import RunSettings, load
from htr_ray.train.job import Job, finetune_job, pretrain_job

SMALL = [
    "preset=tiny",
    "model.height=32",
    "model.channels=16",
    "model.lstm_hidden=16",
    "model.dropout=0",
    "model.transformer={dim: 16, layers: 1, heads: 2, feedforward: 32, dropout: 0}",
    "pretrain={batch_size: 32, precision: float32}",
    "finetune={batch_size: 32, precision: float32, min_steps_per_epoch: 1}",
]
PLAIN = [f"augment.{name}.probability=0" for name in ("geometric", "colour", "blur", "noise", "morphological")]


def settings(*overrides: str) -> RunSettings:
    return load(RunSettings, overrides=[*SMALL, *overrides], environment={})


def finetuning(corpus: str, folder: object, *overrides: str, encoder: str | None = None) -> Job:
    return finetune_job(settings(*overrides), corpus, str(folder), encoder)


def pretraining(corpus: str, folder: object, *overrides: str, pretext: Any = "flip") -> Job:
    return pretrain_job(settings(*overrides), corpus, str(folder), pretext)


def into(reports: list[dict[str, Any]], after: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """A report callback that keeps the figures of finished epochs."""

    def report(figures: dict[str, Any]) -> None:
        if figures["epoch_end"]:
            reports.append(figures)
            if after is not None:
                after(figures)

    return report


def losses(result: dict[str, Any]) -> list[float]:
    return [entry["train_loss"] for entry in result["history"]]
