"""The report's twin in Markdown: the same words, tables and figures (as files beside it)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from htr_ray.report.document import Block, Bullets, Code, Document, Figure, Fragment, Paragraph, Table, Value

FIGURES = "figures"


def markdown(document: Document) -> str:
    """Render ``document`` as GitHub-flavoured Markdown; figures are ``figures/ID.svg``."""
    text = [f"# {escaped(document.title)}"]
    for section in document.sections:
        text.append(f"## {escaped(section.title)}")
        for block in section.blocks:
            text += _block(block)
    text.append(f"Written by {escaped(document.made_with)}.")
    return "\n\n".join(text) + "\n"


def escaped(text: str) -> str:
    """What would be markup is shown as it is; line breaks become spaces."""
    text = re.sub(r"([\\`*|~]|<(?=[A-Za-z/!?]))", r"\\\1", " ".join(text.split()))
    # Within a word an underscore is no markup.
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    text = re.sub(r"^(\d+)([.)])(?=\s)", r"\1\\\2", text)
    return re.sub(r"^([#+>-])(?=\s)", r"\\\1", text.replace("](", "]\\("))


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        lead = f"**{escaped(block.lead)}** " if block.lead else ""
        yield (lead + escaped(block.text)).rstrip()
        if block.points:
            yield _list(block.points)
    elif isinstance(block, Bullets):
        yield _list(block.points)
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Figure):
        yield f"![{escaped(block.caption)}]({FIGURES}/{block.id}.svg)"
    elif isinstance(block, Fragment):
        yield from _table(block.instead)
    elif isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
        yield f"**{escaped(block.label)}**"
        yield f"{fence}{block.language}\n{block.text.rstrip()}\n{fence}"


def _list(points: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(point)}" for point in points)


def _table(table: Table) -> Iterator[str]:
    aligned = ["---:" if table.numbers and index >= table.headers else "---" for index, _ in enumerate(table.columns)]
    rows = [f"| {' | '.join(map(escaped, table.columns))} |", f"| {' | '.join(aligned)} |"]
    rows += [f"| {' | '.join(map(_value, row))} |" for row in table.rows]
    yield f"**{escaped(table.caption)}**"
    yield "\n".join(rows)
    if table.legend:
        yield escaped(table.legend)


def _value(value: Value) -> str:
    text = escaped(value.text)
    if value.strong and text:
        text = f"**{text}**"
    if value.muted and text:
        text = f"*{text}*"
    return " ".join(part for part in (f"{text}{value.mark}", escaped(value.detail)) if part)
