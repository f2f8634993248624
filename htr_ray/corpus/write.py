"""Writing a corpus so that nobody ever reads half of one."""

from __future__ import annotations

import io
import os
import random
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass, field
from functools import partial
from threading import Event
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr_ray import storage
from htr_ray.corpus.direction import direction_of_counts
from htr_ray.corpus.schema import (
    INFO_FILE,
    ROW_GROUP_LINES,
    SCHEMA,
    SPLITS,
    CorpusInfo,
    Line,
    SetAside,
    Split,
    SplitCounts,
)
from htr_ray.corpus.texts import measure
from htr_ray.errors import UserError

PART_ROW_GROUPS = 64
PART_LINES = PART_ROW_GROUPS * ROW_GROUP_LINES
_THREADS = 4
# Lines shuffled together, and the bytes that they may take, per split.
BUFFER_LINES = 16 * ROW_GROUP_LINES
BUFFER_BYTES = 128 << 20
# What a writer puts down, and the unfinished forms of it; nothing else in the folder is ever deleted.
_OURS = re.compile(
    r"(train|val|test)/part-[0-9a-f]{8}-\d{5}\.parquet|set_aside-[0-9a-f]{8}\.parquet"
    r"|(train|val|test)/\.part-[0-9a-f]{8}-.*\.tmp|\.(corpus\.json|set_aside-[0-9a-f]{8}\.parquet)\..*\.tmp"
)
_SET_ASIDE_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "reason", "detail")])


class CorpusWriter:
    """Write the corpus ``uri``; it exists when the ``with`` block has ended well, and not before.

    Parts get names of their own for every run and ``corpus.json``, written last, says which ones count.
    Rewriting a corpus that exists thus leaves the old one in place until the new one is whole; what an
    interrupted run left behind is removed after the next commit. ::

        with CorpusWriter("s3://bucket/corpora/dhsd", "dhsd", licence="CC-BY-4.0") as writer:
            writer.add(line, "train")

    Lines that come one by one are shuffled (``seed``) within a buffer of 4096, so that a row group mixes writers.
    Raises UserError when the storage fails, when no line was added to ``train``, or when another job has written
    the same corpus meanwhile.
    """

    def __init__(
        self, uri: str, name: str, *, licence: str = "", source: str = "", citation: str = "", seed: int = 0
    ) -> None:
        self.uri = storage.normalise(uri)
        self.split_by: str | None = None
        """Set it before the end of the block to have it recorded: writer, page or line."""
        self.warnings: list[str] = []
        self._about = {"name": name, "licence": licence, "source": source, "citation": citation, "seed": seed}
        self._run = secrets.token_hex(4)
        self._rng = random.Random(f"htr-ray order {seed}")
        self._names: dict[Split, list[str]] = {split: [] for split in SPLITS}
        self._open: dict[Split, _Part] = {}
        self._buffers: dict[Split, list[Line]] = {split: [] for split in SPLITS}
        self._bytes = dict.fromkeys(SPLITS, 0)
        self._held = {split: _Held() for split in SPLITS}
        self._set_aside: list[SetAside] = []

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._commit()
        except BaseException:
            self._abandon()
            raise

    def add(self, line: Line, split: Split) -> None:
        """Add a line to a split. Ids must be unique; the caller sees to that."""
        buffer = self._buffers[split]
        buffer.append(line)
        self._bytes[split] += len(line.image)
        if len(buffer) >= BUFFER_LINES or self._bytes[split] >= BUFFER_BYTES:
            # Row groups stay full: the remainder waits for company, if there is a full one before it.
            self._flush(split, keep=len(buffer) % ROW_GROUP_LINES if len(buffer) > ROW_GROUP_LINES else 0)

    def add_all(self, lines: Mapping[Split, int], read: Callable[[Split, int, int], pa.Table]) -> None:
        """Add many lines at once, in the order that they have, several parts of the corpus at a time.

        ``lines`` is their number in each split; ``read(split, start, stop)`` is called from several threads for the
        rows of one row group.
        """
        stop = Event()
        # As many parts are open, and row groups in memory, as there are threads.
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            futures = []
            try:
                for split, count in lines.items():
                    for start in range(0, count, PART_LINES):
                        end = min(start + PART_LINES, count)
                        uri = self._new_part(split)
                        futures.append((split, pool.submit(_write_part, uri, start, end, partial(read, split), stop)))
                for split, future in futures:
                    self._held[split].add(future.result())
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def set_aside(self, reason: str, id: str, detail: str = "") -> None:
        """Record a line that was left out, for ``set_aside`` in corpus.json and the file of details."""
        self._set_aside.append(SetAside(id, reason, detail))

    def _flush(self, split: Split, keep: int = 0) -> None:
        buffer = self._buffers[split]
        self._rng.shuffle(buffer)
        end = len(buffer) - keep
        for start in range(0, end, ROW_GROUP_LINES):
            rows = _table(buffer[start : min(start + ROW_GROUP_LINES, end)])
            self._held[split].count(rows)
            self._append(split, rows)
        self._buffers[split] = buffer[end:]
        self._bytes[split] = sum(len(line.image) for line in self._buffers[split])

    def _append(self, split: Split, rows: pa.Table) -> None:
        """Put a row group into the part that is open, or a new one."""
        part = self._open.get(split)
        if part is None:
            part = self._open[split] = _Part(self._new_part(split))
        part.write(rows)
        if part.groups == PART_ROW_GROUPS:
            self._open.pop(split).close()

    def _new_part(self, split: Split) -> str:
        names = self._names[split]
        names.append(f"part-{self._run}-{len(names):05d}.parquet")
        return storage.join(self.uri, split, names[-1])

    def _commit(self) -> None:
        for split in SPLITS:
            self._flush(split)
        while self._open:
            self._open.popitem()[1].close()
        held = self._held
        if not held["train"].lines:
            raise UserError(f"{self.uri}: no line for train, so there is no corpus to write")
        seen = held["train"].characters + held["val"].characters
        set_aside_file = self._write_set_aside()
        info = CorpusInfo(
            **self._about,  # type: ignore[arg-type]
            counts={split: held[split].counts() for split in SPLITS},
            alphabet="".join(sorted(seen)),
            direction=direction_of_counts(seen),
            alphabet_unseen="".join(sorted(set(held["test"].characters) - set(seen))),
            set_aside=dict(Counter(item.reason for item in self._set_aside).most_common()),
            set_aside_file=set_aside_file,
            files=self._names,
            split_by=self.split_by,
            warnings=self.warnings,
        )
        self._check_parts(info)
        storage.write_json(storage.join(self.uri, INFO_FILE), info.model_dump())
        self._remove_leftovers(info)

    def _write_set_aside(self) -> str | None:
        if not self._set_aside:
            return None
        columns = zip(*map(astuple, self._set_aside), strict=True)
        rows = dict(zip(("id", "reason", "detail"), map(list, columns), strict=True))
        sink = io.BytesIO()
        pq.write_table(pa.table(rows, schema=_SET_ASIDE_SCHEMA), sink, compression="zstd")
        name = f"set_aside-{self._run}.parquet"
        storage.write_bytes(storage.join(self.uri, name), sink.getvalue())
        return name

    def _check_parts(self, info: CorpusInfo) -> None:
        """Two jobs writing one corpus: the first to commit removes the other's parts as leftovers."""
        for split, names in info.files.items():
            folder = storage.join(self.uri, split)
            if names and not set(names) <= set(storage.listdir(folder) if storage.exists(folder) else []):
                raise UserError(f"{self.uri}: another job wrote this corpus meanwhile; run this one again")

    def _remove_leftovers(self, info: CorpusInfo) -> None:
        """Delete old parts. The corpus is committed: a failure here is litter, not an error."""
        wanted = {f"{split}/{name}" for split in SPLITS for name in info.files[split]} | {info.set_aside_file}
        with suppress(UserError):
            for name in storage.walk(self.uri):
                if _OURS.fullmatch(name) and name not in wanted:
                    storage.delete_file(storage.join(self.uri, name))

    def _abandon(self) -> None:
        """Best effort: a part that stays is a leftover that the next commit removes."""
        while self._open:
            self._open.popitem()[1].abandon()
        left = [storage.join(self.uri, split, name) for split in SPLITS for name in self._names[split]]
        for uri in [*left, storage.join(self.uri, f"set_aside-{self._run}.parquet")]:
            with suppress(UserError):
                storage.delete_file(uri)


@dataclass
class _Held:
    """What was written of a split."""

    lines: int = 0
    labelled: int = 0
    writers: set[str] = field(default_factory=set)
    characters: Counter[str] = field(default_factory=Counter)

    def count(self, rows: pa.Table) -> None:
        self.lines += rows.num_rows
        self.labelled += rows.num_rows - rows["text"].null_count
        self.writers.update(name for name in pc.unique(rows["writer"]).to_pylist() if name is not None)
        self.characters.update(measure(rows["text"]).characters)

    def add(self, other: _Held) -> None:
        self.lines += other.lines
        self.labelled += other.labelled
        self.writers |= other.writers
        self.characters.update(other.characters)

    def counts(self) -> SplitCounts:
        return SplitCounts(lines=self.lines, labelled=self.labelled, writers=len(self.writers))


def _table(lines: list[Line]) -> pa.Table:
    columns = zip(*map(astuple, lines), strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _write_part(uri: str, start: int, end: int, read: Callable[[int, int], pa.Table], stop: Event) -> _Held:
    """Write rows ``start`` to ``end`` to a file of their own; give up between two row groups when told to ``stop``."""
    held = _Held()
    part = _Part(uri)
    try:
        for first in range(start, end, ROW_GROUP_LINES):
            if stop.is_set():
                raise UserError(f"{uri}: abandoned")
            rows = read(first, min(first + ROW_GROUP_LINES, end))
            held.count(rows)
            part.write(rows)
        part.close()
    except BaseException:
        part.abandon()
        raise
    return held


class _Part:
    """A part file that is being written: whole when it is closed, and there only then."""

    def __init__(self, uri: str) -> None:
        self.groups = 0
        self._uri = uri
        self._stack = ExitStack()
        stream = self._stack.enter_context(storage.open_output(uri))
        # Images are compressed already; statistics of theirs would only be copies.
        self._writer = pq.ParquetWriter(
            stream,
            SCHEMA,
            compression={field.name: "none" if field.name == "image" else "zstd" for field in SCHEMA},
            use_dictionary=["writer", "page"],
            write_statistics=["width", "height", "writer", "page"],
        )
        self._stack.callback(self._writer.close)

    def write(self, rows: pa.Table) -> None:
        """Append one row group."""
        with storage.user_errors(self._uri):
            self._writer.write_table(rows, ROW_GROUP_LINES)
        self.groups += 1

    def close(self) -> None:
        self._stack.close()

    def abandon(self) -> None:
        error = UserError("abandoned")
        with suppress(Exception):
            self._stack.__exit__(type(error), error, None)
