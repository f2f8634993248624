"""The report of a corpus on a terminal."""

from __future__ import annotations

import unicodedata
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from htr_ray.corpus.histogram import bars
from htr_ray.corpus.schema import SPLITS

_EXAMPLES = 3
_MOST_CHARACTERS = 300
_COLUMNS = ("lines", "share", "labelled", "writers", "pages", "characters")


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print what ``summarise`` returned, as tables."""
    console.print(f"[bold]Corpus {escape(report['name'])}[/bold]", highlight=False)
    uri = report["uri"] or "(not written)"
    console.print(uri, style="cyan", highlight=False, soft_wrap=True, markup=False)
    table = Table("split", title=None)
    for head in _COLUMNS:
        table.add_column(head, justify="right")
    for split, row in report["splits"].items():
        cells = {**row, "share": f"{row['share']:.1%}"}
        table.add_row(split, *(str(cells[column]) for column in _COLUMNS))
    console.print(table)
    by = report["split_by"] or "not recorded"
    sides = len(report["writers_on_two_sides"])
    _say(console, f"Split by {by}; writers on two sides: {sides}. Seed {report['seed']}. Text {report['direction']}.")
    for side in ("width", "height"):
        if report[side]:
            q = report[side]
            _say(console, f"Image {side}: median {q['median']}, 5-95 % {q['p5']}-{q['p95']}, largest {q['max']} px")
    _print_histograms(report["histograms"], console)
    _print_characters(report, console)
    _print_duplicates(report["duplicates"], console)
    _print_too_long(report["too_long_for_ctc"], console)
    if report["nearly_blank"]:
        _say(console, f"Nearly blank images: {len(report['nearly_blank'])}{_some(report['nearly_blank'])}")
    _print_set_aside(report, console)
    for kind, style in (("warnings", "yellow"), ("problems", "bold red")):
        for text in report[kind]:
            console.print(f"{kind[:-1].capitalize()}: {text}", style=style, highlight=False, markup=False)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)


def _some(names: list[str]) -> str:
    return f", for instance {', '.join(names[:_EXAMPLES])}" if names else ""


def _print_histograms(histograms: dict[str, Any], console: Console) -> None:
    tables = []
    for name, unit in (("width", "width in px"), ("characters", "characters of a line")):
        if histograms[name]["counts"]:
            table = Table(box=None, padding=(0, 1, 0, 0))
            table.add_column(unit, justify="right")
            table.add_column("lines", justify="right")
            table.add_column()
            for label, bar, count in bars(histograms[name]):
                table.add_row(label, str(count), bar)
            tables.append(table)
    if tables:
        console.print(Columns(tables, padding=(0, 6)))


def _print_characters(report: dict[str, Any], console: Console) -> None:
    every = report["characters"]
    if every:
        rare = sum(row["rare"] for row in every)
        _say(console, f"Characters and how often train/val/test have them; * rare in train ({rare} of {len(every)}):")
        shown = sorted(every, key=lambda row: -sum(row[split] for split in SPLITS))[:_MOST_CHARACTERS]
        shown.sort(key=lambda row: row["character"])
        plain = [row for row in shown if _shows(row["character"])]
        console.print(Columns([_entry(row, row["character"]) for row in plain], padding=(0, 2)))
        named = [_entry(row, _name(row["character"])) for row in shown if not _shows(row["character"])]
        console.print(Columns(named, padding=(0, 2)))
        if len(every) > len(shown):
            _say(console, f"... and {len(every) - len(shown)} rarer ones; --json has them all")
    unseen = report["test_characters_unseen_in_train"]
    listed = " ".join(f"{c if _shows(c) else _name(c)} ({n})" for c, n in unseen.items())
    times = " (times in test)" if unseen else ""
    _say(console, f"Characters of test that train lacks{times}: {listed or 'none'}")


def _entry(row: dict[str, Any], name: str) -> Text:
    counts = "/".join(str(row[split]) for split in SPLITS)
    return Text(f"{name} {counts}{'*' if row['rare'] else ''}", style="yellow" if row["rare"] else "")


def _shows(character: str) -> bool:
    """Whether a character can stand before a number: not a mark or blank, nor what runs right to left."""
    return unicodedata.category(character)[0] in "LNPS" and not _runs_left(character)


def _name(character: str) -> str:
    """``U+0301 combining acute accent``, ``U+05D0 א hebrew letter alef``."""
    shown = f"{character} " if _runs_left(character) else ""
    return f"U+{ord(character):04X} {shown}{unicodedata.name(character, '').lower()}".rstrip()


def _runs_left(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL") and unicodedata.category(character)[0] in "LNPS"


def _print_duplicates(duplicates: dict[str, Any], console: Console) -> None:
    images, texts = duplicates["images"], duplicates["texts"]
    _say(
        console,
        f"Same image ({images['compared']} compared): {images['lines_on_two_sides']} lines on two sides, "
        f"{images['lines_within_a_split']} repeated within a split",
    )
    for group in images["on_two_sides"][:_EXAMPLES]:
        _say(console, f"  {' = '.join(group)}")
    for split, found in texts.items():
        _say(
            console,
            f"Same text as in train: {found['lines']} lines of {split}, {found['same_size']} with the same size too"
            + _some(found["ids"]),
        )


def _print_too_long(presets: dict[str, Any], console: Console) -> None:
    counts = ", ".join(f"{preset} {found['lines']}" for preset, found in presets.items())
    ids: list[str] = max((found["ids"] for found in presets.values()), key=len, default=[])
    _say(console, f"Lines whose text is too long for CTC at the preset's height: {counts}{_some(ids)}")


def _print_set_aside(report: dict[str, Any], console: Console) -> None:
    left_out = sum(report["set_aside"].values())
    _say(console, f"Kept {report['lines']} lines, set aside {left_out}.")
    if not left_out:
        return
    table = Table("set aside because")
    table.add_column("items", justify="right")
    table.add_column("for instance", overflow="fold")
    for reason, count in report["set_aside"].items():
        examples = report["set_aside_examples"].get(reason, [])
        table.add_row(escape(reason), str(count), escape("\n".join(examples)))
    console.print(table)
