"""A picture of some lines of a corpus with their texts: do they belong together?"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont, features

from htr_ray.corpus.direction import Direction, reorder
from htr_ray.corpus.fonts import best_font
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Split

_SHEET = 1300
_MARGIN = 16
_NARROWEST, _WIDEST = 309, 634
"""Width of a cell, in pixels: four or two go into the width of the sheet."""
_LINE_HEIGHT = 56
"""Height of a line image in the sheet, in pixels; less where it would be wider than its cell."""
_TEXT_SIZE = 17
_CAPTION_SIZE = 11
_COLOURS = {"train": (40, 90, 160), "val": (40, 120, 60), "test": (160, 70, 20)}
_READ = ("id", "image", "width", "height", "text", "writer")
_BLACK, _GREY = (0, 0, 0), (120, 120, 120)


def contact_sheet(corpus: Corpus, lines: int = 24, seed: int = 0) -> Image.Image:
    """Draw ``lines`` random lines of a corpus, from all splits and as many writers as can be, as an RGB image.

    Under each line stand its split, writer and id, and its text. Characters that no font at hand has are written
    as their code points, in brackets; a line that cannot be decoded says so. Reads one row group a line.
    """
    chosen = _choose(corpus, lines, seed)
    widest = max(round(line.width * _LINE_HEIGHT / max(line.height, 1)) for line in chosen)
    columns = _SHEET // (min(max(widest, _NARROWEST), _WIDEST) + _MARGIN)
    width = _SHEET // columns - _MARGIN
    cells = [_draw(line, width) for line in chosen]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + _MARGIN for row in rows]
    sheet = Image.new("RGB", (_SHEET + _MARGIN, sum(heights) + _MARGIN), "white")
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_MARGIN + column * (width + _MARGIN), top))
        top += height
    return sheet


def png(sheet: Image.Image) -> bytes:
    """The sheet as a PNG file."""
    sink = io.BytesIO()
    sheet.save(sink, "PNG")
    return sink.getvalue()


@dataclass(frozen=True)
class _Line:
    split: Split
    id: str
    writer: str | None
    text: str | None
    image: bytes
    width: int
    height: int
    direction: Direction


def _choose(corpus: Corpus, lines: int, seed: int) -> list[_Line]:
    """Half of them from train, the others from val and test; new writers first."""
    direction: Direction = corpus.info.direction
    tables = {split: corpus.index(split, ("writer",)) for split in SPLITS}
    wanted = _shares({split: table.num_rows for split, table in tables.items()}, lines)
    chosen = []
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng([seed, number])
        table, files = tables[split], corpus.files(split)
        for index in _of_many_writers(table["writer"], wanted[split], rng):
            file, row_group, row = (table[name][index].as_py() for name in ("file", "row_group", "row"))
            found = corpus.read_row_group(files[file], row_group, _READ).slice(row, 1)
            chosen.append(_Line(split, **found.to_pylist()[0], direction=direction))
    return chosen


def _shares(held: dict[Split, int], lines: int) -> dict[Split, int]:
    """How many lines each split gives; what val and test lack train makes up for, and the other way round."""
    shares: dict[Split, int] = {split: min(held[split], lines // 4) for split in ("val", "test")}
    shares["train"] = min(held["train"], lines - sum(shares.values()))
    for split in ("val", "test"):
        shares[split] = min(held[split], lines - sum(shares.values()) + shares[split])
    return shares


def _of_many_writers(writers: pa.ChunkedArray, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` rows in random order: first one of each writer, as far as that goes, then any others."""
    order = rng.permutation(len(writers))
    codes = np.asarray(writers.combine_chunks().dictionary_encode().indices.fill_null(-1))
    first = np.sort(np.unique(codes[order], return_index=True)[1])
    rest = np.setdiff1d(np.arange(len(order)), first)
    return [int(order[i]) for i in np.concatenate([first, rest])[:count]]


def _draw(line: _Line, width: int) -> Image.Image:
    """One cell: image, caption and text."""
    image = _image(line, width)
    caption_font, _ = best_font("", _CAPTION_SIZE)
    caption = f"{line.split}  {line.writer or 'writer not known'}  {line.id}"
    shown, font = _shown(line.text or "")
    rows = _wrap(shown or "(no text)", font, width, limit=4)
    spacing, right = round(1.5 * _TEXT_SIZE), line.direction == "rtl"
    top = image.height + 3
    cell = Image.new("RGB", (width, top + _CAPTION_SIZE + 5 + spacing * len(rows)), "white")
    cell.paste(image, (width - image.width if right else 0, 0))
    draw = ImageDraw.Draw(cell)
    for row in _wrap(caption, caption_font, width, limit=1):
        draw.text((0, top), row, font=caption_font, fill=_COLOURS[line.split])
    top += _CAPTION_SIZE + 5
    for row in rows:
        fill = _BLACK if line.text else _GREY
        if not right:
            draw.text((0, top), row, font=font, fill=fill)
        elif features.check("raqm"):  # orders the letters by itself, and joins them
            draw.text((width, top), row, font=font, fill=fill, anchor="ra", direction="rtl")
        else:
            draw.text((width, top), reorder(row), font=font, fill=fill, anchor="ra")
        top += spacing
    return cell


def _image(line: _Line, width: int) -> Image.Image:
    """The line image, at most ``width`` wide; if there is none, the reason."""
    try:
        image = Image.fromarray(decode_grey(line.image))
    except ValueError as error:
        font, _ = best_font("", _TEXT_SIZE)
        image = Image.new("RGB", (width, _LINE_HEIGHT), "mistyrose")
        ImageDraw.Draw(image).text((8, 16), str(error), font=font, fill=_BLACK)
        return image
    scale = min(_LINE_HEIGHT / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _shown(text: str) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text as it can be drawn, and the font for it."""
    font, missing = best_font(text, _TEXT_SIZE)
    return "".join(f"[U+{ord(c):04X}]" if c in missing else c for c in text), font


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, limit: int) -> list[str]:
    """Cut ``text`` into at most ``limit`` rows of ``width`` pixels, the last one ending in dots if need be."""
    rows = [""]
    for character in text:
        if font.getlength(rows[-1] + character) <= width:
            rows[-1] += character
        elif len(rows) < limit:
            rows.append(character)
        else:
            rows[-1] = rows[-1][:-3] + "..."
            break
    return rows
