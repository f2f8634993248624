"""What a user may tell an importer about the layout of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NO_COLUMN = "none"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of all importers; each reads those that concern it."""

    image_column: str = "image"
    text_column: str = "text"
    """``none``: the lines are unlabelled."""
    writer_column: str | None = None
    """None: the column ``writer``, where there is one; ``none``: writers are not known."""
    page_column: str | None = None
    """None: the column ``page``, where there is one; ``none``: pages are not known."""
    writer_from: Literal["folder", "none"] = "folder"
    """Whether the folder of an image names its writer (pairs)."""
