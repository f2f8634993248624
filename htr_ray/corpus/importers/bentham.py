"""Importer ``bentham``: the Bentham papers of the ICFHR 2014 competition (data set R0)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from htr_ray import storage
from htr_ray.corpus.importers.listing import (
    Listing,
    SplitLists,
    finest,
    is_list,
    paired,
    read_lists,
    read_splits,
)
from htr_ray.corpus.importers.names import is_image
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.pages import PageUnit
from htr_ray.corpus.importers.units import ImageFiles, image_units
from htr_ray.corpus.schema import SetAside
from htr_ray.errors import UserError

LAYOUT = """\
bentham: Bentham papers R0 of the ICFHR 2014 competition (https://zenodo.org/records/44519), as they unpack.
  --input is the folder BenthamDatasetR0-GT, or one that holds it and BenthamDatasetR0-Images

    Images/Lines/002_080_001_01_01.png       lines, cut out along their outlines; used if they are there
    Transcriptions/002_080_001_01_01.txt     their texts, as published: tokens apart, a few with <gap/>
    PAGE/002_080_001.xml                     otherwise: pages, from which lines are cut
    Images/Pages/002_080_001.jpg             or the folder --images
    Partitions/TrainLines.lst ValidationLines.lst TestLines.lst   ids of lines; or the folder --split-files
    Partitions/Train.lst Validation.lst Test.lst                  ids of pages

  Who of the secretaries wrote a page is not known, so there is no writer.
"""
_PAGE_PARTS = 3


def units(uri: str, options: ImportOptions) -> Iterator[ImageFiles | PageUnit | SetAside]:
    """Yield the prepared lines, or else the pages.

    Raises UserError when there is neither.
    """
    listing = Listing(uri, "bentham")
    splits = read_splits(options.split_files, "_") if options.split_files else _partitions(listing)
    texts = {_stem(name): name for name in listing.names if _is_in(name, "transcriptions") and _ends(name, ".txt")}
    lines = {_stem(name): name for name in listing.images() if "lines" in PurePosixPath(name).parent.name.lower()}
    if lines and texts:
        yield from image_units(paired(listing, lines, texts, splits, _page_of), options.normalisation)
        return
    xml = {_stem(name): name for name in listing.names if _is_in(name, "page") and _ends(name, ".xml")}
    if not xml:
        raise UserError(
            f"--input {uri}: neither line images with their texts (Images/Lines, Transcriptions) nor pages"
            " (PAGE/*.xml); unpack BenthamDatasetR0-GT there"
        )
    yield from _pages(listing, xml, splits, options)


def _page_of(id: str) -> str:
    """``002_080_001_01_01`` -> ``002_080_001``."""
    return "_".join(id.split("_")[:_PAGE_PARTS])


def _pages(
    listing: Listing, xml: dict[str, str], splits: SplitLists | None, options: ImportOptions
) -> Iterator[PageUnit | SetAside]:
    # Lines are called r203 and the like in the XML: the lists know them by their pages only.
    by_page = splits.starts(_PAGE_PARTS) if splits else None
    images = _page_images(listing, options)
    for page, name in sorted(xml.items()):
        split = by_page.of(page) if by_page else None
        if by_page and split is None:
            yield SetAside(page, "in no split list")
        elif page not in images:
            yield SetAside(page, "file cannot be read", f"no image of the page (Images/Pages/{page}.jpg)")
        else:
            # The XML calls its image .tif, which it is not any more.
            yield PageUnit(listing.path(name), images[page], "page", page, None, split, options)
    if by_page:
        yield from by_page.unused()


def _page_images(listing: Listing, options: ImportOptions) -> dict[str, str]:
    """URI of the image of each page."""
    if options.images is None:
        return {_stem(name): listing.path(name) for name in listing.images() if _is_in(name, "pages")}
    if not storage.is_dir(options.images):
        raise UserError(f"--images {options.images}: no such folder")
    names = [name for name in storage.walk(options.images) if is_image(name)]
    return {_stem(name): storage.join(options.images, name) for name in names}


def _partitions(listing: Listing) -> SplitLists | None:
    """The lists of lines, or else of pages."""
    found = {listing.path(n): split for n in listing.names if _is_in(n, "partitions") and (split := is_list(n))}
    return read_lists(finest(found), "_") if found else None


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _ends(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix)


def _is_in(name: str, folder: str) -> bool:
    return PurePosixPath(name).parent.name.lower() == folder
