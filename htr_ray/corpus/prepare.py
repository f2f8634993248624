"""From an input in some format to a corpus: import, split, write, report."""

from __future__ import annotations

import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from htr_ray import storage
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.ingest import ingest
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.schema import SetAside, Split
from htr_ray.corpus.splits import Known, SplitBy, choose_splits
from htr_ray.corpus.spool import FACTS, Spool
from htr_ray.corpus.write import CorpusWriter
from htr_ray.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
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
    split_by: SplitBy = "auto",
    options: ImportOptions | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Make the corpus ``<output>/<name>`` of what is at ``input``; return its report (see ``summarise``).

    ``progress`` is called with the number of lines read so far and the share of the input that they are from. An
    existing corpus of that name is replaced when the new one is whole. Raises UserError when the input or
    output cannot be used, or when fewer than three lines are left.
    """
    if format not in IMPORTERS:
        raise UserError(f"--format {format}: unknown; use one of {', '.join(IMPORTERS)}")
    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: use letters, digits, '.', '_' and '-', a letter or digit first")
    uri = storage.join(storage.normalise(output), name)
    _check_writable(uri)
    with Spool() as spool:
        found = _collect(ingest(IMPORTERS[format].units(input, options or ImportOptions())), spool, progress)
        spool.close()
        warnings = _content_warnings(found)
        splits, decided_by = _split(found, seed, shares, split_by, warnings)
        with CorpusWriter(uri, name, licence=licence, source=source or input, citation=citation, seed=seed) as writer:
            writer.split_by = decided_by
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
    splits: list[Split | None] = field(default_factory=list)
    labelled: int = 0
    set_aside: list[SetAside] = field(default_factory=list)


def _check_writable(uri: str) -> None:
    """An hour of reading should not end in "access denied"."""
    probe = storage.join(uri, ".write-test")
    storage.write_bytes(probe, b"")
    storage.delete_file(probe)


def _collect(
    batches: Iterable[tuple[float, pa.RecordBatch]], spool: Spool, progress: Callable[[int, float], None] | None
) -> _Found:
    found = _Found()
    digest_of: dict[str, bytes] = {}
    count = 0
    for share, batch in batches:
        count += batch.num_rows
        if progress is not None:
            progress(count, share)
        rows = batch.drop_columns(["image"]).to_pylist()
        kept, ids = [], []
        for number, row in enumerate(rows):
            if row["reason"] is not None:
                found.set_aside.append(SetAside(row["id"], row["reason"], row["detail"]))
                continue
            if digest_of.get(row["id"]) == row["digest"]:
                found.set_aside.append(SetAside(row["id"], "same line twice"))
                continue
            id_ = _own_id(row["id"], digest_of)
            digest_of[id_] = row["digest"]
            kept.append(number)
            ids.append(id_)
            found.ids.append(id_)
            found.writers.append(row["writer"] and sys.intern(row["writer"]))
            found.pages.append(row["page"] and sys.intern(row["page"]))
            found.splits.append(row["split"])
            found.labelled += row["text"] is not None
        if kept:
            lines = batch.take(pa.array(kept)) if len(kept) < len(rows) else batch
            facts = lines.select(["width", "height", "text", "writer", "page"]).add_column(0, "id", pa.array(ids))
            spool.append(facts.cast(FACTS), (image.as_buffer() for image in lines["image"]))
    return found


def _own_id(id_: str, taken: dict[str, bytes]) -> str:
    """File names repeat from folder to folder, ids may not."""
    number, own = 1, id_
    while own in taken:
        number += 1
        own = f"{id_}-{number}"
    return own


def _split(
    found: _Found, seed: int, shares: tuple[float, float, float], split_by: SplitBy, warnings: list[str]
) -> tuple[list[Split], str]:
    if len(found.ids) < 3:
        reasons = sorted({item.reason for item in found.set_aside})
        why = f"; {len(found.set_aside)} were set aside: {', '.join(reasons)}" if reasons else ""
        raise UserError(f"--input: {len(found.ids)} usable lines, a corpus needs three{why}")
    known = Known(found.ids, found.writers, found.pages, found.splits)
    return choose_splits(known, seed, shares, split_by, warnings)


def _content_warnings(found: _Found) -> list[str]:
    warnings = []
    if found.ids and not found.labelled:
        warnings.append("no line has a text: this corpus serves pre-training only")
    left_out, total = len(found.set_aside), len(found.set_aside) + len(found.ids)
    if left_out > _MANY_SET_ASIDE * total:
        warnings.append(f"{left_out} of {total} items ({left_out / total:.0%}) were set aside; see why")
    return warnings
