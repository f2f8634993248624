"""The lines of a task, decoded and scaled: the work of CPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import cv2
import numpy as np

from htr_ray import storage
from htr_ray.config import ModelSettings
from htr_ray.corpus import extract
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.importers import alto, page
from htr_ray.corpus.importers.check import NO_IMAGE, Normalisation, TextError, clean_text, in_parallel, unreadable
from htr_ray.corpus.importers.layout import Layout, LayoutError
from htr_ray.corpus.importers.pages import Kind, PageUnit, outlines
from htr_ray.corpus.importers.parquet import RowGroup
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, Unit, read_or_why
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SetAside
from htr_ray.errors import UserError
from htr_ray.model.recognizer import Reading
from htr_ray.stream.scale import scale_line
from htr_ray.transcribe.source import CorpusGroup, Source, Task

TRUTH_LEFT_OUT = "truth left out"


@dataclass(slots=True)
class Line:
    """A line on its way through: to be read, or with the reason why it cannot be."""

    id: str
    source: str = ""
    """URI of the file it is from: image, XML or Parquet."""
    page: str | None = None
    split: str | None = None
    truth: str | None = None
    image: np.ndarray | None = None
    """Grey, ``uint8 [height, W]`` of the model's height, until the line is read; None: unreadable."""
    reason: str | None = None
    detail: str | None = None
    """What exactly is wrong with the line; of one that was read, with its truth."""
    place: int = -1
    """Its number in the XML file."""
    reading: Reading | None = None


@dataclass(slots=True)
class XmlPage:
    """A page whose XML is to be written."""

    uri: str
    kind: Kind
    data: bytes
    first: int = 0
    """Its lines are ``lines[first:end]`` of the chunk."""
    end: int = 0


@dataclass(slots=True)
class Chunk:
    """Lines that are read and written together; some of a task."""

    task: str
    number: int
    """In its task."""
    last: bool = False
    lines: list[Line] = field(default_factory=list)
    pages: list[XmlPage] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """How lines become the input of a recognizer."""

    height: int
    width_scale: float
    max_width: int
    normalisation: Normalisation
    """Of the truth."""
    part_lines: int

    @classmethod
    def of(cls, model: ModelSettings, normalisation: Normalisation, part_lines: int) -> Recipe:
        return cls(model.height, model.width_scale, model.max_width, normalisation, part_lines)

    def fill(self, line: Line, image: bytes | np.ndarray | None) -> Line:
        """Put the image into a line, decoded and scaled, or else the reason why not."""
        if image is None:
            line.reason = NO_IMAGE
            return line
        try:
            grey = decode_grey(image) if isinstance(image, bytes) else image
            line.image = scale_line(grey, self.height, self.width_scale, self.max_width)
        except (ValueError, cv2.error, MemoryError) as error:
            fault = unreadable(line.id, ValueError(str(error).strip() or type(error).__name__))
            line.reason, line.detail = fault.reason, fault.detail
        return line

    def tell(self, line: Line, text: bytes | str | None) -> Line:
        """Put the truth into a line; one that is no line of text is not compared with, which ``detail`` then says."""
        if text is not None and text.strip():
            try:
                line.truth = clean_text(text, self.normalisation)
            except TextError as error:
                line.detail = ": ".join(part for part in (TRUTH_LEFT_OUT, *error.args) if part)
        return line


def chunks(task: Task, recipe: Recipe) -> Iterator[Chunk]:
    """Yield the lines of a task, ``part_lines`` at a time, in order; a page is never cut in two.

    Raises storage.Unavailable when a store does not answer; every other fault is told by a line.
    """
    cv2.setNumThreads(0)  # the processes of Ray are as many as the cores
    chunk = Chunk(task.name, 0)
    for lines, xml in _pieces(task, recipe):
        if len(chunk.lines) >= recipe.part_lines:
            yield chunk
            chunk = Chunk(task.name, chunk.number + 1)
        if xml is not None:
            xml.first, xml.end = len(chunk.lines), len(chunk.lines) + len(lines)
            chunk.pages.append(xml)
        chunk.lines += lines
    chunk.last = True
    yield chunk


def _pieces(task: Task, recipe: Recipe) -> Iterator[tuple[list[Line], XmlPage | None]]:
    for unit in task.units:
        if isinstance(unit, PageUnit):
            yield _page(unit, recipe)
        else:
            for line in _lines(unit, recipe):
                yield [line], None


def _lines(unit: Source, recipe: Recipe) -> Iterator[Line]:
    try:
        yield from _readable(unit, recipe)
    except storage.Unavailable:
        raise
    except UserError as error:  # a damaged Parquet file
        count = unit.lines if isinstance(unit, CorpusGroup) else 1
        place = f"{unit.file}#{unit.row_group}" if isinstance(unit, CorpusGroup) else str(getattr(unit, "uri", unit))
        for number in range(count):
            yield Line(f"{place}/{number}", place, reason="input cannot be read", detail=str(error))


def _readable(unit: Source, recipe: Recipe) -> Iterator[Line]:
    if isinstance(unit, SetAside):
        yield _aside(unit)
    elif isinstance(unit, CorpusGroup):
        rows = _open(unit.corpus).read_row_group(unit.file, unit.row_group, ("id", "image", "text", "page"))
        yield from in_parallel(functools.partial(_row, recipe, unit), rows.to_pylist())
    elif isinstance(unit, ImageFiles):
        yield from in_parallel(functools.partial(_file, recipe), unit.refs)
    elif isinstance(unit, RowGroup):
        for row in unit.rows():
            yield recipe.fill(recipe.tell(Line(row.id, unit.uri, row.page, row.split), row.text), row.image)
    else:
        yield from _of_importer(unit, recipe)


def _aside(item: SetAside, source: str = "") -> Line:
    return Line(item.id, source, reason=item.reason, detail=item.detail or None)


@functools.lru_cache(maxsize=4)
def _open(uri: str) -> Corpus:
    return Corpus.open(uri)


def _row(recipe: Recipe, unit: CorpusGroup, row: dict[str, Any]) -> Line:
    line = Line(row["id"], unit.file, row["page"], unit.split)
    return recipe.fill(recipe.tell(line, row["text"]), row["image"])


def _file(recipe: Recipe, ref: ImageRef) -> Line:
    line = Line(ref.id, ref.image, ref.page, ref.split)
    image = read_or_why(ref.id, ref.image)
    if isinstance(image, SetAside):
        line.reason, line.detail = image.reason, image.detail
        return line
    text = ref.text if ref.text_uri is None else read_or_why(ref.id, ref.text_uri)
    if isinstance(text, SetAside):
        line.detail = f"{TRUTH_LEFT_OUT}: {text.detail}"
        text = None
    return recipe.fill(recipe.tell(line, text), image)


def _of_importer(unit: Unit, recipe: Recipe) -> Iterator[Line]:
    """Lines of the other formats, as their importer gives them."""
    for item in unit.lines():
        source = getattr(unit, "uri", "")
        if isinstance(item, SetAside):
            yield _aside(item, source)
        else:
            found = item.line
            yield recipe.fill(Line(found.id, source, found.page, item.split, found.text), found.image)


# --- pages --------------------------------------------------------------------------------------------------


class _ReadPage(PageUnit):
    """A page that is to be read, not to be learnt from: what an importer would set aside for its text is a line."""

    @classmethod
    def of(cls, unit: PageUnit) -> _ReadPage:
        return cls(**{one.name: getattr(unit, one.name) for one in fields(unit)})

    def image_of(self, layout: Layout) -> np.ndarray:
        return self._image(layout)

    def each(self, layout: Layout, cut: Callable[[int], np.ndarray], recipe: Recipe) -> Iterator[Line]:
        """The lines of the page; ``cut`` gives the image of the one with that number, or raises LayoutError."""
        for place, found in enumerate(layout.lines):
            line = Line(f"{self.page}/{found.id}", self.xml, self.page, self.split, place=place)
            recipe.tell(line, found.text)
            try:
                if found.page:
                    raise LayoutError("line of a further page", f"page {found.page + 1} of {self.xml}")
                recipe.fill(line, cut(place))
            except LayoutError as error:
                line.reason, line.detail = error.args
            except extract.NoGeometry as error:
                line.reason, line.detail = "no geometry", str(error)
            yield line


def _page(unit: PageUnit, recipe: Recipe) -> tuple[list[Line], XmlPage | None]:
    """The lines of a page, and its XML unless that is broken. A page without lines is one line that says so."""
    read = _ReadPage.of(unit)
    data = read_or_why(unit.page, unit.xml)
    if isinstance(data, SetAside):
        return [_aside(data, unit.xml)], None
    try:
        layout = (alto.parse if unit.kind == "alto" else page.parse)(data)
    except LayoutError as error:
        return [Line(unit.page, unit.xml, unit.page, reason=error.args[0], detail=error.args[1])], None
    xml = XmlPage(unit.xml, unit.kind, data)
    if not layout.lines:
        return [Line(unit.page, unit.xml, unit.page, reason="page without lines", detail=unit.xml)], xml
    try:
        image = read.image_of(layout)
        found = outlines(layout, image.shape)
    except LayoutError as error:
        fault = error

        def refuse(place: int) -> np.ndarray:
            raise fault

        return list(read.each(layout, refuse, recipe)), xml
    cutter = extract.Page(image, found)
    return list(read.each(layout, lambda place: cutter.cut(found[place], unit.options.height), recipe)), xml
