"""A sheet of test lines as one picture: image, truth and reading, letter under letter, with the errors marked."""

from __future__ import annotations

import io
import unicodedata
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
_TEXT_LEFT = _MARGIN + 60
_LONGEST = 400
_ERROR = 110
"""Width of an entry of a list of errors."""
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
        width = round(best_font(name, _SMALL + 2)[0].getlength(name)) + 6
        _mark(draw, (left, top.height + below.height), width, name, kind, _SMALL + 2)
        left += width + 28
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
    left, row, spread = float(_TEXT_LEFT), 0, 2 * _ROW + 8
    places: list[tuple[float, int, float, str, str]] = []
    for truth, read in _pieces(entry.letters):
        same = truth == read
        width = max(_length(_drawable(text, same)) for text in (truth, read)) + (0 if same else 3)
        if left + width > _WIDTH - _MARGIN and left > _TEXT_LEFT:
            left, row = float(_TEXT_LEFT), row + 1
        places.append((left, row, width, truth, read))
        left += width
    image = Image.new("RGB", (_WIDTH, (row + 1) * spread), "white")
    draw = ImageDraw.Draw(image)
    for top in range(0, image.height, spread):
        _names(draw, top, top + _ROW)
    for left, row, width, truth, read in places:
        kind = kind_of(truth, read)
        for side, text in enumerate((truth, read)):
            if text:
                _mark(draw, (left, row * spread + side * _ROW), width, _drawable(text, kind == "same"), kind, _TEXT)
    if not entry.line["reading"]:
        draw.text((_TEXT_LEFT, _ROW + 5), "(nothing)", font=best_font("", _SMALL)[0], fill=_GREY)
    return image


def _pieces(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What stays together on a row: a wrong letter, or right ones up to a blank."""
    whole = ""
    for truth, read in pairs:
        if truth == read:
            whole += truth
            # Whatever its length, a piece must fit a row.
            if not truth.isspace() and _length(_drawable(whole, True)) <= _LONGEST:
                continue
        if whole:
            yield whole, whole
            whole = ""
        if truth != read:
            yield truth, read
    if whole:
        yield whole, whole


def _whole(entry: Entry) -> Image.Image:
    """Right-to-left text: truth and reading as a whole, for letters are joined; the errors in a list below."""
    texts = [_wrapped(entry.line[side]) for side in ("truth", "reading")]
    errors = [(visible(truth), visible(read)) for truth, read in entry.letters if truth != read]
    per_row = (_WIDTH - _TEXT_LEFT - _MARGIN) // _ERROR
    second, below = len(texts[0]) * _ROW, sum(map(len, texts)) * _ROW
    image = Image.new("RGB", (_WIDTH, below + 24 * -(-len(errors) // per_row)), "white")
    draw = ImageDraw.Draw(image)
    _names(draw, 0, second)
    for number, text in enumerate(texts[0] + texts[1]):
        place, font = (_WIDTH - _MARGIN, number * _ROW), best_font(text, _TEXT)[0]
        if features.check("raqm"):  # orders the letters by itself, and joins them
            draw.text(place, text, font=font, fill=_BLACK, anchor="ra", direction="rtl")
        else:
            draw.text(place, reorder(text), font=font, fill=_BLACK, anchor="ra")
    for number, (truth, read) in enumerate(errors):
        left, top = _TEXT_LEFT + number % per_row * _ERROR, below + number // per_row * 24
        # One by one: as one text, Hebrew on both sides would put the reading before the truth.
        for offset, part, fill in ((0, truth, _BLACK), (40, "→", _GREY), (64, read, _COLOURS["wrong"][0])):
            draw.text((left + offset, top), part, font=best_font(part, _SMALL + 2)[0], fill=fill)
    return image


def _wrapped(text: str) -> list[str]:
    """A text in rows that fit, cut at blanks."""
    rows = [""]
    for word in _drawable(text, True).split(" "):
        longer = f"{rows[-1]} {word}" if rows[-1] else word
        if _length(longer) <= _WIDTH - _MARGIN - _TEXT_LEFT or not rows[-1]:
            rows[-1] = longer
        else:
            rows.append(word)
    return rows


def _names(draw: ImageDraw.ImageDraw, truth: int, read: int) -> None:
    for top, name in ((truth, "truth"), (read, "read")):
        draw.text((_MARGIN, top + 5), name, font=best_font(name, _SMALL)[0], fill=_GREY)


def _length(text: str) -> float:
    return best_font(text, _TEXT)[0].getlength(text)


def _mark(draw: ImageDraw.ImageDraw, place: tuple[float, int], width: float, text: str, kind: Kind, size: int) -> None:
    """Write a text in the manner of its kind, in the middle of a column ``width`` wide."""
    font = best_font(text, size)[0]
    left, top = place
    if kind == "same":
        draw.text(place, text, font=font, fill=_BLACK)
        return
    colour, tint = _COLOURS[kind]
    right, bottom = left + width - 1, top + round(1.3 * size)
    draw.rectangle((left, top - 1, right, bottom), fill=tint, outline=colour if kind == "added" else None)
    draw.text((left + (width - font.getlength(text)) / 2, top), text, font=font, fill=colour)
    if kind == "wrong":
        draw.line((left, bottom, right, bottom), fill=colour, width=2)
    elif kind == "missed":
        middle = top + round(0.7 * size)
        draw.line((left, middle, right, middle), fill=colour, width=2)


def _drawable(text: str, same: bool) -> str:
    """The letters as they are drawn: blanks of errors visible, what no font can draw as its code point."""
    if not text:
        return ""
    if not same:
        text = visible(text)
    _, missing = best_font(text, _TEXT)
    return "".join(f"U+{ord(c):04X}" if c in missing or unicodedata.category(c) == "Cc" else c for c in text)


def _image(data: bytes | None) -> Image.Image:
    try:
        image = Image.fromarray(decode_grey(data)) if data is not None else None
        reason = "no image at hand"
    except ValueError as error:
        image, reason = None, str(error)
    width = _WIDTH - 2 * _MARGIN
    if image is None:
        image = Image.new("RGB", (min(width, 420), 32), "mistyrose")
        ImageDraw.Draw(image).text((8, 7), reason, font=best_font("", _SMALL)[0], fill=_BLACK)
        return image
    scale = min(_IMAGE_HEIGHT / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
