"""Writing readings into ALTO and PAGE files; every byte that is not the text of a line stays as it was.

ALTO: a line has one ``String`` with the whole text in CONTENT and its confidence in WC. The first String there
was stays where it is, with its ID and styles; further ones, SP, HYP, Glyph and ALTERNATIVE go, for they tell an
older reading. Where there was more than one, or none, the String has the place of the line (HPOS ... HEIGHT).

PAGE: a line has one ``TextEquiv`` with the text in Unicode (and in PlainText, where there was one) and conf.
Further TextEquivs go, and those of its words and glyphs; these keep their outlines. A region that has a text of
its own gets the texts of its lines, one below the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from lxml import etree

from htr_ray.corpus.importers import alto, page
from htr_ray.corpus.importers.layout import LayoutLine, local_name, number, text_lines
from htr_ray.corpus.importers.pages import Kind
from htr_ray.transcribe.splice import Document, content, quoted

Existing = Literal["replace", "keep"]
_PLACE = ("HPOS", "VPOS", "WIDTH", "HEIGHT")
_ALTO_TEXT = ("String", "SP", "HYP")
# What an older reading said of itself.
_STALE: dict[str, None] = {"CC": None, "SUBS_TYPE": None, "SUBS_CONTENT": None}
# In the schema, a line's TextEquiv comes behind these.
_BEFORE_TEXT = ("AlternativeImage", "Coords", "Baseline", "Word")


class Written(NamedTuple):
    """What is written into a line."""

    text: str
    confidence: float
    """0 to 1."""


def write_texts(kind: Kind, data: bytes, texts: Mapping[int, Written], existing: Existing = "replace") -> bytes:
    """Return the file with ``texts``, by the number of the line in the order of the file (``layout.text_lines``).

    Lines without a number there stay as they are; with ``existing`` "keep", so do those that have a text. Raises
    LayoutError when the file cannot be written (see ``splice.Document``).
    """
    document = Document(data)
    parse = alto.parse if kind == "alto" else page.parse
    found = list(zip(text_lines(document.root), parse(data).lines, strict=True))
    changed: dict[etree._Element, str] = {}
    for index, ((element, _, _), line) in enumerate(found):
        written = texts.get(index)
        if written is None or (existing == "keep" and line.text and line.text.strip()):
            continue
        changed[element] = written.text
        (_write_alto if kind == "alto" else _write_page)(document, element, line, written)
    if kind == "page":
        _write_regions(document, changed, {element: line.text or "" for (element, _, _), line in found})
    return document.result()


def _confidence(written: Written) -> str:
    return f"{min(max(written.confidence, 0.0), 1.0):.4f}"


# --- ALTO ---------------------------------------------------------------------------------------------------


def _write_alto(document: Document, element: etree._Element, line: LayoutLine, written: Written) -> None:
    children = list(element.iterchildren("*"))
    old = [child for child in children if local_name(child) in _ALTO_TEXT]
    first = next((child for child in old if local_name(child) == "String"), None)
    values: dict[str, str | None] = {"CONTENT": written.text, "WC": _confidence(written)}
    for child in old:
        if child is not first:
            document.remove(child)
    if first is None:
        given = " ".join(f"{key}={quoted(value or '')}" for key, value in (values | _place(element, line)).items())
        after = next((child for child in reversed(children) if child not in old), None)
        document.insert(element, after, f"<{document.name_like(element, 'String')} {given}/>")
        return
    document.set_attributes(first, **values, **_STALE, **(_place(element, line) if len(old) > 1 else {}))
    for child in first.iterchildren("*"):
        if local_name(child) != "Shape" or len(old) > 1:
            document.remove(child)


def _place(element: etree._Element, line: LayoutLine) -> dict[str, str | None]:
    """Where the line is, as the file writes it, or else as its polygon or its words tell."""
    told = {name: element.get(name) for name in _PLACE}
    if all(number(value) is not None for value in told.values()):
        return told
    box = line.box
    if line.polygon is not None:
        box = (*line.polygon.min(0).tolist(), *line.polygon.max(0).tolist())
    if box is None:
        return {}
    left, top, right, bottom = box
    return {name: f"{value:g}" for name, value in zip(_PLACE, (left, top, right - left, bottom - top), strict=True)}


# --- PAGE ---------------------------------------------------------------------------------------------------


def _write_page(document: Document, element: etree._Element, line: LayoutLine, written: Written) -> None:
    for inner in element.iterfind("{*}Word"):
        for text in inner.iterfind(".//{*}TextEquiv"):
            document.remove(text)
    if not _rewrite(document, element, written.text, _confidence(written)):
        equiv, unicode = (document.name_like(element, name) for name in ("TextEquiv", "Unicode"))
        before = [child for child in element.iterchildren("*") if local_name(child) in _BEFORE_TEXT]
        markup = f'<{equiv} conf="{_confidence(written)}"><{unicode}>{content(written.text)}</{unicode}></{equiv}>'
        document.insert(element, before[-1] if before else None, markup)


def _rewrite(document: Document, element: etree._Element, text: str, confidence: str | None) -> bool:
    """Change the main TextEquiv of an element and take out the others; False: it has none."""
    old = list(element.iterfind("{*}TextEquiv"))
    if not old:
        return False
    main = min(old, key=lambda reading: number(reading.get("index")) or 0)
    for reading in old:
        if reading is not main:
            document.remove(reading)
    parts = list(main.iterchildren("*"))
    unicode = next((part for part in parts if local_name(part) == "Unicode"), None)
    if unicode is None and not parts and not (main.text or "").strip():
        # Nothing to keep of an element that lacks what the schema demands.
        document.remove(main)
        return False
    document.set_attributes(main, conf=confidence)
    for part in parts:
        if local_name(part) in ("Unicode", "PlainText"):
            document.set_text(part, text)
    if unicode is None:
        name = document.name_like(main, "Unicode")
        document.insert(main, parts[-1] if parts else None, f"<{name}>{content(text)}</{name}>")
    return True


def _write_regions(
    document: Document, changed: Mapping[etree._Element, str], old: Mapping[etree._Element, str]
) -> None:
    regions = dict.fromkeys(element.getparent() for element in changed)
    for region in regions:
        if region is not None and region.find("{*}TextEquiv") is not None:
            lines = [changed.get(line, old.get(line, "")) for line in region.iterfind("{*}TextLine")]
            _rewrite(document, region, "\n".join(lines), None)
