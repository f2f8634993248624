"""What a corpus holds, for people: read back from the files, so that it is also a check of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Split
from htr_ray.errors import UserError

_EXAMPLES = 3
# Faint pencil in the corpora at hand has 30 and more.
_BLANK_CONTRAST = 20
_COLUMNS = ("lines", "share", "labelled", "writers", "pages", "characters")


def summarise(corpus: Corpus, *, decode: bool = False) -> dict[str, Any]:
    """Describe a corpus as JSON-ready values; ``problems`` lists what is wrong with it, empty if nothing is.

    With ``decode`` every image is looked at too, to find damaged and nearly blank ones.
    """
    info = corpus.info
    problems: list[str] = []
    nearly_blank: list[str] = []
    tables: dict[str, pa.Table] = {}
    for split in SPLITS:
        try:
            tables[split] = corpus.index(split, ("id", "width", "height", "text", "writer", "page"))
        except UserError as error:
            problems.append(str(error))
            tables[split] = pa.table({n: pa.array([], pa.string()) for n in ("id", "text", "writer", "page")})
            continue
        counted, held = info.counts[split].lines, tables[split].num_rows
        if counted != held:
            problems.append(f"{split}: corpus.json counts {counted} lines, the files hold {held}")
        if decode:
            _look_at_images(corpus, split, problems, nearly_blank)
    total = sum(table.num_rows for table in tables.values())
    ids = Counter(id_ for table in tables.values() for id_ in table["id"].to_pylist())
    twice = [id_ for id_, count in ids.items() if count > 1]
    if twice:
        problems.append(f"{len(twice)} ids occur more than once, for instance {twice[0]}")
    writers_twice, pages_twice = _on_two_sides(tables, "writer"), _on_two_sides(tables, "page")
    if info.split_by == "writer" and writers_twice:
        problems.append(f"{len(writers_twice)} writers are on two sides, for instance {writers_twice[0]}")
    characters = {split: _characters(table) for split, table in tables.items()}
    unseen = {c: n for c, n in sorted(characters["test"].items()) if c not in characters["train"]}
    return {
        "uri": corpus.uri,
        "name": info.name,
        "licence": info.licence,
        "source": info.source,
        "seed": info.seed,
        "split_by": info.split_by,
        "lines": total,
        "splits": {split: _split(table, total, characters[split]) for split, table in tables.items()},
        "writers_on_two_sides": writers_twice,
        "pages_on_two_sides": pages_twice,
        "alphabet": info.alphabet,
        "test_characters_unseen_in_train": unseen,
        "width": _quantiles(tables, "width"),
        "height": _quantiles(tables, "height"),
        "set_aside": info.set_aside,
        "set_aside_examples": _examples(corpus),
        "nearly_blank": nearly_blank,
        "warnings": info.warnings,
        "problems": problems,
    }


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
    console.print(f"Split by {by}; writers on two sides: {sides}. Seed {report['seed']}.", highlight=False)
    for side in ("width", "height"):
        if report[side]:
            q = report[side]
            text = f"Image {side}: median {q['median']}, 5-95 % {q['p5']}-{q['p95']}, largest {q['max']} px"
            console.print(text, highlight=False)
    unseen = report["test_characters_unseen_in_train"]
    if unseen:
        shown = " ".join(f"{_visible(c)} ({n})" for c, n in unseen.items())
        text = f"Characters of test that train lacks (times in test): {shown}"
        console.print(text, highlight=False, markup=False)
    else:
        console.print("Characters of test that train lacks: none", highlight=False)
    if report["nearly_blank"]:
        some = ", ".join(report["nearly_blank"][:_EXAMPLES])
        text = f"Nearly blank images: {len(report['nearly_blank'])}, for instance {some}"
        console.print(text, highlight=False, markup=False)
    _print_set_aside(report, console)
    for kind, style in (("warnings", "yellow"), ("problems", "bold red")):
        for text in report[kind]:
            console.print(f"{kind[:-1].capitalize()}: {text}", style=style, highlight=False, markup=False)


def _print_set_aside(report: dict[str, Any], console: Console) -> None:
    left_out = sum(report["set_aside"].values())
    console.print(f"Kept {report['lines']} lines, set aside {left_out}.", highlight=False)
    if not left_out:
        return
    table = Table("set aside because")
    table.add_column("items", justify="right")
    table.add_column("for instance", overflow="fold")
    for reason, count in report["set_aside"].items():
        examples = report["set_aside_examples"].get(reason, [])
        table.add_row(escape(reason), str(count), escape("\n".join(examples)))
    console.print(table)


def _split(table: pa.Table, total: int, characters: Counter[str]) -> dict[str, Any]:
    return {
        "lines": table.num_rows,
        "share": round(table.num_rows / total, 4) if total else 0.0,
        "labelled": table.num_rows - table["text"].null_count,
        "writers": len(set(table["writer"].to_pylist()) - {None}),
        "pages": len(set(table["page"].to_pylist()) - {None}),
        "characters": len(characters),
    }


def _characters(table: pa.Table) -> Counter[str]:
    return Counter(c for text in table["text"].to_pylist() if text is not None for c in text)


def _on_two_sides(tables: dict[str, pa.Table], column: str) -> list[str]:
    sides = Counter(name for t in tables.values() for name in set(t[column].to_pylist()) if name is not None)
    return sorted(name for name, count in sides.items() if count > 1)


def _quantiles(tables: dict[str, pa.Table], column: str) -> dict[str, int]:
    present = [t[column].to_numpy() for t in tables.values() if column in t.column_names and t.num_rows]
    if not present:
        return {}
    values = np.concatenate(present)
    p5, median, p95 = (int(q) for q in np.percentile(values, (5, 50, 95)))
    return {"min": int(values.min()), "p5": p5, "median": median, "p95": p95, "max": int(values.max())}


def _examples(corpus: Corpus) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    for row in corpus.set_aside().to_pylist():
        some = examples.setdefault(row["reason"], [])
        if len(some) < _EXAMPLES:
            some.append(row["id"] + (f": {row['detail']}" if row["detail"] else ""))
    return examples


def _look_at_images(corpus: Corpus, split: Split, problems: list[str], nearly_blank: list[str]) -> None:
    table = corpus.index(split, ("id",)).select(["id", "file", "row_group"])
    places = sorted({(row["file"], row["row_group"]) for row in table.to_pylist()})
    files = corpus.files(split)
    for file, row_group in places:
        group = corpus.read_row_group(files[file], row_group, ("id", "image", "width", "height"))
        for row in group.to_pylist():
            try:
                array = decode_grey(row["image"])
            except ValueError as error:
                problems.append(f"{split}: image of {row['id']}: {error}")
                continue
            if _contrast(array) < _BLANK_CONTRAST:
                nearly_blank.append(row["id"])
            height, width = array.shape
            if (height, width) != (row["height"], row["width"]):
                said = f"{row['width']}x{row['height']}"
                problems.append(f"{split}: image of {row['id']} is {width}x{height}, not {said} as said")


def _contrast(array: np.ndarray) -> int:
    """Grey levels between the paper (median) and the darkest half percent."""
    dark, middle = array.size // 200, array.size // 2
    ordered = np.partition(array.ravel(), (dark, middle))
    return int(ordered[middle]) - int(ordered[dark])


def _visible(character: str) -> str:
    """Combining marks and blanks by code point: alone they do not show."""
    shows = character.isalnum() or (character.isascii() and character > " ")
    return character if shows else f"U+{ord(character):04X}"
