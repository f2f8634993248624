"""A report as plain blocks, so that the page and its Markdown twin say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

MANY_ROWS = 12
"""A table of details that has more of them is shown on demand (``Table.closed``)."""


@dataclass(frozen=True)
class Value:
    """One value in a table."""

    text: str
    detail: str = ""
    """Smaller, behind it: an interval."""
    strong: bool = False
    mark: str = ""
    """A sign that the table's legend explains."""
    meaning: str = ""
    """The mark in words, for those who do not see it."""
    muted: bool = False


@dataclass(frozen=True)
class Table:
    """``headers`` is the number of columns, from the left, that name a row."""

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    headers: int = 1
    numbers: bool = True
    """Whether what follows the headers is aligned as numbers."""
    legend: str = ""
    closed: bool = False
    """Shown on demand only: a detail that few need."""


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str
    lead: str = ""
    """Its first words, set off."""
    points: Sequence[str] = ()
    """A list below it."""


@dataclass(frozen=True)
class Bullets:
    kind: ClassVar[str] = "bullets"
    points: Sequence[str]


@dataclass(frozen=True)
class Figure:
    kind: ClassVar[str] = "figure"
    id: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Code:
    kind: ClassVar[str] = "code"
    text: str
    language: str
    label: str


@dataclass(frozen=True)
class Fragment:
    """HTML that a page shows as it is; Markdown gets ``instead``."""

    kind: ClassVar[str] = "fragment"
    html: str
    instead: Table


Block = Table | Paragraph | Bullets | Figure | Code | Fragment


@dataclass
class Section:
    id: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Document:
    title: str
    sections: list[Section]
    made_with: str
    """Versions, for the foot."""

    @property
    def figures(self) -> list[Figure]:
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]
