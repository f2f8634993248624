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
"""Pixels: the most that a line and a view take, and what is kept for the answers."""
_NARROWEST = 150
_IMAGE_HEIGHT = 64
_TITLE_SIZE, _TEXT_SIZE, _SMALL = 22, 16, 13
_SIGN = 24
_HEADING, _ROW = 96, _IMAGE_HEIGHT + 20
_BLACK, _GREY = (0, 0, 0), (100, 100, 100)
# Green and vermillion of Okabe and Ito, darkened to be read on white; the signs differ, too.
_RIGHT, _WRONG, _HALF = (0, 110, 80), (170, 60, 0), (120, 90, 0)


def pretext_preview(preview: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """PNG: per row the line, the task's view of it, the right answer, and the model's with a tick or a cross.

    ``preview`` is a trial's ``preview.json``: dicts with ``line`` and ``view`` (base64 of an image file), ``answer``,
    ``guess`` and ``right`` (share of its answers that are right, 0 to 1).
    """
    images = [(_image(entry["line"], _LINE_WIDTH), _image(entry["view"], _VIEW_WIDTH)) for entry in preview]
    # Columns as wide as what stands in them.
    second = _MARGIN + _GAP + max((line.width for line, _ in images), default=_NARROWEST)
    third = second + _GAP + max(_NARROWEST, max((view.width for _, view in images), default=0))
    width = max(third + _ANSWER_WIDTH + _MARGIN, _MARGIN + round(_font(title, _TITLE_SIZE).getlength(title)) + _MARGIN)
    sheet = Image.new("RGB", (width, _HEADING + _ROW * len(preview) + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 12), title, font=_font(title, _TITLE_SIZE), fill=_BLACK)
    told = _accuracy(preview)
    draw.text((_MARGIN, 42), told, font=_font(told, _SMALL), fill=_GREY)
    if preview:
        for left, name in (
            (_MARGIN, "line"),
            (second, "what the model sees"),
            (third + _SIGN, "right answer, model's"),
        ):
            draw.text((left, 72), name, font=_font(name, _SMALL), fill=_GREY)
    for number, (entry, (line, view)) in enumerate(zip(preview, images, strict=True)):
        top = _HEADING + number * _ROW
        draw.line((_MARGIN, top, width - _MARGIN, top), fill=(220, 220, 220))
        sheet.paste(line, (_MARGIN, top + 10))
        sheet.paste(view, (second, top + 10))
        _answers(draw, entry, third, top + 14)
    sink = io.BytesIO()
    sheet.save(sink, "PNG")
    return sink.getvalue()


def _accuracy(preview: Sequence[Mapping[str, Any]]) -> str:
    if not preview:
        return "No lines were kept for a preview."
    share = 100 * sum(float(entry["right"]) for entry in preview) / len(preview)
    return f"{share:.0f} % of the answers to these {len(preview)} lines are right (✓ right, ✗ wrong, ~ in part)"


def _answers(draw: ImageDraw.ImageDraw, entry: Mapping[str, Any], left: int, top: int) -> None:
    right = float(entry["right"])
    sign, colour = ("✓", _RIGHT) if right >= 1 else ("✗", _WRONG) if right <= 0 else ("~", _HALF)
    share = "" if right in (0.0, 1.0) else f" ({100 * right:.0f} % right)"
    for head, text, fill in (("", str(entry["answer"]), _BLACK), (sign, str(entry["guess"]) + share, colour)):
        draw.text((left, top), head, font=_font(head, _TEXT_SIZE), fill=fill)
        draw.text((left + _SIGN, top), text, font=_fitting(text, _ANSWER_WIDTH - _SIGN), fill=fill)
        top += 28


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    return best_font(text, size)[0]


def _fitting(text: str, width: int) -> ImageFont.FreeTypeFont:
    """The largest font in which the text is no wider than ``width``, within reason."""
    fonts = [_font(text, size) for size in range(_TEXT_SIZE, 8, -1)]
    return next((font for font in fonts if font.getlength(text) <= width), fonts[-1])


def _image(data: str, width: int) -> Image.Image:
    try:
        image = Image.fromarray(decode_grey(base64.b64decode(data)))
    except (ValueError, binascii.Error) as error:
        image = Image.new("RGB", (width, _IMAGE_HEIGHT), "mistyrose")
        ImageDraw.Draw(image).text((8, 20), str(error), font=_font("", _TEXT_SIZE), fill=_BLACK)
        return image
    scale = min(_IMAGE_HEIGHT / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
