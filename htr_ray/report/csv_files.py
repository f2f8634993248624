"""The report's numbers for spreadsheets and scripts, unrounded: one row per cell, trial and comparison."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from htr_ray.report.analysis import Analysis
from htr_ray.report.statistics import Interval, Labels

_PLACE = ["corpus", "protocol", "decoder", "label_fraction", "pretext"]


def cells_csv(made: Analysis) -> bytes:
    """One row per cell: means over seeds, intervals, the comparison with none, labels saved, cost."""
    costs = {(cost.place, cost.pretext): cost for cost in made.costs}
    savings = {(saving.place, saving.pretext): saving for saving in made.savings}
    rows = []
    for (place, pretext), cell in made.cells.items():
        comparison = made.comparison(place, pretext)
        cost, saving = costs.get((place, pretext)), savings.get((place, pretext))
        rows.append(
            {
                **dict(zip(_PLACE, [*place, pretext], strict=True)),
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
                "pretrain_minutes": cost and cost.pretrain_minutes,
                "finetune_minutes": cost and cost.finetune_minutes,
                "gpu_hours": cost and cost.gpu_hours,
                "parameters": cost and cost.parameters,
                "gflops": cost and cost.gflops,
            }
        )
    return _csv(rows)


def trials_csv(made: Analysis) -> bytes:
    """One row per trial, pre-trainings included."""
    figures = [
        "test_cer",
        "test_wer",
        "test_gcer",
        "val_cer",
        "val_wer",
        "val_accuracy",
        "chance",
        "lines",
        "test_lines",
    ]
    figures += ["epochs", "best_epoch", "minutes", "stopped", "lines_per_second", "parameters", "gflops"]
    return _csv(
        {
            "key": trial.key,
            "stage": trial.stage,
            **dict(zip(_PLACE, _coordinates(trial), strict=True)),
            "seed": trial.seed,
            "state": trial.state,
            **{name: trial.result.get(name) for name in figures},
            "gpus": trial.gpus,
            "failure": trial.failure,
        }
        for trial in made.grid.trials
    )


def comparisons_csv(made: Analysis) -> bytes:
    """One row per test."""
    return _csv(
        {
            **{key: value for key, value in vars(comparison).items() if key != "interval"},
            **_ends("difference", comparison.interval),
            "verdict": comparison.verdict,
        }
        for comparison in made.comparisons
    )


def _coordinates(trial: Any) -> list[Any]:
    return [trial.corpus, trial.protocol, trial.decoder, trial.label_fraction, trial.pretext]


def _ends(name: str, ends: Interval | None) -> dict[str, float | None]:
    return {f"{name}_low": ends.low if ends else None, f"{name}_high": ends.high if ends else None}


def _labels(labels: Labels) -> str:
    sign = {"measured": "", "more": ">", "fewer": "<"}[labels.kind]
    return f"{sign}{labels.labels:.0f}"


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """RFC 4180, UTF-8; what is not known is empty."""
    found: Sequence[Mapping[str, Any]] = list(rows)
    sink = io.StringIO(newline="")
    if found:
        writer = csv.DictWriter(sink, list(found[0]))
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in found)
    return sink.getvalue().encode()


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value
