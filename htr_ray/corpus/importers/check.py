"""From raw image and text to a line, or to the reason why not: what all importers share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

import numpy as np

from htr_ray.corpus.images import as_grey_file, encode_png
from htr_ray.corpus.schema import Imported, Line, SetAside, Split

_In = TypeVar("_In")
_Out = TypeVar("_Out")
# Reading from an object store waits, decoding releases the GIL: more threads than cores pay.
_THREADS = 16
_AHEAD = 128
# Byte order mark and zero-width space: leftovers of editors that no hand ever wrote.
_INVISIBLE = str.maketrans("", "", "\ufeff\u200b")
NO_IMAGE = "no image data"
"""Reason to set a line aside."""
Normalisation = Literal["NFC", "NFD", "NFKC", "NFKD", "none"]


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line as found, unchecked."""

    id: str
    image: bytes | np.ndarray | None
    """An encoded file of any format, or grey ``uint8 [H, W]``."""
    text: bytes | str | None
    """Bytes: UTF-8; None: unlabelled."""
    writer: str | None = None
    page: str | None = None
    split: Split | None = None


class TextError(ValueError):
    """A transcription that cannot be used; the first argument is the reason, the second the detail."""


def check_line(raw: RawLine, normalisation: Normalisation = "NFC") -> Imported | SetAside:
    """Decode the image, clean the text."""
    if raw.image is None:
        return SetAside(raw.id, NO_IMAGE)
    try:
        if isinstance(raw.image, np.ndarray):
            image, (height, width) = encode_png(raw.image), raw.image.shape
        else:
            image, width, height = as_grey_file(raw.image)
    except ValueError as error:
        return unreadable(raw.id, error)
    try:
        text = None if raw.text is None else clean_text(raw.text, normalisation)
    except TextError as error:
        return SetAside(raw.id, error.args[0], error.args[1])
    return Imported(Line(raw.id, image, width, height, text, raw.writer, raw.page), raw.split)


def unreadable(id: str, error: ValueError) -> SetAside:
    """What ``corpus/images.py`` says of an image that it cannot decode, "reason (detail)", as a set-aside line."""
    reason, _, detail = str(error).partition(" (")
    return SetAside(id, reason, detail.rstrip(")"))


def clean_text(data: bytes | str, normalisation: Normalisation = "NFC") -> str:
    """Decode a transcription: UTF-8 to a Unicode normal form, white space to single blanks.

    Raises TextError for what is not one line of text: empty, several lines, not UTF-8, control characters.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as error:
        assert isinstance(data, bytes)
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        hint = "it is UTF-16" if utf16 else f"byte 0x{data[error.start]:02X} at {error.start}"
        raise TextError("text is not UTF-8", hint) from None
    # Printable are most texts: no line break, control character or invisible sign, and no white space but blanks.
    text = text.strip(" ") if text.isprintable() else text.translate(_INVISIBLE).strip()
    if normalisation != "none":
        text = unicodedata.normalize(normalisation, text).strip()
    if not text:
        raise TextError("empty text", "")
    if text.isprintable() and "  " not in text and "\ufffd" not in text:
        return text
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
