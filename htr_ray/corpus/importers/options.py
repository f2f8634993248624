"""What a user may tell an importer about the layout of the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from htr_ray.corpus.importers.check import Normalisation
from htr_ray.errors import UserError

NO_COLUMN = "none"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of all importers; each reads those that concern it."""

    normalisation: Normalisation = "NFC"
    """Unicode normal form of the texts."""
    image_column: str = "image"
    text_column: str = "text"
    """``none``: the lines are unlabelled."""
    writer_column: str | None = None
    """None: the column ``writer``, where there is one; ``none``: writers are not known."""
    page_column: str | None = None
    """None: the column ``page``, where there is one; ``none``: pages are not known."""
    split_column: str | None = None
    """None: no column names the split."""
    writer_from: Literal["folder", "page", "none"] = "folder"
    """Whether the folder of an image names its writer, or each page is a writer of its own (pairs, alto, page)."""
    writer_pattern: str | None = None
    """Regular expression; its first group, found in a page's name, is the writer (alto, page)."""
    level: Literal["lines", "words"] = "lines"
    """What is cut out, where a source has both (iam, cvl, rimes)."""
    skip_err: bool = False
    """Leave out what the source marks as badly segmented (iam)."""
    split_files: str | None = None
    """URI of the folder of split lists that researchers share (iam), or of the partition lists (bentham)."""
    fold: str = "cv1"
    """Cross-validation fold (washington)."""
    images: str | None = None
    """URI of the folder of page images, where they are not beside the XML (alto, page, bentham)."""
    xml: str | None = None
    """Pattern of XML names, to choose one of several readings of a page: ``*.chocomufin.xml`` (alto, page)."""
    height: int | None = None
    """Height in pixels that lines cut from pages are scaled to; None: as in the scan."""


_TABLES, _PAGES = frozenset({"parquet", "table"}), frozenset({"alto", "page"})
READ_BY: dict[str, frozenset[str]] = {
    "image_column": _TABLES,
    "text_column": _TABLES,
    "writer_column": _TABLES,
    "page_column": _TABLES,
    "split_column": _TABLES,
    "writer_from": _PAGES | {"pairs"},
    "writer_pattern": _PAGES,
    "level": frozenset({"iam", "cvl", "rimes", "washington"}),
    "skip_err": frozenset({"iam"}),
    "split_files": frozenset({"iam", "bentham"}),
    "fold": frozenset({"washington"}),
    "images": _PAGES | {"bentham"},
    "xml": _PAGES,
    "height": _PAGES | {"bentham", "rimes"},
}
"""The formats that an option concerns; one that is not here concerns all."""


def given(options: ImportOptions) -> dict[str, Any]:
    """The options that are not the default."""
    default = ImportOptions()
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def refuse_unread(format: str, options: ImportOptions) -> None:
    """Raise UserError for an option that ``format`` would pass over."""
    unread = [name for name in given(options) if format not in READ_BY.get(name, {format})]
    if unread:
        others = ", ".join(sorted(READ_BY[unread[0]]))
        raise UserError(f"{flag(unread[0])}: the format {format} has no such option (it is for {others}); leave it out")


def with_own(known: ImportOptions, stated: Mapping[str, Any], own: ImportOptions) -> ImportOptions:
    """``known`` with what a user adds to it; ``stated`` are those of its fields that are not open to that.

    Raises UserError where ``own`` says otherwise than ``stated``.
    """
    added = given(own)
    against = [name for name in added if name in stated and added[name] != getattr(known, name)]
    if against:
        raise UserError(
            f"{flag(against[0])} {added[against[0]]}: the catalogue says {stated[against[0]]} for this corpus; leave it"
            " out, or name the files yourself with --format and --input"
        )
    return replace(known, **added)


def flag(name: str) -> str:
    """An option as it is typed: ``--writer-from``."""
    return f"--{name.replace('_', '-')}"
