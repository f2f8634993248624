"""Importers ``saint-gall`` and ``washington``: two manuscripts of the IAM Historical Document Database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from htr_ray.corpus.importers.listing import Listing, SplitLists, is_list, read_lists, rows
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, image_units
from htr_ray.corpus.schema import SetAside
from htr_ray.errors import UserError

LAYOUT_WASHINGTON = """\
washington: letters of George Washington, 1755, of the IAM Historical Document Database.
  --input is the folder washingtondb-v1.0

    data/line_images_normalized/270-01.png      page 270, line 1 (--level lines, the default)
    data/word_images_normalized/270-01-01.png   its first word (--level words)
    ground_truth/transcription.txt              270-01 s_2-s_7-s_0-s_pt|L-e-t-t-e-r-s-s_cm
    ground_truth/word_labels.txt                270-01-01 s_2-s_7-s_0-s_pt
    sets/cv1/train.txt valid.txt test.txt       ids of lines; --fold cv1 (the default) to cv4

  Character codes become characters: s_pt . s_cm , s_mi - s_qo : s_sq ; s_qt ' s_et & s_lb £ s_s (long s) ſ;
  --normalisation NFKC turns the long s into s. Two secretaries wrote, so there is no writer.
"""
LAYOUT_SAINT_GALL = """\
saint-gall: Codex Sangallensis 562, 9th century Latin, of the IAM Historical Document Database.
  --input is the folder saintgalldb-v1.0

    data/line_images_normalized/csg562-003-01.png   page 3, line 1
    ground_truth/transcription.txt                  csg562-003-01 s-a-n-c-t-i|g-a-l-l-i-pt sancti|galli
    sets/train.txt valid.txt test.txt               ids of pages

  The text is what is written, of the second column (pt is a dot, et is &); the third, of the edition with its
  abbreviations written out, is not used. One scribe, so there is no writer.
"""
_SAINT_GALL = {"pt": ".", "et": "&"}
_WASHINGTON = {
    "s_pt": ".", "s_cm": ",", "s_mi": "-", "s_qo": ":", "s_sq": ";", "s_qt": "'", "s_bl": "(", "s_br": ")",
    "s_et": "&", "s_lb": "£", "s_sl": "/", "s_s": "ſ", "s_GW": "G.W.",
}  # fmt: skip
_WASHINGTON_NUMBER = re.compile(r"s_(\d+(?:st|nd|rd|th)?)")


class UnknownCode(ValueError):
    """A character code that is in no table."""


def units_washington(uri: str, options: ImportOptions) -> Iterator[ImageFiles | SetAside]:
    """Yield the lines or words. Raises UserError when images, transcriptions or the fold are missing."""
    yield from _units(Listing(uri, "washington"), options, _WASHINGTON, f"sets/{options.fold}")


def units_saint_gall(uri: str, options: ImportOptions) -> Iterator[ImageFiles | SetAside]:
    """Yield the lines. Raises UserError when images or transcriptions are missing."""
    yield from _units(Listing(uri, "saint-gall"), options, _SAINT_GALL, "sets")


def decode(coded: str, codes: Mapping[str, str]) -> str:
    """``L-e-t-t-e-r-s-s_cm|s_1st`` -> ``Letters, 1st``. Raises UnknownCode."""
    return " ".join("".join(_character(code, codes) for code in word.split("-")) for word in coded.split("|"))


def _character(code: str, codes: Mapping[str, str]) -> str:
    if code in codes:
        return codes[code]
    number = _WASHINGTON_NUMBER.fullmatch(code)
    if number and codes is _WASHINGTON:
        return number[1]
    if len(code) != 1:
        raise UnknownCode(code)
    return code


def _units(
    listing: Listing, options: ImportOptions, codes: Mapping[str, str], sets: str
) -> Iterator[ImageFiles | SetAside]:
    words = options.level == "words"
    name = "ground_truth/word_labels.txt" if words else "ground_truth/transcription.txt"
    index = listing.find(name)
    if index is None:
        raise UserError(f"--input {listing.uri}: no {name} there, which --level {options.level} needs")
    folder = "word_images_normalized" if words else "line_images_normalized"
    images = {PurePosixPath(n).stem: n for n in listing.images() if PurePosixPath(n).parent.name == folder}
    if not images:
        raise UserError(f"--input {listing.uri}: no image in data/{folder}; unpack the whole archive there")
    splits = _splits(listing, index, sets)
    items = _items(listing, index, images, splits, codes)
    yield from image_units(items, options.normalisation)


def _items(
    listing: Listing, index: str, images: Mapping[str, str], splits: SplitLists | None, codes: Mapping[str, str]
) -> Iterator[ImageRef | SetAside]:
    seen: set[str] = set()
    for number, row in rows(listing.path(index)):
        id, *columns = row.split()
        seen.add(id)
        split = splits.of(id) if splits else None
        if not columns:
            yield SetAside(id, "row that cannot be read", f"{index}:{number}: {row[:100]}")
        elif splits and split is None:
            yield SetAside(id, "in no split list")
        elif id not in images:
            yield SetAside(id, "file cannot be read", f"{id}.png: not found")
        else:
            try:
                text = decode(columns[0], codes)
            except UnknownCode as error:
                yield SetAside(id, "unknown character code", f"{index}:{number}: {error.args[0][:50]!r}")
                continue
            yield ImageRef(id, listing.path(images[id]), text, page=_page(id), split=split)
    for id in sorted(images.keys() - seen):
        yield SetAside(id, "image in no list", images[id])
    if splits:
        yield from splits.unused()


def _page(id: str) -> str:
    """``270-01`` and ``270-01-02`` -> ``270``; ``csg562-003-01`` -> ``csg562-003``."""
    match = re.fullmatch(r"(csg\d+-\d+|[^-]+)(-\d+)+", id)
    return match[1] if match else id


def _splits(listing: Listing, index: str, sets: str) -> SplitLists | None:
    """The lists in ``sets``, beside the ground truth; None: there are no sets at all."""
    root = PurePosixPath(index).parent.parent
    names = [name for name in listing.names if PurePosixPath(name).parent == root / sets]
    files = {listing.path(name): split for name in names if (split := is_list(name))}
    if files:
        return read_lists(files)
    folders = {PurePosixPath(name).parent for name in listing.names if is_list(name)}
    folds = sorted(str(folder.relative_to(root)) for folder in folders if folder.is_relative_to(root / "sets"))
    if folds:
        raise UserError(
            f"--input {listing.uri}: no {sets}/train.txt; there are {', '.join(folds)} (choose with --fold)"
        )
    return None
