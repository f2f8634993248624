"""A picture of a pretext task: what it made of some lines, and what the model answered."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from htr_ray.corpus.fonts import best_font
from htr_ray.corpus.images import decode_grey

_MARGIN, _GAP = 16, 20
_LINE_WIDTH, _VIEW_WIDTH, _ANSWER_WIDTH = 420, 400, 340
_IMAGE_HEIGHT = 64
_TITLE_SIZE, _TEXT_SIZE, _SMALL = 22, 16, 13
_SIGN = 24
_BLACK, _GREY = (0, 0, 0), (100, 100, 100)
# Green and vermillion of Okabe and Ito, darkened to be read on white; the signs differ, too.
_RIGHT, _WRONG, _HALF = (0, 110, 80), (170, 60, 0), (120, 90, 0)


def pretext_preview(preview: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """PNG: per row the line, the task's view of it, the right answer, and the model's with a tick or a cross.

    ``preview`` is a trial's ``preview.json``: dicts with ``line`` and ``view`` (base64 of an image file), ``answer``,
    ``guess`` and ``right`` (share of its answers that are right, 0 to 1).
    """
    width = 2 * _MARGIN + _LINE_WIDTH + _VIEW_WIDTH + _ANSWER_WIDTH + 2 * _GAP
    rows = [_row(entry, width) for entry in preview]
    heading = _heading(preview, title, width)
    sheet = Image.new("RGB", (width, heading.height + sum(row.height for row in rows) + _MARGIN), "white")
    top = 0
    for part in [heading, *rows]:
        sheet.paste(part, (0, top))
        top += part.height
    sink = io.BytesIO()
    sheet.save(sink, "PNG")
    return sink.getvalue()


def _heading(preview: Sequence[Mapping[str, Any]], title: str, width: int) -> Image.Image:
    image = Image.new("RGB", (width, 96), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, 12), title, font=best_font(title, _TITLE_SIZE)[0], fill=_BLACK)
    if preview:
        accuracy = 100 * sum(float(entry["right"]) for entry in preview) / len(preview)
        told = f"{accuracy:.0f} % of the answers to these {len(preview)} lines are right"
    else:
        told = "No lines were kept for a preview."
    draw.text((_MARGIN, 42), told, font=best_font(told, _TEXT_SIZE)[0], fill=_GREY)
    if preview:
        for left, name in zip(
            _columns(),
            ("line", "what the model sees", "right answer, and the model's (✓ right, ✗ wrong, ~ in part)"),
            strict=True,
        ):
            draw.text((left, 72), name, font=best_font(name, _SMALL)[0], fill=_GREY)
    return image


def _row(entry: Mapping[str, Any], width: int) -> Image.Image:
    row = Image.new("RGB", (width, _IMAGE_HEIGHT + 2 * 10), "white")
    draw = ImageDraw.Draw(row)
    draw.line((_MARGIN, 0, width - _MARGIN, 0), fill=(220, 220, 220))
    first, second, third = _columns()
    row.paste(_image(entry["line"], _LINE_WIDTH), (first, 10))
    row.paste(_image(entry["view"], _VIEW_WIDTH), (second, 10))
    right = float(entry["right"])
    sign, colour = ("✓", _RIGHT) if right >= 1 else ("✗", _WRONG) if right <= 0 else ("~", _HALF)
    share = "" if right in (0.0, 1.0) else f" ({100 * right:.0f} % right)"
    told = [("   ", str(entry["answer"]), _BLACK), (sign, str(entry["guess"]) + share, colour)]
    for number, (head, text, fill) in enumerate(told):
        top = 14 + 28 * number
        draw.text((third, top), head, font=best_font(head, _TEXT_SIZE)[0], fill=fill)
        draw.text((third + _SIGN, top), text, font=_fitting(text, _ANSWER_WIDTH - _SIGN), fill=fill)
    return row


def _fitting(text: str, width: int) -> ImageFont.FreeTypeFont:
    """The largest font in which the text is no wider than ``width``, within reason."""
    fonts = [best_font(text, size)[0] for size in range(_TEXT_SIZE, 8, -1)]
    return next((font for font in fonts if font.getlength(text) <= width), fonts[-1])


def _columns() -> tuple[int, int, int]:
    second = _MARGIN + _LINE_WIDTH + _GAP
    return _MARGIN, second, second + _VIEW_WIDTH + _GAP


def _image(data: str, width: int) -> Image.Image:
    try:
        image = Image.fromarray(decode_grey(base64.b64decode(data)))
    except (ValueError, binascii.Error) as error:
        image = Image.new("RGB", (width, _IMAGE_HEIGHT), "mistyrose")
        ImageDraw.Draw(image).text((8, 20), str(error), font=best_font("", _TEXT_SIZE)[0], fill=_BLACK)
        return image
    scale = min(_IMAGE_HEIGHT / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
