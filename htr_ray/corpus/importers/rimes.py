"""Importer ``rimes``: letters in French, as words, lines, or pages with the boxes of their lines."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np
from lxml import etree

from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.importers.check import Normalisation, RawLine, check_line, unreadable
from htr_ray.corpus.importers.layout import LayoutError, read_xml
from htr_ray.corpus.importers.listing import Listing, is_list, paired, read_lists, rows
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, image_units, read_or_why
from htr_ray.corpus.schema import Imported, SetAside, Split
from htr_ray.errors import UserError

LAYOUT = """\
rimes: RIMES 2011, letters in French, in any of the three ways that they are handed on.
  --input is the folder that holds one of them

    Images/train2011-0_000001.jpg           lines (https://teklia.com/research/rimes-database)
    Transcriptions/train2011-0_000001.txt
    Sets/TrainLines.txt ValidationLines.txt TestLines.txt

    images_gray/train2011-0.png             or pages (A2iA), from which lines are cut by their boxes
    training_2011.xml                       a file training_2011.patched.xml wins; the same for eval_2011
    eval_2011_annotated.xml                 eval is the test split

    training_WR/lot_1/lot_1-1/1.tiff        or words (--level words)
    groundtruth_training_icdar2011.txt      "lot_1/lot_1-1/1.tiff word"
    ground_truth_validation_icdar2011.txt   with testdataset_ICDAR/ (in some copies valdataset_ICDAR/)
    ground_truth_test_icdar2011.txt         with data_test/ (in some copies testdataset_ICDAR/)

  The sign ¤ around crossed out text is left out of texts. Writers are not known; a page is one letter.
"""
_WORD_LIST = re.compile(r"gr?oun[dt]_?truth_?(train|val|test).*\.txt", re.IGNORECASE)
_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
_CURRENCY = str.maketrans("", "", "¤")


@dataclass(frozen=True, slots=True)
class Box:
    """A line on a page: pixels, right and bottom not included; may reach beyond the page."""

    left: int
    top: int
    right: int
    bottom: int
    text: str


@dataclass(frozen=True)
class Page:
    """A page image and its lines."""

    name: str
    image: str
    """URI."""
    split: Split
    boxes: tuple[Box | None, ...]
    """None: a line whose box cannot be read."""
    height: int | None
    normalisation: Normalisation

    def lines(self) -> Iterator[Imported | SetAside]:
        ids = [f"{self.name}-{number:02d}" for number in range(len(self.boxes))]
        page = _page_image(self.name, self.image)
        for id, box in zip(ids, self.boxes, strict=True):
            if isinstance(page, SetAside):
                yield SetAside(id, page.reason, page.detail)
            elif box is None:
                yield SetAside(id, "box that cannot be read", self.name)
            else:
                yield self._line(id, page, box)

    def _line(self, id: str, page: np.ndarray, box: Box) -> Imported | SetAside:
        # Boxes reach beyond pages by some pixels; negative numbers would count from the other side.
        image = page[max(box.top, 0) : max(box.bottom, 0), max(box.left, 0) : max(box.right, 0)]
        if image.size == 0:
            corners = f"{box.left},{box.top} to {box.right},{box.bottom}"
            return SetAside(id, "box outside the page", f"{corners} on {page.shape[1]}x{page.shape[0]} pixels")
        if self.height is not None:
            width = max(1, round(image.shape[1] * self.height / image.shape[0]))
            image = cv2.resize(image, (width, self.height), interpolation=cv2.INTER_AREA)
        raw = RawLine(id, np.ascontiguousarray(image), box.text, page=self.name, split=self.split)
        return check_line(raw, self.normalisation)


def units(uri: str, options: ImportOptions) -> Iterator[ImageFiles | Page | SetAside]:
    """Yield words, lines or pages, whichever are there.

    Raises UserError when there are none of --level.
    """
    listing = Listing(uri, "rimes")
    words = {name: split for name in listing.names if (split := _word_list(name))}
    texts = [name for name in listing.names if PurePosixPath(name).parent.name.lower() == "transcriptions"]
    xml = _page_lists(listing)
    if options.level == "words":
        if not words:
            raise UserError(
                f"--input {uri}: no list of words such as groundtruth_training_icdar2011.txt; or use --level lines"
            )
        yield from image_units(_words(listing, words), options.normalisation)
    elif texts:
        yield from image_units(_lines(listing, texts), options.normalisation)
    elif xml:
        yield from _pages(listing, xml, options)
    else:
        raise UserError(
            f"--input {uri}: neither Transcriptions/*.txt nor training_2011.xml or eval_2011_annotated.xml there"
            + ("; there are lists of words: use --level words" if words else "")
        )


def _lines(listing: Listing, texts: list[str]) -> Iterator[ImageRef | SetAside]:
    images = {PurePosixPath(name).stem: name for name in listing.images()}
    names = [name for name in listing.names if PurePosixPath(name).parent.name.lower() == "sets"]
    files = {listing.path(name): split for name in names if (split := is_list(name))}
    splits = read_lists(files, "_") if files else None
    text_of = {PurePosixPath(name).stem: name for name in texts if name.lower().endswith(".txt")}
    return paired(listing, images, text_of, splits, lambda id: id.rpartition("_")[0] or None)


def _page_lists(listing: Listing) -> dict[str, Split]:
    """The XML files, patched ones rather than others."""
    found: dict[str, Split] = {}
    for kind, split in (("training_2011", "train"), ("eval_2011", "test")):
        names = [
            n for n in listing.names if PurePosixPath(n).name.lower().startswith(kind) and n.lower().endswith(".xml")
        ]
        if names:
            found[max(names, key=lambda n: ("patched" in n.lower(), "annotated" in n.lower(), n))] = _SPLITS[split]
    return found


def _pages(listing: Listing, lists: dict[str, Split], options: ImportOptions) -> Iterator[Page | SetAside]:
    images = {PurePosixPath(name).stem: name for name in listing.images()}
    seen = set()
    for file, split in lists.items():
        uri = listing.path(file)
        data = read_or_why(file, uri)
        if isinstance(data, SetAside):
            raise UserError(f"--input {data.detail}")
        try:
            root = read_xml(data)
        except LayoutError as error:
            reason, detail = error.args
            raise UserError(f"--input {uri}: {reason} ({detail}); download it again") from error
        for page in root.iter("SinglePage"):
            name = PurePosixPath(page.get("FileName", "").replace("\\", "/")).stem
            boxes = tuple(_box(line) for line in page.iter("Line"))
            seen.add(name)
            if name in images:
                image = listing.path(images[name])
                yield Page(name, image, split, boxes, options.height, options.normalisation)
                continue
            for number in range(len(boxes)):
                yield SetAside(f"{name}-{number:02d}", "file cannot be read", f"images_gray/{name}.png: not found")
    for name in sorted(images.keys() - seen):
        yield SetAside(name, "image in no list", images[name])


def _box(line: etree._Element) -> Box | None:
    try:
        left, top, right, bottom = (int(line.get(side, "")) for side in ("Left", "Top", "Right", "Bottom"))
    except ValueError:
        return None
    return Box(left, top, right, bottom, html.unescape(line.get("Value", "")).translate(_CURRENCY))


def _page_image(name: str, uri: str) -> np.ndarray | SetAside:
    data = read_or_why(name, uri)
    if isinstance(data, SetAside):
        return data
    try:
        return decode_grey(data)
    except ValueError as error:
        return unreadable(name, error)


def _word_list(name: str) -> Split | None:
    match = _WORD_LIST.fullmatch(PurePosixPath(name).name)
    return _SPLITS[match[1].lower()] if match else None


def _words(listing: Listing, lists: dict[str, Split]) -> Iterator[ImageRef | SetAside]:
    images: dict[str, list[str]] = {}
    for name in listing.images():
        parts = PurePosixPath(name.lower()).with_suffix("").parts
        for start in range(len(parts)):
            images.setdefault("/".join(parts[start:]), []).append(name)
    owner = _owners(listing, lists)
    used: set[str] = set()
    for file, split in lists.items():
        for number, row in rows(listing.path(file)):
            path, *text = row.split(None, 1)
            path = path.replace("\\", "/").removeprefix("./")
            id = str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).name else path
            found = [name for name in images.get(id.lower(), []) if owner.get(name, split) == split]
            used.update(found)
            if not text:
                yield SetAside(id, "row that cannot be read", f"{file}:{number}: no word: {row[:100]}")
            elif not found:
                yield SetAside(id, "file cannot be read", f"{file}:{number}: {path}: not found")
            elif len(found) > 1:
                yield SetAside(id, "several images of that name", f"{file}:{number}: {', '.join(found)}")
            else:
                yield ImageRef(id, listing.path(found[0]), text[0].translate(_CURRENCY), split=split)
    for name in sorted(set(listing.images()) - used):
        yield SetAside(name, "image in no list")


def _owners(listing: Listing, lists: dict[str, Split]) -> dict[str, Split]:
    """The split of those images whose folder tells it: the same names occur in several folders.

    testdataset_ICDAR holds the validation images, but in copies that have a folder for those the test images.
    """
    folders = {name: f"/{name.rpartition('/')[0].lower()}" for name in listing.images()}
    own_folder = any("/val" in folder for folder in folders.values())
    named: Split = "val" if "val" in lists.values() and not own_folder else "test"
    kinds: tuple[tuple[str, Split], ...] = (
        ("/train", "train"), ("/val", "val"), ("/data_test", "test"), ("/testdataset", named),
    )  # fmt: skip
    found = ((name, next((split for kind, split in kinds if kind in folders[name]), None)) for name in folders)
    return {name: split for name, split in found if split}
