"""Writing a corpus so that nobody ever reads half of one."""

from __future__ import annotations

import io
import random
import re
import secrets
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import astuple
from types import TracebackType

import pyarrow as pa
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
from htr_ray.errors import UserError

PART_ROW_GROUPS = 64
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

    Lines are shuffled (``seed``) within a buffer of 4096, so that a row group mixes writers. Raises
    UserError when the storage fails, when no line was added to ``train``, or when another job has written
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
        self._parts = {split: _Parts(storage.join(self.uri, split), self._run) for split in SPLITS}
        self._buffers: dict[Split, list[Line]] = {split: [] for split in SPLITS}
        self._bytes = dict.fromkeys(SPLITS, 0)
        self._counts = {split: SplitCounts() for split in SPLITS}
        self._writers: dict[Split, set[str]] = {split: set() for split in SPLITS}
        self._characters: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
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
        counts = self._counts[split]
        counts.lines += 1
        if line.text is not None:
            counts.labelled += 1
            self._characters[split].update(line.text)
        if line.writer is not None:
            self._writers[split].add(line.writer)
        if len(buffer) >= BUFFER_LINES or self._bytes[split] >= BUFFER_BYTES:
            # Row groups stay full: the remainder waits for company, if there is a full one before it.
            self._flush(split, keep=len(buffer) % ROW_GROUP_LINES if len(buffer) > ROW_GROUP_LINES else 0)

    def set_aside(self, reason: str, id: str, detail: str = "") -> None:
        """Record a line that was left out, for ``set_aside`` in corpus.json and the file of details."""
        self._set_aside.append(SetAside(id, reason, detail))

    def _flush(self, split: Split, keep: int = 0) -> None:
        buffer = self._buffers[split]
        self._rng.shuffle(buffer)
        end = len(buffer) - keep
        for start in range(0, end, ROW_GROUP_LINES):
            self._parts[split].write(buffer[start : min(start + ROW_GROUP_LINES, end)])
        self._buffers[split] = buffer[end:]
        self._bytes[split] = sum(len(line.image) for line in self._buffers[split])

    def _commit(self) -> None:
        for split in SPLITS:
            self._flush(split)
            self._parts[split].close()
        if not self._counts["train"].lines:
            raise UserError(f"{self.uri}: no line for train, so there is no corpus to write")
        for split in SPLITS:
            self._counts[split].writers = len(self._writers[split])
        seen = self._characters["train"] + self._characters["val"]
        set_aside_file = self._write_set_aside()
        info = CorpusInfo(
            **self._about,  # type: ignore[arg-type]
            counts=self._counts,
            alphabet="".join(sorted(seen)),
            direction=direction_of_counts(seen),
            alphabet_unseen="".join(sorted(set(self._characters["test"]) - set(seen))),
            set_aside=dict(Counter(item.reason for item in self._set_aside).most_common()),
            set_aside_file=set_aside_file,
            files={split: self._parts[split].names for split in SPLITS},
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
        for parts in self._parts.values():
            parts.abandon()
        with suppress(UserError):
            storage.delete_file(storage.join(self.uri, f"set_aside-{self._run}.parquet"))


class _Parts:
    """The part files of one split, one open at a time."""

    def __init__(self, folder: str, run: str) -> None:
        self.names: list[str] = []
        self._folder = folder
        self._run = run
        self._groups = 0
        self._open: tuple[ExitStack, pq.ParquetWriter] | None = None

    def write(self, lines: list[Line]) -> None:
        """Append one row group."""
        if self._open is None:
            self._start()
        assert self._open is not None
        columns = zip(*map(astuple, lines), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        with storage.user_errors(storage.join(self._folder, self.names[-1])):
            self._open[1].write_table(pa.Table.from_arrays(arrays, schema=SCHEMA), ROW_GROUP_LINES)
        self._groups += 1
        if self._groups == PART_ROW_GROUPS:
            self.close()

    def _start(self) -> None:
        name = f"part-{self._run}-{len(self.names):05d}.parquet"
        stack = ExitStack()
        stream = stack.enter_context(storage.open_output(storage.join(self._folder, name)))
        # Images are compressed already; statistics of theirs would only be copies.
        writer = pq.ParquetWriter(
            stream,
            SCHEMA,
            compression={field.name: "none" if field.name == "image" else "zstd" for field in SCHEMA},
            use_dictionary=["writer", "page"],
            write_statistics=["width", "height", "writer", "page"],
        )
        stack.callback(writer.close)
        self._open = stack, writer
        self._groups = 0
        self.names.append(name)

    def close(self) -> None:
        if self._open is not None:
            stack, self._open = self._open[0], None
            stack.close()

    def abandon(self) -> None:
        """Best effort: a part that stays is a leftover that the next commit removes."""
        if self._open is not None:
            stack, self._open = self._open[0], None
            error = UserError("abandoned")
            with suppress(Exception):
                stack.__exit__(type(error), error, None)
        for name in self.names:
            with suppress(UserError):
                storage.delete_file(storage.join(self._folder, name))
