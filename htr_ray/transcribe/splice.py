"""Changing an XML file at some of its elements, with every other byte kept.

A parser and a serialiser would give the same tree, but not the same file: quotation marks, line ends and blanks
inside tags would change all over it, and people who keep their XML in git could not see what was written. So
lxml says which elements are meant, expat where they stand in the file, and only those places are replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.parsers import expat
from xml.sax.saxutils import escape

from lxml import etree

from htr_ray.corpus.importers.layout import LayoutError, read_xml

_START_TAG = re.compile(rb"""<(?:[^<>"']|"[^"]*"|'[^']*')*>""")
_NAME = re.compile(rb"<([^\s/>]+)")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=/>]+)\s*=\s*("[^"]*"|'[^']*')""")
# Characters that no XML 1.0 file can hold, not even as a reference.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BOMS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}


@dataclass(slots=True)
class _Span:
    """Where an element stands, in bytes of the file as UTF-8."""

    start: int
    inside: int = 0
    """Behind its start tag."""
    close: int = 0
    """Before its end tag; ``inside`` for an element that is one tag."""
    end: int = 0


class Document:
    """An XML file and the changes to it."""

    def __init__(self, data: bytes) -> None:
        """Parse a file. Raises LayoutError as ``read_xml`` does, and for an encoding that Python does not know."""
        self.root = read_xml(data)
        self._encoding = _BOMS.get(data[:2]) or self.root.getroottree().docinfo.encoding or "utf-8"
        try:
            text = data.decode(self._encoding)
            same = text.encode(self._encoding) == data
        except (LookupError, UnicodeError):
            same = False
        if not same:
            raise LayoutError("XML cannot be written", f"its encoding {self._encoding} is not supported; use UTF-8")
        self._data = text.encode()
        # The elements are kept: lxml would make new ones, which are not found in a dict.
        elements = list(self.root.iter("*"))
        self._spans = dict(zip(elements, _spans(self._data, len(elements)), strict=True))
        self._edits: list[tuple[int, int, bytes]] = []

    def result(self) -> bytes:
        """The file with the changes; what its encoding lacks is written as a character reference.

        Raises LayoutError when changes overlap, as in lines inside of lines.
        """
        pieces, position = [], 0
        for start, end, new in sorted(self._edits):
            if start < position:
                raise LayoutError("XML cannot be written", "one of its lines is inside another")
            pieces += [self._data[position:start], new]
            position = end
        text = b"".join([*pieces, self._data[position:]]).decode()
        return text.encode(self._encoding, "xmlcharrefreplace")

    def name_like(self, element: etree._Element, name: str) -> str:
        """``name`` with the namespace prefix that ``element`` is written with."""
        found = _NAME.match(self._data, self._spans[element].start)
        assert found is not None
        prefix, colon, _ = found[1].decode().rpartition(":")
        return f"{prefix}{colon}{name}"

    def set_attributes(self, element: etree._Element, **values: str | None) -> None:
        """Change attributes of an element; None: leave it out. Once for each element, before any ``set_text``."""
        span = self._spans[element]
        tag = self._data[span.start : span.inside]
        name = _NAME.match(tag)
        assert name is not None
        pieces, position, left = [tag[: name.end()]], name.end(), dict(values)
        for attribute in _ATTRIBUTE.finditer(tag, name.end()):
            key = attribute[1].decode()
            if key in left:
                pieces.append(tag[position : attribute.start()])
                value = left.pop(key)
                if value is not None:
                    pieces += [tag[attribute.start() : attribute.start(2)], quoted(value).encode()]
                position = attribute.end()
            else:
                pieces.append(tag[position : attribute.end()])
                position = attribute.end()
        new = [b" " + key.encode() + b"=" + quoted(value).encode() for key, value in left.items() if value is not None]
        self._edits.append((span.start, span.inside, b"".join([*pieces, *new, tag[position:]])))

    def set_text(self, element: etree._Element, text: str) -> None:
        """Replace all that is inside an element."""
        span, new = self._spans[element], content(text).encode()
        if span.close == span.end:
            self._open(span, new)
        else:
            self._edits.append((span.inside, span.close, new))

    def remove(self, element: etree._Element) -> None:
        """Take an element out, and the white space before it."""
        span = self._spans[element]
        self._edits.append((self._indent(span.start), span.end, b""))

    def insert(self, parent: etree._Element, after: etree._Element | None, markup: str) -> None:
        """Put markup into ``parent`` behind its child ``after`` (None: first), indented as that child is."""
        span, new = self._spans[parent], markup.encode()
        if span.close == span.end:
            self._open(span, new)
        elif after is None:
            self._edits.append((span.inside, span.inside, new))
        else:
            sibling = self._spans[after]
            indent = self._data[self._indent(sibling.start) : sibling.start]
            self._edits.append((sibling.end, sibling.end, indent + new))

    def _indent(self, place: int) -> int:
        """Where the white space before a place begins."""
        while place and self._data[place - 1] in b" \t\r\n":
            place -= 1
        return place

    def _open(self, span: _Span, inside: bytes) -> None:
        """``<a/>`` -> ``<a>inside</a>``."""
        tag = self._data[span.start : span.end]
        name = _NAME.match(tag)
        assert name is not None
        new = tag[:-2].rstrip() + b">" + inside + b"</" + name[1] + b">"
        self._edits.append((span.start, span.end, new))


def content(text: str) -> str:
    """A text as it stands inside an element; U+FFFD for each character that XML cannot hold."""
    return escape(_ILLEGAL.sub("\ufffd", text), {"\r": "&#13;"})


def quoted(value: str) -> str:
    """A value as it stands in a start tag, with its quotation marks."""
    # A parser would turn a bare tab or line end into a blank.
    entities = {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    return '"' + escape(_ILLEGAL.sub("\ufffd", value), entities) + '"'


def _spans(data: bytes, count: int) -> list[_Span]:
    """Where the elements stand, in document order. Raises LayoutError when expat sees others than lxml did."""
    parser = expat.ParserCreate("UTF-8")
    spans: list[_Span] = []
    open_: list[_Span] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        span = _Span(parser.CurrentByteIndex)
        tag = _START_TAG.match(data, span.start)
        span.inside = tag.end() if tag else span.start
        spans.append(span)
        open_.append(span)

    def end(name: str) -> None:
        span = open_.pop()
        place = parser.CurrentByteIndex
        empty = data[span.inside - 2 : span.inside] == b"/>"
        span.close, span.end = (span.inside,) * 2 if empty else (place, data.index(b">", place) + 1)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise LayoutError("XML cannot be written", f"expat says: {error}") from None
    if len(spans) != count:
        raise LayoutError("XML cannot be written", f"two parsers see {count} and {len(spans)} elements")
    return spans
