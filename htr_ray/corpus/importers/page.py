"""Importer ``page``: page images with their lines in PAGE XML, versions 2009 to 2019."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from lxml import etree

from htr_ray.corpus.importers.layout import (
    Layout,
    LayoutError,
    LayoutLine,
    enclosing_box,
    local_name,
    number,
    points,
    read_xml,
    text_lines,
)
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.pages import PageUnit, find_units
from htr_ray.corpus.schema import SetAside

LAYOUT = """\
page: page images with PAGE XML, versions 2009 to 2019 (Transkribus, eScriptorium, Aletheia, OCR-D, LAREX).
  --input is a folder (read with those inside it), one XML file or a pattern such as 'charters/*/*.xml'

    charters/abrantes/1.xml        charters/abrantes/1.jpg      lines with baseline and polygon, and text
    charters/torres/page/1.xml     charters/torres/1.jpg        Transkribus: images above the folder page

  The image is the one that the XML names (imageFilename), or else has the name of the XML; it lies beside
  the XML, or above a folder named page, or anywhere below --images. Lines are cut out along their baseline.
  The text is the TextEquiv of lowest index, or that of the words. Several XML files for one image are refused
  until --xml chooses ('*.gt.xml', or all but those: '!*.gt.xml'). A page without any text gives unlabelled
  lines. With --writer-from folder (the default) the folder names the writer (abrantes, torres), with page
  each page is a writer of its own.
"""


def units(uri: str, options: ImportOptions) -> Iterator[PageUnit | SetAside]:
    """Yield one unit per PAGE file; XML of another kind is set aside.

    Raises UserError when there is no PAGE file, or several for one image.
    """
    return find_units("page", uri, options)


def parse(data: bytes) -> Layout:
    """Read a PAGE file. Raises LayoutError for what is not XML, or not PAGE."""
    root = read_xml(data)
    if local_name(root) != "PcGts":
        raise LayoutError("not PAGE XML", f"its root is <{local_name(root)}>")
    page = next(root.iter("{*}Page"), None)
    lines = tuple(_line(*found, index) for index, found in enumerate(text_lines(root)))
    if page is None:
        return Layout(lines)
    return Layout(
        lines=lines,
        image=(page.get("imageFilename") or "").strip() or None,
        width=number(page.get("imageWidth")),
        height=number(page.get("imageHeight")),
    )


def _line(element: etree._Element, region: int, page: int, index: int) -> LayoutLine:
    polygon = _points(element.find("{*}Coords"))
    baseline = _points(element.find("{*}Baseline"))
    words = (_points(word.find("{*}Coords")) for word in element.iterfind("{*}Word"))
    return LayoutLine(
        id=element.get("id") or f"line-{index + 1}",
        text=_text(element),
        polygon=polygon,
        baseline=baseline if baseline is not None and len(baseline) > 1 else None,
        box=enclosing_box((*word.min(0), *word.max(0)) for word in words if word is not None),
        region=region,
        page=page,
    )


def _points(element: etree._Element | None) -> np.ndarray | None:
    """``points="x,y x,y"`` since 2013, before that an element ``<Point x= y=/>`` for each."""
    if element is None:
        return None
    if element.get("points") is not None:
        return points(element.get("points"))
    return points(" ".join(f"{point.get('x')} {point.get('y')}" for point in element.iterfind("{*}Point")))


def _text(line: etree._Element) -> str | None:
    own = _transcription(line)
    if own is None:
        words = (_transcription(word) for word in line.iterfind("{*}Word"))
        own = " ".join(word for word in words if word is not None) or None
    return own


def _transcription(element: etree._Element) -> str | None:
    """The TextEquiv of lowest index, which is the main one; one without index counts as the first."""
    readings = list(element.iterfind("{*}TextEquiv"))
    if not readings:
        return None
    main = min(readings, key=lambda reading: number(reading.get("index")) or 0)
    unicode = main.find("{*}Unicode")
    text = "" if unicode is None else "".join(unicode.itertext()).strip()
    return text or None
