"""From an input in some format to a corpus: import, split, write, report."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from htr_ray import storage
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.schema import SPLITS, Line, SetAside, Split
from htr_ray.corpus.splits import assign_splits
from htr_ray.corpus.spool import Spool
from htr_ray.corpus.write import CorpusWriter
from htr_ray.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FEW_WRITERS = 10
_MANY_SET_ASIDE = 0.05


def prepare(
    format: str,
    input: str,
    output: str,
    name: str,
    *,
    licence: str = "",
    source: str = "",
    citation: str = "",
    seed: int = 0,
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    options: ImportOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Make the corpus ``<output>/<name>`` of what is at ``input``; return its report (see ``summarise``).

    ``progress`` is called with the number of lines read so far. An existing corpus of that name is replaced
    when the new one is whole. Raises UserError when the input or output cannot be used, or when fewer than
    three lines are left.
    """
    if format not in IMPORTERS:
        raise UserError(f"--format {format}: unknown; use one of {', '.join(IMPORTERS)}")
    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: use letters, digits, '.', '_' and '-', a letter or digit first")
    uri = storage.join(storage.normalise(output), name)
    _check_writable(uri)
    with Spool() as spool:
        found = _collect(IMPORTERS[format].read(input, options or ImportOptions()), spool, progress)
        spool.close()
        warnings = _content_warnings(found)
        splits, split_by = _split(found, seed, shares, warnings)
        with CorpusWriter(uri, name, licence=licence, source=source or input, citation=citation, seed=seed) as writer:
            writer.split_by = split_by
            writer.warnings = warnings
            for item in found.set_aside:
                writer.set_aside(item.reason, item.id, item.detail)
            # A whole shuffle of the corpus: the writer's own reaches no further than its buffer.
            order = list(range(len(splits)))
            random.Random(f"htr-ray prepare {seed}").shuffle(order)
            for number in order:
                writer.add(spool[number], splits[number])
    return summarise(Corpus.open(uri))


def try_out(format: str, input: str, name: str, **settings: Any) -> dict[str, Any]:
    """Do as ``prepare`` does, in a temporary folder that is removed: what would come out?"""
    with tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
        report = prepare(format, input, folder, name, **settings)
    report["uri"] = None
    return report


@dataclass
class _Found:
    """What is kept in memory of each line: a few strings."""

    ids: list[str] = field(default_factory=list)
    writers: list[str | None] = field(default_factory=list)
    pages: list[str | None] = field(default_factory=list)
    labelled: int = 0
    set_aside: list[SetAside] = field(default_factory=list)


def _check_writable(uri: str) -> None:
    """An hour of reading should not end in "access denied"."""
    probe = storage.join(uri, ".write-test")
    storage.write_bytes(probe, b"")
    storage.delete_file(probe)


def _collect(items: Any, spool: Spool, progress: Callable[[int], None] | None) -> _Found:
    found = _Found()
    content_of: dict[str, bytes] = {}
    for count, item in enumerate(items, start=1):
        if progress is not None and count % 1000 == 0:
            progress(count)
        if isinstance(item, SetAside):
            found.set_aside.append(item)
            continue
        content = blake2b(item.image + (item.text or "").encode(), digest_size=8).digest()
        if content_of.get(item.id) == content:
            found.set_aside.append(SetAside(item.id, "same line twice"))
            continue
        line = _with_own_id(item, content_of)
        content_of[line.id] = content
        spool.append(line)
        found.ids.append(line.id)
        found.writers.append(line.writer)
        found.pages.append(line.page)
        found.labelled += line.text is not None
    return found


def _with_own_id(line: Line, taken: dict[str, bytes]) -> Line:
    """File names repeat from folder to folder, ids may not."""
    if line.id not in taken:
        return line
    number = 2
    while f"{line.id}-{number}" in taken:
        number += 1
    return Line(f"{line.id}-{number}", line.image, line.width, line.height, line.text, line.writer, line.page)


def _split(
    found: _Found, seed: int, shares: tuple[float, float, float], warnings: list[str]
) -> tuple[list[Split], str]:
    """Split by writer, else by page, else by line: the first that makes three groups."""
    if len(found.ids) < 3:
        reasons = sorted({item.reason for item in found.set_aside})
        why = f"; {len(found.set_aside)} were set aside: {', '.join(reasons)}" if reasons else ""
        raise UserError(f"--input: {len(found.ids)} usable lines, a corpus needs three{why}")
    keys: dict[str, list[str | None]] = {"writer": found.writers, "page": found.pages}
    by = next((by for by, names in keys.items() if len(set(names) - {None}) >= 3), "line")
    if by == "line":
        groups = [f"line {id_}" for id_ in found.ids]
        known = {key: len(set(names) - {None}) for key, names in keys.items()}
        warnings.append(
            f"split by single line, for there are only {known['writer']} writers and {known['page']} pages"
            " (three are needed): the same hand is on all sides, so test figures will be too good for"
            " unknown hands"
        )
    else:
        groups = [
            f"{by} {name}" if name else f"page {page}" if page else f"line {id_}"
            for name, page, id_ in zip(keys[by], found.pages, found.ids, strict=True)
        ]
        nameless = keys[by].count(None)
        if nameless:
            warnings.append(f"{nameless} lines have no {by}; they are split by page or singly")
        if by == "page" and set(found.writers) != {None}:
            warnings.append("fewer than three writers: split by page, the same hand is on several sides")
        writers = len(set(found.writers) - {None})
        if by == "writer" and writers < _FEW_WRITERS:
            warnings.append(
                f"only {writers} writers: shares are coarse, and figures of val and test depend on who is in them"
            )
    side = assign_splits(groups, seed, shares)
    splits = [side[group] for group in groups]
    assert set(splits) == set(SPLITS)
    return splits, by


def _content_warnings(found: _Found) -> list[str]:
    warnings = []
    if found.ids and not found.labelled:
        warnings.append("no line has a text: this corpus serves pre-training only")
    left_out, total = len(found.set_aside), len(found.set_aside) + len(found.ids)
    if left_out > _MANY_SET_ASIDE * total:
        warnings.append(f"{left_out} of {total} items ({left_out / total:.0%}) were set aside; see why")
    return warnings
