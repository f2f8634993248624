"""Importer ``cvl``: the CVL database of writers, its lines or words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

from htr_ray.corpus.importers.check import Normalisation, RawLine, check_line, in_parallel
from htr_ray.corpus.importers.layout import LayoutError, read_xml
from htr_ray.corpus.importers.listing import Listing, packed, printable, read_oddly_named
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.splits import split_named
from htr_ray.corpus.importers.units import ImageRef, read_or_why
from htr_ray.corpus.schema import Imported, SetAside, Split
from htr_ray.errors import UserError

LAYOUT = """\
cvl: the CVL database (https://zenodo.org/records/1492267), as its archive unpacks.
  --input is the folder cvl-database-1-1, or one that holds it

    trainset/words/0001/0001-1-0-0-Imagine.tif   writer, text, line, word and transcription (--level words)
    trainset/lines/0001/0001-1-0.tif             writer, text and line (--level lines, the default)
    trainset/xml/0001-1_attributes.xml           the words of each line (optional)
    testset/...                                  the same; folders name the split

  Texts of lines are the words that the XML gives, or else those that the names in words/ give, joined by
  blanks; the database has no punctuation. Names with damaged umlauts (Latin-1, DOS, UTF-8 read as Latin-1) are
  understood, and mend the umlauts that some XML lacks.
"""
_WORD = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)-(.*)", re.DOTALL)
_LINE = re.compile(r"(\d+)-(\d+)-(\d+)")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
# Where DOS (code page 850) has umlauts and sharp s, Windows has quotation marks and "á".
_DOS = frozenset(range(0x80, 0xA0)) | {0xE1}


@dataclass(frozen=True, slots=True)
class Page:
    """What a writer wrote of one text."""

    xml: str | None
    """URI; None: there is none, or it is not needed."""
    refs: tuple[ImageRef, ...]
    words: tuple[tuple[tuple[int, int], str], ...] = ()
    """Line, word, and the text that the file name gives."""


@dataclass(frozen=True)
class Pages:
    """Some pages."""

    pages: tuple[Page, ...]
    normalisation: Normalisation

    def lines(self) -> Iterator[Imported | SetAside]:
        items = [item for page in self.pages for item in _with_texts(page)]
        yield from in_parallel(partial(_read_line, self.normalisation), items)


def units(uri: str, options: ImportOptions) -> Iterator[Pages | SetAside]:
    """Yield the words or lines of both sets, page by page.

    Raises UserError when there are none.
    """
    listing = Listing(uri, "cvl", odd_names=True)
    refs: dict[str, list[ImageRef]] = {}
    words: dict[str, list[tuple[tuple[int, int], str]]] = {}
    for name in listing.images():
        level, split = _place(name)
        if level is None:
            continue
        stem = PurePosixPath(name).name.rpartition(".")[0]
        match = (_WORD if level == "words" else _LINE).fullmatch(stem)
        if match is None:
            if level == options.level:
                yield SetAside(printable(name), "file name that cannot be read", "expected 0001-1-0-0-Imagine.tif")
            continue
        page = f"{match[1]}-{match[2]}"
        if level == "words":
            words.setdefault(page, []).append(((int(match[3]), int(match[4])), mend(match[5])))
        if level == options.level:
            id = "-".join(match.groups()[:4])
            text = mend(match[5]) if level == "words" else None
            ref = ImageRef(id, listing.path(name), text, writer=match[1], page=page, split=split)
            refs.setdefault(page, []).append(ref)
    if not refs:
        example = "trainset/lines/0001/0001-1-0.tif" if options.level == "lines" else "0001-1-0-0-Imagine.tif"
        raise UserError(f"--input {uri}: no image of {options.level} such as {example}; see --help for the layout")
    if options.level == "words":
        pages = [Page(None, tuple(its)) for its in refs.values()]
    else:
        xml = _xml_of_pages(listing)
        pages = [Page(xml.get(page), tuple(its), tuple(words.get(page, ()))) for page, its in refs.items()]
    for some in packed(pages, lambda page: len(page.refs)):
        yield Pages(some, options.normalisation)


def mend(text: str) -> str:
    """The text in a file name, whichever way an archiver spoilt it."""
    data = text.encode("utf-8", "surrogateescape")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        dos = any(byte in _DOS for byte in data)
        return data.decode("cp850" if dos else "cp1252", "replace")
    try:
        # "fÃ¼r": UTF-8 that was taken for Latin-1. A true "für" is no UTF-8 in Latin-1, and stays.
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


def _place(name: str) -> tuple[str | None, Split | None]:
    """Level and split, by the folders."""
    parts = [part.lower() for part in PurePosixPath(name).parts[:-1]]
    level = next((part for part in parts if part in ("words", "lines")), None)
    return level, next((split for part in parts if (split := split_named(part))), None)


def _xml_of_pages(listing: Listing) -> dict[str, str]:
    names = (name for name in listing.names if name.lower().endswith(".xml"))
    found = ((re.match(r"\d+-\d+(?=\.|_)", PurePosixPath(name).name), name) for name in names)
    return {match[0]: listing.path(name) for match, name in found if match}


def _with_texts(page: Page) -> Iterator[ImageRef | SetAside]:
    if page.refs and page.refs[0].text is not None:
        yield from page.refs
        return
    named = dict(page.words)
    read = _read_xml(page.xml) if page.xml else {}
    lines: dict[int, dict[int, str]] = {}
    for (line, word), text in named.items():
        lines.setdefault(line, {})[word] = text
    if isinstance(read, dict):
        for line, texts in read.items():
            lines[line] = {word: _fuller(text, named.get((line, word), "")) for word, text in texts.items()}
    for ref in page.refs:
        words = lines.get(int(ref.id.rpartition("-")[2]))
        if words:
            yield replace(ref, text=" ".join(words[word] for word in sorted(words)))
        elif isinstance(read, SetAside):
            yield replace(read, id=ref.id)
        else:
            yield SetAside(ref.id, "image without transcription", "neither XML nor word images of this line")


def _fuller(text: str, named: str) -> str:
    """The text, or the one in the name when the text is the same without its umlauts."""
    lost = len(named) > len(text) and _ascii(named) == _ascii(text)
    return named if lost else text


def _ascii(text: str) -> str:
    return "".join(character for character in text if character.isascii())


def _read_xml(uri: str) -> dict[int, dict[int, str]] | SetAside:
    """The words of a page, by line and word."""
    data = read_or_why("", uri)
    if isinstance(data, SetAside):
        return data
    try:
        root = read_xml(data)
    except LayoutError:
        # Many declare UTF-16 and are Latin-1 or UTF-8.
        try:
            root = read_xml(_DECLARATION.sub("", mend(data.decode("utf-8", "surrogateescape"))).encode())
        except LayoutError as error:
            reason, detail = error.args
            return SetAside("", reason, f"{uri}: {detail}")
    lines: dict[int, dict[int, str]] = {}
    for element in root.iter("{*}AttrRegion"):
        id = re.fullmatch(r"\d+-\d+-(\d+)-(\d+)", element.get("id", ""))
        text = mend(element.get("text", "")).strip()
        if element.get("attrType") == "1" and id and text:
            lines.setdefault(int(id[1]), {})[int(id[2])] = text
    return lines


def _read_line(normalisation: Normalisation, item: ImageRef | SetAside) -> Imported | SetAside:
    if isinstance(item, SetAside):
        return item
    image = read_oddly_named(item.id, item.image)
    if isinstance(image, SetAside):
        return image
    return check_line(RawLine(item.id, image, item.text, item.writer, item.page, item.split), normalisation)
