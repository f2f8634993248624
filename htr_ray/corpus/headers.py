"""What the first bytes of a JPEG or PNG file say, without decoding it: two microseconds instead of twenty."""

from __future__ import annotations

import re
import struct
from typing import Literal, NamedTuple

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_PNG_HEADER = struct.Struct(">I4sIIBB")
_GREY_PNG = 0
_JPEG_FRAME = struct.Struct(">BHHB")
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# Baseline and extended Huffman coding (ITU-T T.81, table B.1): one scan that holds the whole picture.
_FRAMES = (0xC0, 0xC1)
_EXIF, _MULTIPLE, _ADOBE, _START_OF_SCAN = 0xE1, 0xE2, 0xEE, 0xDA
# In a scan, FF stands before 00 or as a restart marker. Any other is the end, or damage that not every decoder reports.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


class Header(NamedTuple):
    """A plain image: upright, opaque, 8 bits, one frame, complete as far as its first and last bytes tell."""

    kind: Literal["PNG", "JPEG"]
    width: int
    height: int
    channels: int
    """1: grey; 3: colour as luminance and chrominance (JPEG only)."""


def plain_header(data: bytes) -> Header | None:
    """The header of a plain grey PNG, or a plain grey or colour JPEG; None for every other file.

    None is no verdict: it only means that the file needs a reader that knows orientation, palettes, transparency,
    16 bits, other colour spaces and damage.
    """
    if data.startswith(_JPEG) and data.endswith(_JPEG_END):
        return _jpeg(data)
    if data.startswith(_PNG) and data.endswith(_PNG_END):
        return _png(data)
    return None


def _png(data: bytes) -> Header | None:
    if len(data) < 33:
        return None
    length, kind, width, height, depth, colour = _PNG_HEADER.unpack_from(data, 8)
    if (length, kind, depth, colour) != (13, b"IHDR", 8, _GREY_PNG) or b"tRNS" in data or b"eXIf" in data:
        return None
    # Animated PNG: the first picture is not always the whole one.
    return None if b"acTL" in data else Header("PNG", width, height, 1)


def _jpeg(data: bytes) -> Header | None:
    """Walk the segments up to the scan, and look for the end of it."""
    place, end, found, transform = 2, len(data) - 4, None, 1
    while place < end and data[place] == 0xFF:
        marker, length = data[place + 1], data[place + 2] << 8 | data[place + 3]
        body, next_place = place + 4, place + 2 + length
        if length < 2 or next_place > end:
            return None
        if marker == _START_OF_SCAN:
            if found is None or (found.channels == 3 and transform != 1):
                return None
            closing = _MARKER.search(data, next_place)
            return found if closing is not None and closing.start() == len(data) - 2 else None
        if (marker == _EXIF and data.startswith(b"Exif\0", body)) or (
            marker == _MULTIPLE and data.startswith(b"MPF\0", body)
        ):
            return None
        if marker == _ADOBE and length >= 14 and data.startswith(b"Adobe", body):
            transform = data[body + 11]
        elif marker in _FRAMES and found is None and length >= 11:
            found = _frame(data, body, length)
            if found is None:
                return None
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
        place = next_place
    return None


def _frame(data: bytes, body: int, length: int) -> Header | None:
    depth, height, width, channels = _JPEG_FRAME.unpack_from(data, body)
    if depth != 8 or channels not in (1, 3) or length != 8 + 3 * channels:
        return None
    # Components of other names may be red, green and blue.
    if channels == 3 and data[body + 6 : body + 15 : 3] != b"\1\2\3":
        return None
    return Header("JPEG", width, height, channels)
