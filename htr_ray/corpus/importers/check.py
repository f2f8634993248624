"""From raw image and text to a Line, or to the reason why not: what all importers share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from htr_ray.corpus.images import as_grey_file
from htr_ray.corpus.schema import Line, SetAside

_In = TypeVar("_In")
_Out = TypeVar("_Out")
# Reading from an object store waits, decoding releases the GIL: more threads than cores pay.
_THREADS = 16
_AHEAD = 128
# Byte order mark and zero-width space: leftovers of editors that no hand ever wrote.
_INVISIBLE = str.maketrans("", "", "\ufeff\u200b")


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as found, unchecked."""

    id: str
    image: bytes | None
    text: bytes | None
    """UTF-8; None: unlabelled."""
    writer: str | None = None
    page: str | None = None


class TextError(ValueError):
    """A transcription that cannot be used; the first argument is the reason, the second the detail."""


def check_line(raw: RawLine) -> Line | SetAside:
    """Decode the image, clean the text."""
    if raw.image is None:
        return SetAside(raw.id, "no image data")
    try:
        image, width, height = as_grey_file(raw.image)
    except ValueError as error:
        reason, _, detail = str(error).partition(" (")
        return SetAside(raw.id, reason, detail.rstrip(")"))
    try:
        text = None if raw.text is None else clean_text(raw.text)
    except TextError as error:
        return SetAside(raw.id, error.args[0], error.args[1])
    return Line(raw.id, image, width, height, text, raw.writer, raw.page)


def clean_text(data: bytes) -> str:
    """Decode a transcription: UTF-8 to NFC, white space to single blanks.

    Raises TextError for what is not one line of text: empty, several lines, not UTF-8, control characters.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        hint = "it is UTF-16" if utf16 else f"byte 0x{data[error.start]:02X} at {error.start}"
        raise TextError("text is not UTF-8", hint) from None
    text = unicodedata.normalize("NFC", text.translate(_INVISIBLE)).strip()
    if not text:
        raise TextError("empty text", "")
    if len(text.splitlines()) > 1:
        raise TextError("text has several lines", f"{len(text.splitlines())} lines")
    text = re.sub(r"\s+", " ", text)
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character == "\ufffd":
            raise TextError("damaged character in text", f"U+{ord(character):04X} in {text!r}")
    return text


def in_parallel(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Like ``map``, in order, by threads, never more than 128 items ahead of the consumer."""
    source = iter(items)
    with ThreadPoolExecutor(_THREADS) as pool:
        while chunk := list(islice(source, _AHEAD)):
            yield from pool.map(function, chunk)
