"""The report's numbers for spreadsheets and scripts, unrounded: one row per cell, trial and comparison."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from htr_ray.report.analysis import Analysis
from htr_ray.report.comparisons import Comparison, with_none
from htr_ray.report.statistics import Interval, Labels
from htr_ray.storage import redacted

_PLACE = ["corpus", "protocol", "decoder", "label_fraction", "pretext"]
_COSTS = ["pretrain_minutes", "finetune_minutes", "gpu_hours", "parameters", "gflops"]
_FIGURES = [
    "test_cer",
    "test_wer",
    "test_gcer",
    "val_cer",
    "val_wer",
    "val_accuracy",
    "chance",
    "lines",
    "test_lines",
    "epochs",
    "best_epoch",
    "minutes",
    "stopped",
    "lines_per_second",
    "parameters",
    "gflops",
]
# Scripts rely on the names, also where a grid has no rows.
_CELLS = [
    *_PLACE,
    *["labels", "seeds_done", "seeds_failed", "seeds_missing"],
    *["test_cer", "test_cer_low", "test_cer_high", "test_cer_by_writer_low", "test_cer_by_writer_high"],
    *["test_wer", "test_wer_low", "test_wer_high", "val_cer", "lowest_of_row"],
    *["difference_to_none", "difference_to_none_low", "difference_to_none_high", "p", "p_corrected", "verdict"],
    *["equals_labels_from_scratch", "equals_labels_low", "equals_labels_high"],
    *_COSTS,
]
_TRIALS = ["key", "stage", *_PLACE, "seed", "state", *_FIGURES, "gpus", "failure"]
_COMPARISONS = [field.name for field in fields(Comparison) if field.name != "interval"]
_COMPARISONS += ["difference_low", "difference_high", "verdict"]


def cells_csv(made: Analysis) -> bytes:
    """One row per cell: means over seeds, intervals, the comparison with none, labels saved, cost."""
    costs = {(cost.place, cost.pretext): cost for cost in made.costs}
    savings = {(saving.place, saving.pretext): saving for saving in made.savings}
    compared = with_none(made.comparisons)
    rows = []
    for key, cell in made.cells.items():
        comparison, cost, saving = compared.get(key), costs.get(key), savings.get(key)
        rows.append(
            {
                **dict(zip(_PLACE, [*cell.place, cell.pretext], strict=True)),
                "labels": cell.labels,
                "seeds_done": len(cell.done),
                "seeds_failed": len(cell.failed),
                "seeds_missing": len(cell.missing),
                "test_cer": cell.cer,
                **_ends("test_cer", cell.cer_interval),
                **_ends("test_cer_by_writer", cell.cer_by_writer),
                "test_wer": cell.wer,
                **_ends("test_wer", cell.wer_interval),
                "val_cer": cell.val_cer,
                "lowest_of_row": cell.best,
                "difference_to_none": comparison and comparison.difference,
                **_ends("difference_to_none", comparison.interval if comparison else None),
                "p": comparison and comparison.p,
                "p_corrected": comparison and comparison.p_corrected,
                "verdict": comparison and comparison.verdict,
                "equals_labels_from_scratch": saving and _labels(saving.equal),
                "equals_labels_low": saving and _labels(saving.low),
                "equals_labels_high": saving and _labels(saving.high),
                **{name: getattr(cost, name, None) for name in _COSTS},
            }
        )
    return _csv(_CELLS, rows)


def trials_csv(made: Analysis) -> bytes:
    """One row per trial, pre-trainings included."""
    return _csv(
        _TRIALS,
        (
            {
                "key": trial.key,
                "stage": trial.stage,
                **dict(zip(_PLACE, _coordinates(trial), strict=True)),
                "seed": trial.seed,
                "state": trial.state,
                **{name: trial.result.get(name) for name in _FIGURES},
                "gpus": trial.gpus,
                "failure": trial.failure and redacted(trial.failure),
            }
            for trial in made.grid.trials
        ),
    )


def comparisons_csv(made: Analysis) -> bytes:
    """One row per test."""
    return _csv(
        _COMPARISONS,
        (
            {
                **{key: value for key, value in vars(comparison).items() if key != "interval"},
                **_ends("difference", comparison.interval),
                "verdict": comparison.verdict,
            }
            for comparison in made.comparisons
        ),
    )


def _coordinates(trial: Any) -> list[Any]:
    return [trial.corpus, trial.protocol, trial.decoder, trial.label_fraction, trial.pretext]


def _ends(name: str, ends: Interval | None) -> dict[str, float | None]:
    return {f"{name}_low": ends.low if ends else None, f"{name}_high": ends.high if ends else None}


def _labels(labels: Labels) -> str:
    sign = {"measured": "", "more": ">", "fewer": "<"}[labels.kind]
    return f"{sign}{labels.labels:.0f}"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """RFC 4180, UTF-8, the names of ``columns`` above (also of no rows); what is not known is empty."""
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, columns)
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return sink.getvalue().encode()


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value
