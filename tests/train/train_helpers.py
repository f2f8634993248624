"""Small jobs for this folder's tests: seconds on one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from htr_ray.config import RunSettings, load
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Line
from htr_ray.corpus.write import CorpusWriter
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


Change = Callable[[str, int, dict[str, Any]], dict[str, Any]]
"""``(split, number, row)`` -> the row as it is to be."""


def changed_copy(uri: str, target: Path, change: Change) -> str:
    """A corpus with other rows."""
    corpus = Corpus.open(uri)
    with CorpusWriter(str(target), "changed") as writer:
        for split in SPLITS:
            rows = [row for file in corpus.files(split) for row in corpus.read_row_group(file, 0).to_pylist()]
            for number, row in enumerate(rows):
                writer.add(Line(**change(split, number, row)), split)
    return str(target)


def damage(lines: int, splits: Sequence[str] = SPLITS) -> Change:
    """The first lines of each split have files that were cut off, and the split and a number for a name."""

    def change(split: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
        if number >= lines or split not in splits:
            return row
        return row | {"id": f"{split}-{number}", "image": row["image"][:40]}

    return change


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
