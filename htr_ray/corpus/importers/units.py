"""Units: pieces of an input that can be turned into lines anywhere, by any worker.

An importer looks at names and lists only and cuts its input into units; the work - reading,
decoding, cutting lines out of pages - is the units', so that ``corpus/ingest.py`` can spread it
over a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from htr_ray import storage
from htr_ray.corpus.importers.check import Normalisation, RawLine, check_line, in_parallel
from htr_ray.corpus.schema import Imported, SetAside, Split
from htr_ray.errors import UserError

UNIT_LINES = 256
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How a file begins that git LFS left in place of one that was not downloaded."""
CANNOT_BE_READ, NOT_DOWNLOADED = "file cannot be read", "git LFS pointer"
"""Reasons to set a line aside."""


@runtime_checkable
class Unit(Protocol):
    """A few hundred lines at most. Small and picklable: it names its input, it does not hold it."""

    def lines(self) -> Iterator[Imported | SetAside]:
        """Yield every line, or why it was set aside, in a stable order.

        A fault of the input is set aside, never raised; a store that does not answer raises storage.Unavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A line image in a file of its own."""

    id: str
    image: str
    """URI of the image."""
    text: str | None = None
    text_uri: str | None = None
    """URI of a UTF-8 file with the text; None: ``text`` is the text (None: unlabelled)."""
    writer: str | None = None
    page: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class ImageFiles:
    """Some line images."""

    refs: tuple[ImageRef, ...]
    normalisation: Normalisation = "NFC"

    def lines(self) -> Iterator[Imported | SetAside]:
        yield from in_parallel(partial(_read_line, self.normalisation), self.refs)


def image_units(
    items: Iterable[ImageRef | SetAside], normalisation: Normalisation = "NFC"
) -> Iterator[ImageFiles | SetAside]:
    """Cut a sequence of images into units as it comes; what is set aside already goes ahead of its unit."""
    refs: list[ImageRef] = []
    for item in items:
        if isinstance(item, SetAside):
            yield item
            continue
        refs.append(item)
        if len(refs) == UNIT_LINES:
            yield ImageFiles(tuple(refs), normalisation)
            refs = []
    if refs:
        yield ImageFiles(tuple(refs), normalisation)


def read_or_why(id: str, uri: str) -> bytes | SetAside:
    """The bytes of a file, or why they cannot be had.

    One file that cannot be read is set aside; a store that does not answer concerns all of them and is raised.
    """
    try:
        data = storage.read_bytes(uri)
    except UserError as error:
        if isinstance(error, storage.Unavailable) and not storage.is_local(uri):
            raise
        return SetAside(id, CANNOT_BE_READ, str(error))
    if data.startswith(LFS_POINTER):
        return SetAside(id, NOT_DOWNLOADED, f"{uri}: the file itself was not downloaded; see git lfs pull")
    return data


def _read_line(normalisation: Normalisation, ref: ImageRef) -> Imported | SetAside:
    image = read_or_why(ref.id, ref.image)
    if isinstance(image, SetAside):
        return image
    text = ref.text if ref.text_uri is None else read_or_why(ref.id, ref.text_uri)
    if isinstance(text, SetAside):
        return text
    return check_line(RawLine(ref.id, image, text, ref.writer, ref.page, ref.split), normalisation)
