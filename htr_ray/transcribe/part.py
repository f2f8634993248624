"""What is left behind: part files with the readings, XML pages, and the figures of each part."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from htr_ray import storage
from htr_ray.corpus.importers.check import in_parallel
from htr_ray.corpus.importers.layout import LayoutError
from htr_ray.errors import UserError
from htr_ray.train.metrics import ErrorCount
from htr_ray.transcribe.lines import TRUTH_LEFT_OUT, Chunk, Line, XmlPage
from htr_ray.transcribe.page_xml import Existing, Written, write_texts

LINES, PAGES = "lines", "pages"
NOT_READ = "not read"
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("page", pa.string()),
        pa.field("split", pa.string()),
        pa.field("source", pa.string()),
        pa.field("text", pa.string()),
        pa.field("confidence", pa.float32()),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("truth", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
_KEY = b"htr_ray"
_NAME = re.compile(r"part-(\d{6}-[0-9a-f]{8})-(\d{4,})(-end)?\.parquet")
_LEFT_OVER = re.compile(r"\..*\.tmp$")


@dataclass
class Tally:
    """Figures of some lines; they add up."""

    lines: int = 0
    read: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Unreadable lines, by reason."""
    truths_left_out: int = 0
    """Lines that were read, but whose truth is no line of text."""
    pages: int = 0
    """XML files written."""
    pages_unwritten: int = 0
    """XML files that could not be written, though their lines could be read; each line's ``detail`` says why."""
    errors: dict[str, list[int]] = field(default_factory=dict)
    """``ErrorCount.as_list()`` by split ("": not in a split)."""

    def add(self, other: Tally) -> None:
        self.lines += other.lines
        self.read += other.read
        for reason, count in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        self.truths_left_out += other.truths_left_out
        self.pages += other.pages
        self.pages_unwritten += other.pages_unwritten
        for split, counts in other.errors.items():
            mine = self.errors.setdefault(split, [0] * len(counts))
            self.errors[split] = [a + b for a, b in zip(mine, counts, strict=True)]

    @property
    def unreadable(self) -> int:
        return sum(self.reasons.values())

    def errors_of(self, split: str | None = None) -> ErrorCount | None:
        """Errors of a split, or of all; None: no line there has a truth."""
        chosen = [counts for name, counts in self.errors.items() if split in (None, name)]
        return ErrorCount(*map(sum, zip(*chosen, strict=True))) if chosen else None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Tally:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Output:
    """Where results go."""

    uri: str
    base: str
    """The folder of the input: pages keep their paths relative to it."""
    existing: Existing = "replace"

    def write(self, chunk: Chunk) -> Tally:
        """Write the pages of a chunk, then its part file, which is what says that the chunk is done."""
        pages = sum(self._write_page(xml, chunk.lines[xml.first : xml.end]) for xml in chunk.pages)
        tally = tally_of(chunk.lines)
        tally.pages, tally.pages_unwritten = pages, len(chunk.pages) - pages
        table = pa.Table.from_pylist([_row(line) for line in chunk.lines], schema=SCHEMA)
        name = f"part-{chunk.task}-{chunk.number:04d}{'-end' if chunk.last else ''}.parquet"
        with storage.open_output(storage.join(self.uri, LINES, name)) as stream:
            pq.write_table(
                table.replace_schema_metadata({_KEY: tally.to_json()}),
                stream,
                compression="zstd",
                use_dictionary=["page", "split", "source", "reason"],
            )
        return tally

    def _write_page(self, xml: XmlPage, lines: list[Line]) -> bool:
        texts = {
            line.place: Written(line.reading.text, line.reading.confidence)
            for line in lines
            if line.reading is not None and line.place >= 0
        }
        try:
            data = write_texts(xml.kind, xml.data, texts, self.existing)
        except LayoutError as error:
            # The lines were read and are in the table; that their page could not be written is told by each.
            for line in lines:
                line.detail = "; ".join(filter(None, [line.detail, f"{error.args[0]}: {error.args[1]}"]))
            return False
        storage.write_bytes(storage.join(self.uri, PAGES, relative(xml.uri, self.base)), data)
        return True

    def done(self) -> dict[str, list[str]]:
        """URIs of the parts of each task that is done, in order, by the task's name."""
        place = storage.join(self.uri, LINES)
        if not storage.exists(place):
            return {}
        found: dict[str, dict[int, str]] = {}
        ends: dict[str, int] = {}
        for name in storage.listdir(place):
            match = _NAME.fullmatch(name)
            if match is not None:
                found.setdefault(match[1], {})[int(match[2])] = storage.join(place, name)
                if match[3]:
                    ends[match[1]] = int(match[2])
        return {
            task: [found[task][number] for number in range(end + 1)]
            for task, end in sorted(ends.items())
            if all(number in found[task] for number in range(end + 1))
        }

    def clear(self, keep: Iterable[str]) -> None:
        """Remove parts other than ``keep`` (of inputs that are gone), and what a killed process left."""
        kept = set(keep)
        for folder in (LINES, PAGES):
            place = storage.join(self.uri, folder)
            for name in storage.walk(place) if storage.exists(place) else ():
                uri = storage.join(place, name)
                own = folder == LINES and _NAME.fullmatch(name) is not None
                if (own and uri not in kept) or _LEFT_OVER.search(name.rpartition("/")[2]):
                    storage.delete_file(uri)


def relative(uri: str, base: str) -> str:
    """The path of a file in the input."""
    uri, start = storage.without_query(uri), storage.without_query(base).rstrip("/") + "/"
    return uri[len(start) :] if uri.startswith(start) else uri.rpartition("/")[2]


def tally_of(lines: Iterable[Line]) -> Tally:
    """Count lines and errors."""
    tally = Tally()
    errors: dict[str, ErrorCount] = {}
    for line in lines:
        tally.lines += 1
        if line.reading is None:
            reason = line.reason or NOT_READ
            tally.reasons[reason] = tally.reasons.get(reason, 0) + 1
            continue
        tally.read += 1
        if line.truth is not None:
            errors.setdefault(line.split or "", ErrorCount()).add(line.truth, line.reading.text)
        elif (line.detail or "").startswith(TRUTH_LEFT_OUT):
            tally.truths_left_out += 1
    tally.errors = {split: count.as_list() for split, count in errors.items()}
    return tally


def tallies(parts: Iterable[str]) -> Iterator[Tally]:
    """The figures that parts were written with."""
    return in_parallel(_tally_in, parts)


def _tally_in(uri: str) -> Tally:
    with damage(uri), storage.open_input(uri) as stream:
        return Tally.from_json(pq.read_schema(stream).metadata[_KEY])


class damage:
    """Turns what pyarrow says of a damaged part into a UserError."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowException | KeyError | TypeError | json.JSONDecodeError):
            raise UserError(f"{self._uri}: damaged, or not written by this job ({error}); delete it") from error


def _row(line: Line) -> dict[str, Any]:
    reading = line.reading
    return {
        "id": line.id,
        "page": line.page,
        "split": line.split,
        "source": line.source or None,
        "text": None if reading is None else reading.text,
        "confidence": None if reading is None else reading.confidence,
        "scores": None if reading is None else reading.scores,
        "truth": line.truth,
        "reason": line.reason or (NOT_READ if reading is None else None),
        "detail": line.detail,
    }
