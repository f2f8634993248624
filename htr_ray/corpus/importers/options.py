"""What a user may tell an importer about the layout of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from htr_ray.corpus.importers.check import Normalisation

NO_COLUMN = "none"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of all importers; each reads those that concern it."""

    normalisation: Normalisation = "NFC"
    """Unicode normal form of the texts."""
    image_column: str = "image"
    text_column: str = "text"
    """``none``: the lines are unlabelled."""
    writer_column: str | None = None
    """None: the column ``writer``, where there is one; ``none``: writers are not known."""
    page_column: str | None = None
    """None: the column ``page``, where there is one; ``none``: pages are not known."""
    split_column: str | None = None
    """None: no column names the split."""
    writer_from: Literal["folder", "page", "none"] = "folder"
    """Whether the folder of an image names its writer, or each page is a writer of its own (pairs, alto, page)."""
    writer_pattern: str | None = None
    """Regular expression; its first group, found in a page's name, is the writer (alto, page)."""
    level: Literal["lines", "words"] = "lines"
    """What is cut out, where a source has both (iam, cvl, rimes)."""
    skip_err: bool = False
    """Leave out what the source marks as badly segmented (iam)."""
    split_files: str | None = None
    """URI of the folder of split lists that researchers share (iam), or of the partition lists (bentham)."""
    fold: str = "cv1"
    """Cross-validation fold (washington)."""
    images: str | None = None
    """URI of the folder of page images, where they are not beside the XML (alto, page, bentham)."""
    xml: str | None = None
    """Pattern of XML names, to choose one of several readings of a page: ``*.chocomufin.xml`` (alto, page)."""
    height: int | None = None
    """Height in pixels that lines cut from pages are scaled to; None: as in the scan."""
