"""From an input in some format to a corpus: import, split, write, report."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from htr_ray import storage
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.importers.options import NO_COLUMN
from htr_ray.corpus.ingest import ingest
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.schema import SPLITS, SetAside, Split
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
    options = options or ImportOptions()
    with Spool() as spool:
        found = _collect(ingest(IMPORTERS[format].units(input, options)), spool, progress)
        spool.close()
        warnings = _content_warnings(found, spool.facts)
        if split_by in ("auto", "official"):
            _check_split_column(found, options)
        splits, decided_by = _split(found, spool.facts, seed, shares, split_by, warnings)
        order = _order(splits, seed)
        with CorpusWriter(uri, name, licence=licence, source=source or input, citation=citation, seed=seed) as writer:
            writer.split_by = decided_by
            writer.warnings = warnings
            for item in found.set_aside:
                writer.set_aside(item.reason, item.id, item.detail)
            sizes = {split: len(lines) for split, lines in order.items()}
            writer.add_all(sizes, lambda split, start, stop: spool.take(order[split][start:stop]))
    digests = np.concatenate(found.digests)
    return summarise(Corpus.open(uri), digests={split: digests[lines] for split, lines in order.items()})


def _order(splits: list[Split], seed: int) -> dict[Split, np.ndarray]:
    """The numbers of the lines of each split, in an order that mixes the whole corpus."""
    order = list(range(len(splits)))
    random.Random(f"htr-ray prepare {seed}").shuffle(order)
    shuffled, sides = np.array(order), np.array(splits)
    return {split: shuffled[sides[shuffled] == split] for split in SPLITS}


def try_out(format: str, input: str, name: str, **settings: Any) -> dict[str, Any]:
    """Do as ``prepare`` does, in a temporary folder that is removed: what would come out?"""
    with tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
        report = prepare(format, input, folder, name, **settings)
    report["uri"] = None
    return report


@dataclass
class _Found:
    """What is kept in memory of each line, beside the columns in the spool."""

    ids: list[str] = field(default_factory=list)
    splits: list[Split | None] = field(default_factory=list)
    """As the source says."""
    digests: list[np.ndarray] = field(default_factory=list)
    """Of the images: uint64, in pieces."""
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
        ids, reasons, digests = (batch[name].to_pylist() for name in ("id", "reason", "digest"))
        kept, own_ids = [], []
        for number, (id_, reason, digest) in enumerate(zip(ids, reasons, digests, strict=True)):
            if reason is not None:
                found.set_aside.append(SetAside(id_, reason, batch["detail"][number].as_py()))
            elif digest_of.get(id_) == digest:
                found.set_aside.append(SetAside(id_, "same line twice"))
            else:
                own = _own_id(id_, digest_of) if id_ in digest_of else id_
                digest_of[own] = digest
                kept.append(number)
                own_ids.append(own)
        if kept:
            # Taken, which copies, even if all are kept: what came in one piece with its images would keep them.
            lines = batch.drop_columns(["image"]).take(pa.array(kept))
            facts = lines.select(FACTS.names[1:]).add_column(0, "id", pa.array(own_ids))
            images = batch["image"].take(pa.array(kept)) if len(kept) < len(ids) else batch["image"]
            spool.append(facts.cast(FACTS), images)
            found.ids += own_ids
            found.splits += lines["split"].to_pylist()
            found.digests.append(_image_digests(lines["digest"]))
    return found


def _image_digests(digests: pa.FixedSizeBinaryArray) -> np.ndarray:
    """The first half of each line's digest, as uint64 [n]."""
    both = np.frombuffer(digests.buffers()[1], np.uint64).reshape(-1, 2)
    return both[digests.offset : digests.offset + len(digests), 0].copy()


def _own_id(id_: str, taken: dict[str, bytes]) -> str:
    """File names repeat from folder to folder, ids may not."""
    number, own = 1, id_
    while own in taken:
        number += 1
        own = f"{id_}-{number}"
    return own


def _check_split_column(found: _Found, options: ImportOptions) -> None:
    """A column of splits that names none would be passed over, and the test lines be others than its maker's."""
    column = options.split_column
    if column not in (None, NO_COLUMN) and found.ids and not any(found.splits):
        raise UserError(
            f"--split-column {column}: no line has a split there that is known; write train, val or test"
            " (or training, validation, dev, eval, ...) into it, or leave it out"
        )


def _split(
    found: _Found,
    facts: pa.Table,
    seed: int,
    shares: tuple[float, float, float],
    split_by: SplitBy,
    warnings: list[str],
) -> tuple[list[Split], str]:
    if len(found.ids) < 3:
        reasons = sorted({item.reason for item in found.set_aside})
        why = f"; {len(found.set_aside)} were set aside: {', '.join(reasons)}" if reasons else ""
        raise UserError(f"--input: {len(found.ids)} usable lines, a corpus needs three{why}")
    known = Known(found.ids, _names(facts["writer"]), _names(facts["page"]), found.splits)
    return choose_splits(known, seed, shares, split_by, warnings)


def _names(column: pa.ChunkedArray) -> list[str | None]:
    """A column of few different names: each of them in memory once."""
    coded = column.combine_chunks().dictionary_encode()
    names = [*coded.dictionary.to_pylist(), None]
    return [names[code] for code in coded.indices.fill_null(len(names) - 1).to_pylist()]


def _content_warnings(found: _Found, facts: pa.Table) -> list[str]:
    warnings = []
    if facts.num_rows and facts["text"].null_count == facts.num_rows:
        warnings.append("no line has a text: this corpus serves pre-training only")
    left_out, total = len(found.set_aside), len(found.set_aside) + len(found.ids)
    if left_out > _MANY_SET_ASIDE * total:
        warnings.append(f"{left_out} of {total} items ({left_out / total:.0%}) were set aside; see why")
    return warnings
