"""What the classic datasets share: a tree of files, listed once; index files; lists of the ids of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from htr_ray import storage
from htr_ray.corpus.importers.names import is_hidden, is_image
from htr_ray.corpus.importers.splits import split_named
from htr_ray.corpus.importers.units import UNIT_LINES, ImageRef, read_or_why
from htr_ray.corpus.schema import SetAside, Split
from htr_ray.errors import UserError

_Item = TypeVar("_Item")
LIST_SUFFIXES = frozenset({".txt", ".lst", ".list", ".uttlist", ".filelist"})
# What researchers call their lists, beside the names that split_named knows.
_LISTS: dict[str, Split] = {"tr": "train", "va": "val", "te": "test", "valset": "val", "validationset": "val"}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Listing:
    """All files below an input folder; hidden ones and what macOS leaves in archives are not seen."""

    def __init__(self, uri: str, format: str, *, odd_names: bool = False) -> None:
        """List the folder. Raises UserError when there is none, or it has names that are not UTF-8.

        ``odd_names``: those are welcome.
        """
        if not storage.exists(uri):
            raise UserError(f"--input {uri}: not found; check the spelling")
        if not storage.is_dir(uri):
            raise UserError(f"--input {uri}: is a file; --format {format} wants the folder that holds it all")
        self.uri = uri
        self.names = [name for name in _walk(uri, odd_names) if not _hidden(name)]
        """Paths relative to the folder, sorted. Bytes that are not UTF-8 are there as surrogates (PEP 383)."""

    def path(self, name: str) -> str:
        """URI of a file."""
        return storage.join(self.uri, name)

    def find(self, *tails: str) -> str | None:
        """The first file whose path ends with one of ``tails`` (earlier ones win, then shorter paths), or None."""
        for tail in tails:
            found = [name for name in self.names if f"/{name}".lower().endswith(f"/{tail.lower()}")]
            if found:
                return min(found, key=lambda name: (name.count("/"), name))
        return None

    def images(self) -> Iterator[str]:
        """Those files that are images by their ending."""
        return (name for name in self.names if is_image(name))


def packed(items: Iterable[_Item], size: Callable[[_Item], int]) -> Iterator[tuple[_Item, ...]]:
    """Put items together until their sizes reach that of a unit."""
    waiting: list[_Item] = []
    total = 0
    for item in items:
        waiting.append(item)
        total += size(item)
        if total >= UNIT_LINES:
            yield tuple(waiting)
            waiting, total = [], 0
    if waiting:
        yield tuple(waiting)


def paired(
    listing: Listing,
    images: Mapping[str, str],
    texts: Mapping[str, str],
    splits: SplitLists | None,
    page_of: Callable[[str], str | None],
) -> Iterator[ImageRef | SetAside]:
    """Put line images and the files of their texts together, both by id, with the splits of ``splits``.

    What lacks its other half, or stands in no list though there are lists, is set aside; so is what is only listed.
    """
    for id in sorted(images.keys() | texts.keys()):
        split = splits.of(id) if splits else None
        if id not in texts:
            yield SetAside(id, "image without transcription", images[id])
        elif splits and split is None:
            yield SetAside(id, "in no split list")
        elif id not in images:
            yield SetAside(id, "text without an image", texts[id])
        else:
            image, text = listing.path(images[id]), listing.path(texts[id])
            yield ImageRef(id, image, text_uri=text, page=page_of(id), split=split)
    if splits:
        yield from splits.unused()


def printable(name: str) -> str:
    """A file name that every table and log can hold."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_oddly_named(id: str, uri: str) -> bytes | SetAside:
    """Do as ``read_or_why`` does, for local files of names that are not UTF-8 too: pyarrow has no word for those."""
    if printable(uri) == uri:
        return read_or_why(id, uri)
    try:
        return Path(uri).read_bytes()
    except OSError as error:
        return SetAside(id, "file cannot be read", f"{printable(uri)}: {error.strerror}")


def rows(uri: str, flag: str = "--input") -> Iterator[tuple[int, str]]:
    """Yield number and text of each row of an index file that is neither blank nor a comment (``#``).

    UTF-8, or UTF-16 with its mark; bytes that are neither become U+FFFD, which ``check_line`` sets aside
    where it is part of a text. Raises UserError, naming the option ``flag``, when the file cannot be read.
    """
    try:
        data = storage.read_bytes(uri)
    except storage.Unavailable:
        raise
    except UserError as error:
        raise UserError(f"{flag} {error}") from error
    text = data.decode("utf-16" if data[:2] in _UTF16 else "utf-8-sig", "replace")
    # Not splitlines: it takes a form feed or U+2028 inside a text for an end.
    for number, row in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if row.strip() and not row.lstrip().startswith("#"):
            yield number, row.strip()


class SplitLists:
    """Which split an id is in: lists of ids, or of what ids start with (the form or page of a line)."""

    def __init__(self, separator: str, flag: str) -> None:
        self._separator = separator
        self._flag = flag
        self._split: dict[str, Split] = {}
        self._file: dict[str, str] = {}
        self._used: set[str] = set()

    def add(self, id: str, split: Split, file: str) -> None:
        """Put an id into a split. Raises UserError when it is in another one already."""
        if self._split.setdefault(id, split) != split:
            raise UserError(
                f"{self._flag} {file}: {id} is in {split} here and in {self._split[id]} in {self._file[id]}; give the"
                " lists of one partition"
            )
        self._file.setdefault(id, file)

    def of(self, id: str) -> Split | None:
        """The split of an id, by its own name or the longest start of it that is listed; None: in no list."""
        parts = id.split(self._separator)
        for length in range(len(parts), 0, -1):
            start = self._separator.join(parts[:length])
            if start in self._split:
                self._used.add(start)
                return self._split[start]
        return None

    def starts(self, length: int) -> SplitLists:
        """The lists of what the ids start with, ``length`` parts of it. Raises UserError as ``add`` does."""
        short = SplitLists(self._separator, self._flag)
        for id, split in self._split.items():
            short.add(self._separator.join(id.split(self._separator)[:length]), split, self._file[id])
        return short

    def unused(self) -> Iterator[SetAside]:
        """What is listed, but was never asked for."""
        for id in sorted(self._split.keys() - self._used):
            yield SetAside(id, "in a split list, but not in the data", self._file[id])


def split_of_list(name: str) -> Split | None:
    """The split that a list of ids is named after: ``validationset1.txt``, ``TrainLines.lst``, ``te.uttlist``."""
    stem = re.sub(r"([-_]?(lines|words|forms))?[-_]?\d*$", "", PurePosixPath(name).stem.lower())
    return _LISTS.get(stem) or split_named(stem)


def is_list(name: str) -> Split | None:
    """The split of a file that is a list of ids by its ending and its name."""
    return split_of_list(name) if PurePosixPath(name).suffix.lower() in LIST_SUFFIXES else None


def read_splits(uri: str, separator: str = "-") -> SplitLists:
    """Read the lists of ids at ``uri``: a folder of lists, one list, or one file with rows of id and split.

    Raises UserError when there is no list, or lists of several partitions.
    """
    flag = "--split-files"
    if not storage.exists(uri):
        raise UserError(f"{flag} {uri}: not found; check the spelling")
    if not storage.is_dir(uri):
        return read_lists({uri: split_of_list(uri.split("?")[0])}, separator, flag)
    names = [name for name in storage.walk(uri) if not _hidden(name)]
    found = {storage.join(uri, name): split for name in names if (split := is_list(name))}
    if not found:
        raise UserError(
            f"{flag} {uri}: no list of ids there; expected names such as trainset.txt, validationset1.txt and"
            " testset.txt, or train.uttlist, validation.uttlist and test.uttlist, or tr.lst, va.lst and te.lst"
        )
    return read_lists(finest(found), separator, flag)


def read_lists(files: Mapping[str, Split | None], separator: str = "-", flag: str = "--input") -> SplitLists:
    """Read lists of ids, given with the split of each; None: the rows of the file name it.

    Raises UserError, naming the option ``flag``, for lists that are empty or of several partitions.
    """
    for one in ("train", "test"):
        same = [file for file, its in files.items() if its == one]
        if len(same) > 1:
            raise UserError(f"{flag} {same[0]}: {same[1]} is a list of {one} too; give the folder of one partition")
    lists = SplitLists(separator, flag)
    for file, split in files.items():
        listed = [row for _, row in rows(file, flag)]
        if not listed:
            raise UserError(f"{flag} {file}: no id in it")
        for row in listed:
            id, named = _listed(row, split)
            if named is None:
                raise UserError(
                    f"{flag} {file}: neither the name of the file nor its row '{row[:60]}' says which split is meant;"
                    " write rows such as 'a01-000u train', or call it train.txt"
                )
            lists.add(id, named, file)
    return lists


def finest(lists: Mapping[str, Split]) -> dict[str, Split]:
    """Lists of lines where there are some (``TrainLines.lst``), rather than of the pages of the same partition."""
    lines = {name: split for name, split in lists.items() if "lines" in PurePosixPath(name).name.lower()}
    return lines or dict(lists)


def _listed(row: str, split: Split | None) -> tuple[str, Split | None]:
    id, *more = re.split(r"[\s,;]+", row)
    if split is None and more:
        split = _LISTS.get(more[0].lower()) or split_named(more[0])
    return _without_suffix(id), split


def _without_suffix(id: str) -> str:
    """``lines/a01/a01-000u-00.png`` -> ``a01-000u-00``."""
    name = PurePosixPath(id.replace("\\", "/"))
    return name.stem if is_image(name.name) else name.name


def _walk(uri: str, odd_names: bool) -> list[str]:
    try:
        found = storage.walk(uri)
    except storage.OddNames:
        root = storage.normalise(uri)
        files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
        found = sorted(os.path.relpath(file, root) for file in files)
    odd = [] if odd_names else [name for name in found if printable(name) != name]
    if odd:
        raise UserError(
            f"--input {uri}: {len(odd)} file names are not UTF-8, for instance {printable(odd[0])}; rename them"
            " (convmv -r --notest -f latin1 -t utf8 does it)"
        )
    return found


def _hidden(name: str) -> bool:
    return is_hidden(name) or "/__MACOSX/" in f"/{name}"
