"""A sheet of test lines as one picture: image, truth and reading, letter under letter, with the errors marked."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from PIL import Image, ImageDraw, features

from htr_ray.corpus.direction import reorder
from htr_ray.corpus.fonts import best_font
from htr_ray.corpus.images import decode_grey
from htr_ray.report.alignment import checked, visible
from htr_ray.report.entries import Entry, Kind, Reading, choose, kind_of
from htr_ray.train.metrics import count_errors

_WIDTH, _MARGIN = 1100, 16
_IMAGE_HEIGHT = 48
_TITLE, _TEXT, _SMALL = 22, 20, 13
_ROW = 30
_LONGEST = 400
_BLACK, _GREY, _PALE = (17, 17, 17), (100, 100, 100), (215, 215, 215)
# Text on its tint; what sort of line is drawn says the same without colour.
_COLOURS: dict[Kind, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "wrong": ((154, 59, 0), (253, 233, 217)),
    "missed": ((0, 85, 138), (220, 238, 251)),
    "added": ((122, 42, 94), (249, 227, 241)),
}
_LEGEND: list[tuple[Kind, str]] = [("wrong", "misread"), ("missed", "missed"), ("added", "added")]


def reading_picture(readings: Iterable[Reading], images: Mapping[str, bytes], title: str, lines: int = 24) -> bytes:
    """PNG of ``lines`` test lines, those of ``choose(readings, lines)``: worst, best and some of the others.

    ``images`` are image files by line id; a line without says so. Misread letters are underlined, missed ones struck
    through in the truth, added ones framed in the reading. Raises UserError as ``choose`` does.
    """
    readings = checked(readings)
    parts = [_heading(readings, title)]
    for heading, found in choose(readings, lines).items():
        parts.append(_words(heading, _TITLE - 4, above=14))
        parts += [_line(Entry(line), images) for line in found]
    sheet = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _MARGIN), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    sink = io.BytesIO()
    sheet.save(sink, "PNG")
    return sink.getvalue()


def _heading(readings: Sequence[Reading], title: str) -> Image.Image:
    errors = count_errors((line["truth"], line["reading"]) for line in readings)
    told = f"CER {errors.cer:.2f} %, WER {errors.wer:.2f} % over {errors.lines} test line{'s' * (errors.lines != 1)}"
    top, below = _words(title, _TITLE, above=12), _words(told, _SMALL + 2, fill=_GREY)
    image = Image.new("RGB", (_WIDTH, top.height + below.height + 30), "white")
    image.paste(top, (0, 0))
    image.paste(below, (0, top.height))
    draw = ImageDraw.Draw(image)
    left = _MARGIN
    for kind, name in _LEGEND:
        left += 28 + _mark(draw, left, top.height + below.height, name, kind, _SMALL + 2)
    return image


def _words(text: str, size: int, above: int = 2, fill: tuple[int, int, int] = _BLACK) -> Image.Image:
    image = Image.new("RGB", (_WIDTH, size + above + 8), "white")
    font = best_font(text, size)[0]
    ImageDraw.Draw(image).text((_MARGIN, above), text, font=font, fill=fill)
    return image


def _line(entry: Entry, images: Mapping[str, bytes]) -> Image.Image:
    image = _image(images.get(entry.line["id"]))
    facts = _words(f"{entry.line['id']} - {entry.facts}", _SMALL, above=8, fill=_GREY)
    rows = _columns(entry) if entry.direction == "ltr" else _whole(entry)
    made = Image.new("RGB", (_WIDTH, facts.height + image.height + rows.height + 10), "white")
    draw = ImageDraw.Draw(made)
    draw.line((_MARGIN, 0, _WIDTH - _MARGIN, 0), fill=_PALE)
    made.paste(facts, (0, 1))
    made.paste(image, (_MARGIN, facts.height))
    made.paste(rows, (0, facts.height + image.height + 4))
    return made


def _columns(entry: Entry) -> Image.Image:
    """Truth over reading: words that are right as a whole, other letters in columns; wrapped where the line is long."""
    start = _MARGIN + 60
    left = float(start)
    row, spread = 0, 2 * _ROW + 8
    places: list[tuple[float, int, str, str]] = []
    for truth, read in _pieces(entry.letters):
        kind = kind_of(truth, read)
        width = max(_length(_drawable(text, kind == "same")) for text in (truth, read)) + (0 if kind == "same" else 3)
        if left + width > _WIDTH - _MARGIN and left > start:
            left, row = float(start), row + 1
        places.append((left, row, truth, read))
        left += width
    image = Image.new("RGB", (_WIDTH, (row + 1) * spread), "white")
    draw = ImageDraw.Draw(image)
    for top in range(0, image.height, spread):
        for side, name in enumerate(("truth", "read")):
            draw.text((_MARGIN, top + side * _ROW + 5), name, font=best_font(name, _SMALL)[0], fill=_GREY)
    for left, row, truth, read in places:
        for side, text in enumerate((truth, read)):
            if text:
                kind = kind_of(truth, read)
                _mark(draw, left, row * spread + side * _ROW, _drawable(text, kind == "same"), kind, _TEXT)
    if not entry.line["reading"]:
        draw.text((start, _ROW + 3), "(nothing)", font=best_font("", _SMALL)[0], fill=_GREY)
    return image


def _pieces(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What stays together on a row: a wrong letter, or right ones up to a blank."""
    whole = ""
    for truth, read in pairs:
        if truth == read:
            whole += truth
            # Whatever its length, a piece must fit a row.
            if truth.isspace() or _length(whole) > _LONGEST:
                yield whole, whole
                whole = ""
            continue
        if whole:
            yield whole, whole
            whole = ""
        yield truth, read
    if whole:
        yield whole, whole


def _whole(entry: Entry) -> Image.Image:
    """Right-to-left text: truth over reading as a whole, for letters are joined; the errors in words below."""
    errors = [f"{visible(truth)} → {visible(read)}" for truth, read in entry.letters if truth != read]
    image = Image.new("RGB", (_WIDTH, 2 * _ROW + (24 if errors else 0)), "white")
    draw = ImageDraw.Draw(image)
    for side, (name, text) in enumerate((("truth", entry.line["truth"]), ("read", entry.line["reading"]))):
        draw.text((_MARGIN, side * _ROW + 5), name, font=best_font(name, _SMALL)[0], fill=_GREY)
        place, font = (_WIDTH - _MARGIN, side * _ROW), best_font(text, _TEXT)[0]
        if features.check("raqm"):  # orders the letters by itself, and joins them
            draw.text(place, text, font=font, fill=_BLACK, anchor="ra", direction="rtl")
        else:
            draw.text(place, reorder(text), font=font, fill=_BLACK, anchor="ra")
    told = "   ".join(errors)
    draw.text((_MARGIN + 60, 2 * _ROW), told, font=best_font(told, _SMALL)[0], fill=_COLOURS["wrong"][0])
    return image


def _length(text: str) -> float:
    return best_font(text, _TEXT)[0].getlength(text)


def _mark(draw: ImageDraw.ImageDraw, left: float, top: int, text: str, kind: Kind, size: int) -> int:
    """Write a text in the manner of its kind; returns its width."""
    font = best_font(text, size)[0]
    width = round(font.getlength(text))
    if kind == "same":
        draw.text((left, top), text, font=font, fill=_BLACK)
        return width
    colour, tint = _COLOURS[kind]
    bottom = top + round(1.3 * size)
    draw.rectangle((left, top - 1, left + width + 1, bottom), fill=tint, outline=colour if kind == "added" else None)
    draw.text((left + 1, top), text, font=font, fill=colour)
    if kind == "wrong":
        draw.line((left, bottom, left + width + 1, bottom), fill=colour, width=2)
    elif kind == "missed":
        middle = top + round(0.7 * size)
        draw.line((left, middle, left + width + 1, middle), fill=colour, width=2)
    return width


def _drawable(text: str, same: bool) -> str:
    """The letter as it is drawn: blanks of errors visible, what no font has as its code point."""
    if not text:
        return ""
    if not same:
        text = visible(text)
    _, missing = best_font(text, _TEXT)
    return "".join(f"[U+{ord(c):04X}]" if c in missing else c for c in text)


def _image(data: bytes | None) -> Image.Image:
    try:
        image = Image.fromarray(decode_grey(data)) if data is not None else None
        reason = "no image at hand"
    except ValueError as error:
        image, reason = None, str(error)
    width = _WIDTH - 2 * _MARGIN
    if image is None:
        image = Image.new("RGB", (width, _IMAGE_HEIGHT), "mistyrose")
        ImageDraw.Draw(image).text((8, 14), reason, font=best_font("", _SMALL)[0], fill=_BLACK)
        return image
    scale = min(_IMAGE_HEIGHT / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
