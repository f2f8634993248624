"""Which files of a folder an importer looks at, by their names."""

from __future__ import annotations

from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2"})


def is_image(name: str) -> bool:
    """Whether a file is an image by its ending, in upper or lower case."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a path, relative to the input, has a part that begins with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)
