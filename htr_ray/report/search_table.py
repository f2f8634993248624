"""What searches among hyperparameter choices found, as a table and as CSV."""

from __future__ import annotations

from typing import Any

import pandas as pd

from htr_ray.report.document import MANY_ROWS, Table, Value
from htr_ray.report.results import ChoiceResult, SearchResult
from htr_ray.report.wording import UNKNOWN, number
from htr_ray.storage import redacted

_RECIPE = "as set"
_FIGURES = {"val_cer": "validation CER", "val_accuracy": "pretext accuracy"}
_CHOSEN = "✓"


def search_table(searches: list[SearchResult]) -> Table | None:
    """Every choice of every search: what it was, how far it came, which won."""
    rows = [
        [
            Value(search.key),
            Value(str(choice.number)),
            Value(_values(choice)),
            Value(_CHOSEN if choice.number == search.winner else ""),
            Value(UNKNOWN if choice.figure is None else number(choice.figure), _FIGURES[search.figure]),
            Value(redacted(choice.failure or choice.state), muted=choice.state != "done"),
            Value(number(100 * choice.progress, 0)),
            Value(number(choice.minutes)),
        ]
        for search in searches
        for choice in search.choices
    ]
    if not rows:
        return None
    return Table(
        "searches",
        "Choices of hyperparameters, each within its own cell",
        ["search", "choice", "settings", "chosen", "best figure", "state", "% of schedule", "minutes"],
        rows,
        headers=2,
        legend=_legend(searches),
        closed=len(rows) > MANY_ROWS,
    )


def _legend(searches: list[SearchResult]) -> str:
    choices = [choice for search in searches for choice in search.choices]
    ended = [choice for choice in choices if choice.spared]
    text = (
        "Choice 0 is the recipe as it was set. Validation lines chose, test lines did not; the chosen trial is the "
        "first seed of its cell, and the other seeds take its settings."
    )
    if not ended:
        return text
    spent = sum(choice.minutes for choice in choices)
    spared = sum(choice.spared for choice in choices)
    return (
        f"{text} {len(ended)} of {len(choices)} choices fell behind and ended early (halved); at their own pace the "
        f"rest of their schedules would have taken {number(spared)} minutes beside the {number(spent)} that all took."
    )


def _values(choice: ChoiceResult) -> str:
    return ", ".join(f"{key}={value}" for key, value in choice.values.items()) or _RECIPE


def searches_csv(searches: list[SearchResult]) -> bytes:
    """One line per choice."""
    columns = ["search", "choice", "chosen", "state", "figure", "value", "progress", "minutes", "settings"]
    rows: list[dict[str, Any]] = [
        {
            "search": search.key,
            "choice": choice.number,
            "chosen": choice.number == search.winner,
            "state": choice.state,
            "figure": search.figure,
            "value": choice.figure,
            "progress": choice.progress,
            "minutes": choice.minutes,
            "settings": _values(choice),
        }
        for search in searches
        for choice in search.choices
    ]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False).encode()
