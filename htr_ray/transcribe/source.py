"""What there is to read: which kind of input it is, its units, and the tasks they are put together to."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np

from htr_ray import storage
from htr_ray.config import TranscribeSettings
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.importers.check import in_parallel
from htr_ray.corpus.importers.names import is_hidden, is_image
from htr_ray.corpus.importers.pages import PageUnit
from htr_ray.corpus.importers.pairs import TEXT_SUFFIXES
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, Unit
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import INFO_FILE, SPLITS, SetAside, Split
from htr_ray.errors import UserError

CORPUS = "corpus"
FORMATS = (CORPUS, *IMPORTERS)
_HEAD = 1 << 16
# So many XML files tell the kind of all.
_SAMPLE = 32
_KINDS = {b"alto": "alto", b"pcgts": "page"}
_ROOT = re.compile(rb"<(?:[\w.-]+:)?(alto|PcGts)[\s/>]", re.IGNORECASE)
_TABLES = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson"})
# What is guessed of a unit that does not tell its lines.
_PAGE_LINES, _UNIT_LINES = 40, 256


@dataclass(frozen=True)
class CorpusGroup:
    """A row group of a corpus."""

    corpus: str
    """URI of the corpus."""
    file: str
    """URI of its part file."""
    row_group: int
    lines: int
    split: Split


Source = Unit | CorpusGroup | SetAside


@dataclass(frozen=True)
class Task:
    """Units that are read together; what is kept when a run is interrupted."""

    number: int
    units: tuple[Source, ...]

    @functools.cached_property
    def name(self) -> str:
        """The same for the same input: its parts are found again by it."""
        return f"{self.number:06d}-{blake2b(repr(self.units).encode(), digest_size=4).hexdigest()}"

    @property
    def lines(self) -> int:
        """About how many lines it has."""
        return sum(map(_size, self.units))


def recognise(uri: str, options: ImportOptions) -> str:
    """The format of an input, one of FORMATS. Raises UserError when it cannot be told."""
    whole = storage.normalise(uri)
    if not storage.exists(whole):
        return _of_pattern(uri, whole, options)
    if not storage.is_dir(whole):
        return _of_file(uri, whole)
    if storage.exists(storage.join(whole, INFO_FILE)):
        return CORPUS
    names = [name for name in storage.walk(whole) if not is_hidden(name)]
    xml = [storage.join(whole, name) for name in names if name.lower().endswith(".xml")]
    kinds = Counter(kind for kind in in_parallel(_xml_kind, _spread(xml)) if kind)
    if len(kinds) > 1:
        raise UserError(f"--input {uri}: holds ALTO and PAGE files; choose with --format alto or --format page")
    if kinds:
        return next(iter(kinds))
    if any(map(is_image, names)):
        return "pairs"
    if any(name.endswith(".parquet") for name in names):
        return "parquet"
    endings = ", ".join(sorted({PurePosixPath(name).suffix or name for name in names})[:10]) or "nothing"
    raise UserError(
        f"--input {uri}: neither a corpus (corpus.json), nor pages with ALTO or PAGE XML, nor line images; there is:"
        f" {endings}"
    )


def _of_pattern(uri: str, whole: str, options: ImportOptions) -> str:
    if whole.endswith(".parquet"):
        return "parquet"
    reasons = []
    for kind in ("alto", "page"):
        try:
            next(IMPORTERS[kind].units(uri, options))
            return kind
        except UserError as error:
            if " is ALTO " not in str(error) and " is PAGE " not in str(error):
                raise
            reasons.append(error)
    raise reasons[0]


def _of_file(uri: str, whole: str) -> str:
    suffix = PurePosixPath(whole.partition("?")[0]).suffix.lower()
    if suffix == ".xml":
        kind = _xml_kind(whole)
        if kind is None:
            raise UserError(f"--input {uri}: neither ALTO nor PAGE XML")
        return kind
    if suffix in _TABLES:
        return "table"
    if suffix == ".parquet":
        return "parquet"
    if is_image(whole):
        return "pairs"
    raise UserError(f"--input {uri}: not a file that can be read: an image, XML, a table or Parquet is expected")


def _spread(names: list[str]) -> list[str]:
    return names[:: max(1, len(names) // _SAMPLE)]


def _xml_kind(uri: str) -> str | None:
    with storage.open_input(uri) as stream:
        # UTF-16 has a NUL beside each letter.
        found = _ROOT.search(stream.read(_HEAD).replace(b"\0", b""))
    return _KINDS[found[1].lower()] if found else None


def base_of(uri: str) -> str:
    """The folder that the names of an input are relative to."""
    whole = storage.normalise(uri)
    if not storage.exists(whole):
        whole = re.split(r"[*?\[]", whole, maxsplit=1)[0] + "x"
    elif storage.is_dir(whole):
        return whole
    return whole.rpartition("/")[0] or "/"


def list_units(format: str, uri: str, options: ImportOptions, splits: tuple[Split, ...] = ()) -> Iterator[Source]:
    """Cut the input into units. ``splits``: those of a corpus to read; none: all.

    Raises UserError when there is nothing to read.
    """
    if splits and format != CORPUS:
        raise UserError(f"--split: only a corpus has splits, and --input {uri} is read as {format}")
    if format == CORPUS:
        yield from _corpus_units(uri, splits or SPLITS)
    elif format == "pairs" and not storage.is_dir(uri) and storage.exists(uri):
        yield _one_image(storage.normalise(uri), options)
    else:
        yield from IMPORTERS[format].units(uri, options)


def _corpus_units(uri: str, splits: tuple[Split, ...]) -> Iterator[CorpusGroup]:
    corpus = Corpus.open(uri)
    found = False
    for split in splits:
        index = corpus.index(split, columns=("width",))
        place = np.stack([index["file"].to_numpy(), index["row_group"].to_numpy()], axis=1)
        files = corpus.files(split)
        for (file, group), count in zip(*np.unique(place, axis=0, return_counts=True), strict=True):
            found = True
            yield CorpusGroup(corpus.uri, files[file], int(group), int(count), split)
    if not found:
        raise UserError(f"--input {uri}: the corpus has no line in {', '.join(splits)}")


def _one_image(uri: str, options: ImportOptions) -> ImageFiles:
    stem = uri[: -len(PurePosixPath(uri).suffix)]
    text = next((stem + suffix for suffix in TEXT_SUFFIXES if storage.exists(stem + suffix)), None)
    return ImageFiles((ImageRef(stem.rpartition("/")[2], uri, text_uri=text),), options.normalisation)


def tasks(units: Iterable[Source], settings: TranscribeSettings) -> Iterator[Task]:
    """Put units together: pages by ``part_pages``, images by ``part_lines``, others as they are."""
    number = 0
    waiting: list[Source] = []
    for unit in units:
        for piece in _pieces(unit, settings.part_lines):
            if waiting and _is_full(waiting, piece, settings):
                yield Task(number, tuple(waiting))
                number, waiting = number + 1, []
            waiting.append(piece)
    if waiting:
        yield Task(number, tuple(waiting))


def _pieces(unit: Source, lines: int) -> Iterator[Source]:
    if not isinstance(unit, ImageFiles) or len(unit.refs) <= lines:
        yield unit
        return
    for start in range(0, len(unit.refs), lines):
        yield replace(unit, refs=unit.refs[start : start + lines])


def _is_full(waiting: list[Source], unit: Source, settings: TranscribeSettings) -> bool:
    if isinstance(unit, PageUnit) and all(isinstance(one, PageUnit) for one in waiting):
        return len(waiting) >= settings.part_pages
    if isinstance(unit, SetAside) and all(isinstance(one, SetAside) for one in waiting):
        return len(waiting) >= settings.part_lines
    return True


def _size(unit: Source) -> int:
    if isinstance(unit, SetAside):
        return 1
    if isinstance(unit, CorpusGroup):
        return unit.lines
    if isinstance(unit, PageUnit):
        return _PAGE_LINES
    return len(unit.refs) if isinstance(unit, ImageFiles) else _UNIT_LINES
