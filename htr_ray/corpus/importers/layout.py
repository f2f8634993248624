"""The layout of a page: its lines with their geometry, as ALTO and PAGE files tell it; and how to read XML safely."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from lxml import etree

# No page is that large in any unit; such numbers are damage, and would cost memory.
_LARGEST = 1e6
_SEPARATORS = re.compile(r"[\s,;()]+")

Box = tuple[float, float, float, float]


class LayoutError(ValueError):
    """An XML file that tells no layout; the first argument is the reason, the second the detail."""


@dataclass(frozen=True, slots=True, eq=False)
class LayoutLine:
    """A line as the file tells it, in units of the page; what is missing or nonsense is None."""

    id: str
    """Unique within the file, if the file is sound."""
    text: str | None
    polygon: np.ndarray | None = None
    """``float64 [N, 2]`` (x, y), N >= 1; may be degenerate."""
    baseline: np.ndarray | None = None
    """``float64 [N, 2]`` (x, y), N >= 2, in reading direction, if the file is sound."""
    box: Box | None = None
    """Left, top, right, bottom."""
    region: int = 0
    """Which region of the page it is in, counted in the order of the file."""
    page: int = 0
    """Which page of the file it is on: 0, but for files of several pages."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file tells of its (first) page."""

    lines: tuple[LayoutLine, ...]
    """In the order of the file; those of further pages too."""
    image: str | None = None
    """Name of the page's image, as the file writes it."""
    width: float | None = None
    """In units of the page; None: not told."""
    height: float | None = None
    unit: str = "pixel"
    """``pixel``, ``mm10`` (tenths of a millimetre) or ``inch1200``."""


def read_xml(data: bytes) -> etree._Element:
    """Parse a file; return its root. Raises LayoutError "broken XML" with line and column.

    Nothing is fetched, and no entity is expanded: a file that declares some is refused, for its texts
    would come out with holes.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        # The parser's message ends with the place, too.
        message = (error.msg or "").partition(", line ")[0]
        raise LayoutError("broken XML", f"line {line}, column {column}: {message}") from None
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise LayoutError("broken XML", "it declares entities, which are not expanded for safety")
    return root


def local_name(element: etree._Element) -> str:
    """The name of an element without its namespace."""
    return etree.QName(element).localname


def text_lines(root: etree._Element) -> Iterator[tuple[etree._Element, int, int]]:
    """Every ``TextLine`` in the order of the file, with the numbers of its region and its page."""
    pages = {page: number for number, page in enumerate(root.iter("{*}Page"))}
    regions: dict[etree._Element | None, int] = {}
    for element in root.iter("{*}TextLine"):
        region = regions.setdefault(element.getparent(), len(regions))
        page = next((pages[above] for above in element.iterancestors("{*}Page")), 0)
        yield element, region, page


def number(text: str | None) -> float | None:
    """A finite number of sensible size, or None."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None


def points(text: str | None) -> np.ndarray | None:
    """Coordinates ``x,y x,y``, ``x y x y`` or ``(x, y) (x, y)`` as ``float64 [N, 2]``; None if one is no number."""
    values = [number(part) for part in _SEPARATORS.split(text or "") if part]
    if not values or len(values) % 2 or None in values:
        return None
    return np.array(values, np.float64).reshape(-1, 2)


def enclosing_box(boxes: Iterable[Box | None]) -> Box | None:
    """The smallest box around some boxes; None if there is none."""
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    left, top, right, bottom = zip(*known, strict=True)
    return min(left), min(top), max(right), max(bottom)
