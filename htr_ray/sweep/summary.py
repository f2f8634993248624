"""The summary of a grid: one row per cell, mean over seeds, as a table, Markdown and CSV."""

from __future__ import annotations

import statistics
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from htr_ray.sweep.cells import Trial
from htr_ray.sweep.searches import Searches
from htr_ray.sweep.wording import duration
from htr_ray.train.job import left_out

COLUMNS = [
    "corpus",
    "protocol",
    "decoder",
    "label_fraction",
    "pretext",
    "seed",
    "test_cer",
    "test_wer",
    "test_gcer",
    "val_cer",
    "val_accuracy",
    "lines",
    "epochs",
    "minutes",
    "state",
    "key",
]


def rows(trials: list[Trial], results: dict[str, dict[str, Any]], failed: dict[str, str]) -> list[dict[str, Any]]:
    """One row per trial, pre-trainings included; ``state`` is done, failed or missing."""
    table = []
    for trial in trials:
        result = results.get(trial.key, {})
        state = "done" if result else "failed" if trial.key in failed else "missing"
        row: dict[str, Any] = {name: result.get(name) for name in COLUMNS}
        row |= {
            "stage": trial.stage,
            "corpus": trial.corpus,
            "pretext": trial.pretext,
            "seed": trial.job.seed,
            "protocol": trial.job.protocol,
            "decoder": trial.job.decoder,
            "label_fraction": trial.job.label_fraction,
            "state": state,
            "key": trial.key,
            "chance": result.get("chance"),
            "failure": failed.get(trial.key),
        }
        table.append(row)
    return table


def left_out_lines(trials: list[Trial], results: dict[str, dict[str, Any]]) -> list[str]:
    """Lines that some trial had to leave out, by corpus, for printing."""
    told = []
    for corpus in dict.fromkeys(trial.corpus for trial in trials):
        mine = [results[trial.key] for trial in trials if trial.corpus == corpus and trial.key in results]
        names = [
            list(dict.fromkeys(name for result in mine for name in result.get(kind) or []))
            for kind in ("unreadable", "set_aside")
        ]
        told += [f"{corpus}: {text}" for text in left_out(*names)]
    return told


def search_lines(searches: Searches) -> list[str]:
    """What the searches among hyperparameters chose, and what ending choices early saved, for printing."""
    told = searches.notes()
    minutes, more = searches.saved()
    if more:
        told.append(
            f"choices that fell behind ended early: {duration(60 * minutes)} instead of about "
            f"{duration(60 * (minutes + more))} at their own pace, {100 * more / (minutes + more):.0f} % less"
        )
    return told


def ranking(table: list[dict[str, Any]], corpus: str) -> list[dict[str, Any]]:
    """The recognizers of a corpus, lowest validation CER first (test chooses nothing)."""
    mine = [r for r in table if r["corpus"] == corpus and r["stage"] == "finetune" and r["state"] == "done"]
    return sorted(mine, key=lambda row: row["val_cer"])


def encoders(table: list[dict[str, Any]], corpus: str) -> list[dict[str, Any]]:
    """The best encoder of each pretext task on a corpus, by its accuracy on validation lines."""
    best: dict[str, dict[str, Any]] = {}
    for row in table:
        if row["corpus"] == corpus and row["stage"] == "pretrain" and row["state"] == "done":
            standing = best.setdefault(row["pretext"], row)
            if (row["val_accuracy"] or 0.0) > (standing["val_accuracy"] or 0.0):
                best[row["pretext"]] = row
    return list(best.values())


def _cells(table: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Fine-tunings by cell, in the order of the grid."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in table:
        if row["stage"] == "finetune":
            place = (row["corpus"], row["protocol"], row["decoder"], row["label_fraction"])
            cells.setdefault((*place, row["pretext"]), []).append(row)
    return cells


def _mean(group: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in group if row[name] is not None]
    return statistics.fmean(values) if values else None


def _pivot(table: list[dict[str, Any]]) -> tuple[list[str], dict[tuple[Any, ...], dict[str, str]]]:
    """Texts "CER/WER" by (corpus, protocol, decoder, fraction) and pretext; the best CER of a line is starred."""
    cells = _cells(table)
    pretexts = list(dict.fromkeys(key[-1] for key in cells))
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    lowest: dict[tuple[Any, ...], float] = {}
    for key, group in cells.items():
        cer = _mean(group, "test_cer")
        if cer is not None:
            lowest[key[:-1]] = min(cer, lowest.get(key[:-1], float("inf")))
    for key, group in cells.items():
        cer, wer = _mean(group, "test_cer"), _mean(group, "test_wer")
        if cer is None or wer is None:
            text = "failed" if any(row["state"] == "failed" for row in group) else "-"
        else:
            spread = [row["test_cer"] for row in group if row["test_cer"] is not None]
            text = f"{cer:.1f}" + (f"±{statistics.stdev(spread):.1f}" if len(spread) > 1 else "") + f"/{wer:.1f}"
            text = f"{text}*" if cer == lowest[key[:-1]] else text
        lines.setdefault(key[:-1], {})[key[-1]] = text
    # Trials come in the order in which they run, longest first; people compare fractions of one decoder.
    order = [list(dict.fromkeys(key[axis] for key in lines)) for axis in range(3)]
    places = sorted(lines, key=lambda key: (*(order[axis].index(key[axis]) for axis in range(3)), key[3]))
    return pretexts, {place: lines[place] for place in places}


def tables(name: str, table: list[dict[str, Any]], seconds: float) -> Group:
    """The summary for a terminal."""
    pretexts, lines = _pivot(table)
    parts: list[Any] = [Text(f"Grid '{name}': test CER / WER in percent (* best of the line), {duration(seconds)}")]
    # One table per corpus and protocol, as in the literature: five pretexts fit a terminal of 80 columns.
    for corpus, protocol in dict.fromkeys(place[:2] for place in lines):
        cer = _table(f"{corpus}, {protocol}", "decoder", "labels", *pretexts)
        for (*group, decoder, fraction), texts in lines.items():
            if group == [corpus, protocol]:
                cer.add_row(decoder, f"{100 * fraction:g} %", *(texts.get(p, "-") for p in pretexts))
        parts += ["", cer]
    pretrainings = [row for row in table if row["stage"] == "pretrain"]
    if pretrainings:
        columns = ("corpus", "pretext", "seed", "accuracy", "chance", "epochs", "minutes")
        accuracy = _table("Pretext accuracy on held-out lines in percent", *columns)
        for row in pretrainings:
            accuracy.add_row(
                row["corpus"],
                row["pretext"],
                str(row["seed"]),
                _number(row["val_accuracy"]),
                _number(row["chance"]),
                str(row["epochs"] or "-"),
                _number(row["minutes"]),
            )
        parts += ["", accuracy]
    # Text: a message may hold brackets, which are rich's markup.
    failures = [Text(f"{row['key']}: {row['failure']}") for row in table if row["state"] == "failed"]
    return Group(*parts, *failures)


def _table(title: str, *columns: str) -> Table:
    style: Any = {"box": box.SIMPLE, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
    made = Table(title=title, title_justify="left", **style)
    for column in columns:
        made.add_column(column)
    return made


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def markdown(name: str, table: list[dict[str, Any]]) -> str:
    """The summary for MLflow's note."""
    pretexts, lines = _pivot(table)
    text = [
        f"## {name}: test CER / WER in percent",
        "",
        "| corpus | protocol | decoder | labels | " + " | ".join(pretexts) + " |",
        "|" + " --- |" * (4 + len(pretexts)),
    ]
    for (corpus, protocol, decoder, fraction), texts in lines.items():
        values = [f"**{t[:-1]}**" if t.endswith("*") else t for t in (texts.get(p, "-") for p in pretexts)]
        text.append(f"| {corpus} | {protocol} | {decoder} | {100 * fraction:g} % | " + " | ".join(values) + " |")
    pretrainings = [row for row in table if row["stage"] == "pretrain"]
    if pretrainings:
        text += ["", "| corpus | pretext | seed | held-out accuracy | chance |", "|" + " --- |" * 5]
        text += [
            f"| {r['corpus']} | {r['pretext']} | {r['seed']} | {_number(r['val_accuracy'])} % "
            f"| {_number(r['chance'])} % |"
            for r in pretrainings
        ]
    text += [f"- failed: `{row['key']}`: {row['failure']}" for row in table if row["state"] == "failed"]
    return "\n".join(text) + "\n"


def csv(table: list[dict[str, Any]]) -> str:
    """One line per trial."""
    return pd.DataFrame(table, columns=[*COLUMNS, "stage", "failure"]).to_csv(index=False)
