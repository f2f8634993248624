"""Importer ``alto``: page images with their lines in ALTO XML, versions 1 to 4."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from lxml import etree

from htr_ray.corpus.importers.layout import (
    Box,
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
alto: page images with ALTO XML, versions 1 to 4 (eScriptorium, kraken, Transkribus, ABBYY, Gallica).
  --input is a folder (read with those inside it), one XML file or a pattern such as 'wills/*/*.xml'

    wills/AD78/0003-1.xml   wills/AD78/0003-1.jpg    lines with baseline, polygon or box, and text
    wills/AD78/0009-1.xml   wills/AD78/0009-1.jpg

  The image is the one that the XML names (fileName), or else has the name of the XML; it lies beside the
  XML, or above a folder named alto, or anywhere below --images. Lines are cut out along their baseline.
  Several XML files for one image are refused until --xml chooses: --xml '*.chocomufin.xml', or all but
  those: --xml '!*.chocomufin.xml'. A page without any text gives unlabelled lines. With --writer-from folder
  (the default) the folder of the XML names the writer (AD78), with page each page is a writer of its own.
"""
# The hyphen at the end of a line is drawn, whatever the soft hyphen that stands for it may suggest.
_SOFT_HYPHEN = "\u00ad"
_HYPHENS = "-\u00ac\u2010\u2e17="


def units(uri: str, options: ImportOptions) -> Iterator[PageUnit | SetAside]:
    """Yield one unit per ALTO file; XML of another kind is set aside.

    Raises UserError when there is no ALTO file, or several for one image.
    """
    return find_units("alto", uri, options)


def parse(data: bytes) -> Layout:
    """Read an ALTO file. Raises LayoutError for what is not XML, or not ALTO."""
    root = read_xml(data)
    if local_name(root).lower() != "alto":
        raise LayoutError("not ALTO XML", f"its root is <{local_name(root)}>")
    page = next(root.iter("{*}Page"), None)
    unit = (root.findtext(".//{*}MeasurementUnit") or "pixel").strip()
    name = (root.findtext(".//{*}fileName") or "").strip()
    return Layout(
        lines=tuple(_line(*found, index) for index, found in enumerate(text_lines(root))),
        image=name or None,
        width=None if page is None else number(page.get("WIDTH")),
        height=None if page is None else number(page.get("HEIGHT")),
        unit=unit,
    )


def _line(element: etree._Element, region: int, page: int, index: int) -> LayoutLine:
    box = _box(element) or enclosing_box(_box(string) for string in element.iterfind("{*}String"))
    shape = element.find("{*}Shape/{*}Polygon")
    polygon = None if shape is None else points(shape.get("POINTS"))
    return LayoutLine(
        id=element.get("ID") or f"line-{index + 1}",
        text=_text(element),
        polygon=polygon,
        baseline=_baseline(element.get("BASELINE"), polygon, box),
        box=box,
        region=region,
        page=page,
    )


def _box(element: etree._Element) -> Box | None:
    left, top, width, height = (number(element.get(name)) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
    if left is None or top is None or width is None or height is None or width <= 0 or height <= 0:
        return None
    return left, top, left + width, top + height


def _baseline(text: str | None, polygon: np.ndarray | None, box: Box | None) -> np.ndarray | None:
    """The baseline's points (ALTO 4), or a horizontal line at the one number that ALTO 2 and 3 tell."""
    height = number(text)
    if height is None:
        found = points(text)
        return found if found is not None and len(found) > 1 else None
    if polygon is not None:
        (left, top), (right, bottom) = polygon.min(0), polygon.max(0)
    elif box is not None:
        left, top, right, bottom = box
    else:
        return None
    # Some programs count from elsewhere than the top of the page: such a number tells nothing.
    return np.array([[left, height], [right, height]]) if top <= height <= bottom else None


def _text(line: etree._Element) -> str | None:
    """The text as it stands on the line: a word cut in two by the line's end stays cut."""
    parts: list[str] = []
    children = [
        (local_name(child), child.get("CONTENT")) for child in line.iterchildren("{*}String", "{*}SP", "{*}HYP")
    ]
    # A String is a word. Where a file has no SP at all, the blanks go without saying.
    spaced = any(kind == "SP" for kind, _ in children)
    for kind, content in children:
        if kind == "SP":
            parts.append(" ")
        elif kind == "HYP":
            hyphen = (content or "-").replace(_SOFT_HYPHEN, "-")
            # Some programs write the hyphen in both places.
            if not (parts and parts[-1].endswith(tuple(_HYPHENS + _SOFT_HYPHEN))):
                parts.append(hyphen)
        else:
            if parts and not spaced:
                parts.append(" ")
            parts.append(content or "")
    text = "".join(parts).rstrip()
    # A soft hyphen at the very end is a hyphen too.
    text = text[:-1] + "-" if text.endswith(_SOFT_HYPHEN) else text
    return text if text.strip() else None
