"""Fonts that have the characters of a text."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from PIL import ImageFont


def best_font(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, set[str]]:
    """The font that lacks the fewest characters of ``text``, and those characters.

    DejaVu Sans, which comes with matplotlib and has Latin with medieval letters, Greek, Cyrillic, Hebrew, Arabic and
    more; where it lacks some, the fonts of this machine are asked too; where there is none, it is Pillow's own.
    """
    wanted = {ord(c) for c in text if not c.isspace()}
    own = _own_font()
    path, missing = own, wanted - _characters(own)
    if missing:
        path, missing = min(
            ((other, wanted - _characters(other)) for other in [own, *_system_fonts()]), key=lambda found: len(found[1])
        )
    return _open(path, size), {chr(point) for point in missing}


def _own_font() -> Path | None:
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path if path.is_file() else None


@cache
def _system_fonts() -> list[Path]:
    try:
        from matplotlib.font_manager import findSystemFonts
    except ImportError:
        return []
    return sorted(Path(path) for path in findSystemFonts())


@cache
def _open(path: Path | None, size: int) -> ImageFont.FreeTypeFont:
    if path is not None:
        return ImageFont.truetype(path, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@cache
def _characters(path: Path | None) -> frozenset[int]:
    """Code points that a font has a glyph for; none for a file that is no font we can read."""
    source = _open(None, 10).path if path is None else path
    try:
        with TTFont(source, lazy=True, fontNumber=0) as font:
            return frozenset(font.getBestCmap() or ())
    except (TTLibError, OSError, KeyError, ValueError):
        return frozenset()
