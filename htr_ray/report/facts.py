"""Facts of the corpora, and how to run the grid again."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

import htr_ray
from htr_ray.report.analysis import Analysis
from htr_ray.report.document import Table, Value
from htr_ray.report.entries import Entry, Reading
from htr_ray.report.results import GridResults
from htr_ray.report.wording import anchor, count, many
from htr_ray.storage import redacted

_PACKAGES = ("torch", "ray", "numpy", "scipy", "mlflow")
_NAMED = 10
"""Ids of lines that are written out."""
_SPLITS = {"train": "training", "val": "validation", "test": "test"}


def corpus_tables(made: Analysis) -> list[Table]:
    """What ``corpus.json`` says, one table per corpus."""
    tables = []
    for name in made.corpora:
        best = made.champions.get(name)
        tables.append(_corpus(name, made.grid.corpora.get(name, {}), (best.readings if best else None) or []))
    return tables


def _corpus(name: str, info: Mapping[str, Any], readings: Sequence[Reading]) -> Table:
    rows: list[tuple[str, str]] = []
    for split, title in _SPLITS.items():
        counts = (info.get("counts") or {}).get(split)
        if counts:
            rows.append((f"{title} lines", _lines(counts)))
    alphabet = info.get("alphabet") or ""
    if alphabet:
        rows.append((f"alphabet ({many(len(alphabet), 'character')})", alphabet.replace(" ", "␣")))
    if info.get("alphabet_unseen"):
        rows.append(("characters of test lines that training lacks", info["alphabet_unseen"].replace(" ", "␣")))
    if info.get("direction") == "rtl":
        rows.append(("direction", "right to left"))
    split_by = info.get("split_by")
    if split_by:
        rows.append(("splits", "the source's own" if split_by == "official" else f"no {split_by} is on two sides"))
    rows.append(("licence", info.get("licence") or "not recorded"))
    rows.append(("citation", info.get("citation") or "not recorded"))
    rows.append(("source", redacted(info.get("source") or "not recorded")))
    aside = info.get("set_aside") or {}
    told = "; ".join(f"{reason}: {count(number)}" for reason, number in aside.items()) or "none"
    rows.append(("set aside when it was prepared", told if info.get("counts") else "not known"))
    rows += [("note", str(warning)) for warning in info.get("warnings") or []]
    doubtful = [str(line["id"]) for line in readings if Entry(line).doubtful]
    if doubtful:
        rows.append(("transcriptions to look at", _to_look_at(doubtful, len(readings))))
    if info.get("uri"):
        rows.append(("location", redacted(str(info["uri"]))))
    values = [[Value(key), Value(text)] for key, text in rows]
    return Table(anchor("data", name), name, ["fact", "value"], values, numbers=False)


def _to_look_at(doubtful: Sequence[str], lines: int) -> str:
    more = f" and {len(doubtful) - _NAMED:,} more" if len(doubtful) > _NAMED else ""
    return (
        f"{len(doubtful):,} of {many(lines, 'test line')} {'was' if len(doubtful) == 1 else 'were'} read as something "
        "quite different, with high confidence, by the best recognizer: look whether their transcription is right "
        f"({', '.join(doubtful[:_NAMED])}{more})"
    )


def _lines(counts: Mapping[str, Any]) -> str:
    lines, labelled, writers = (int(counts.get(key) or 0) for key in ("lines", "labelled", "writers"))
    told = [many(lines, "line")]
    if labelled != lines:
        told.append(f"{count(labelled)} with a transcription")
    told.append(f"by {many(writers, 'writer')}" if writers else "writers not known")
    return ", ".join(told)


def settings_yaml(grid: GridResults) -> str:
    """The grid's settings as the file that ``--config`` takes; without passwords."""
    return redacted(yaml.safe_dump(dict(grid.settings), sort_keys=False, allow_unicode=True, width=110))


def command(grid: GridResults) -> str:
    """How to run it again, under a name of its own: under its old one it would find itself finished."""
    return f"python jobs/full_grid.py --config grid.yaml name={shlex.quote(grid.name + '-again')}"


def versions() -> str:
    """Of what wrote the report."""
    found = [f"htr-ray {htr_ray.__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
