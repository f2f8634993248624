"""Finding the image of a page: names in XML files are often those of other machines, or of other formats."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from htr_ray import storage
from htr_ray.corpus.importers.names import is_image
from htr_ray.errors import UserError


class PageImages:
    """The images that XML files may mean; upper and lower case are the same."""

    def __init__(self, base: str, listing: list[str] | None, images: str | None) -> None:
        """``base``: folder that XML names are relative to; ``listing``: all files below it, if known.

        ``images``: folder of images that are not beside the XML. Raises UserError when it is no folder.
        """
        self._base = base
        self._complete = listing is not None
        self._beside = _by_folder(listing or ())
        self._elsewhere = images
        self._pool: dict[str, _Names] = {}
        self._anywhere = _Names([])
        if images is not None:
            if not storage.exists(images) or not storage.is_dir(images):
                raise UserError(f"--images {images}: no such folder; it should hold the page images")
            pool = storage.walk(images)
            self._pool, self._anywhere = _by_folder(pool), _Names(pool)

    def find(self, folders: list[str], named: str | None, stems: list[str]) -> str | None:
        """The URI of the image of an XML file, or None.

        ``folders``: where to look, relative to the base, the XML file's own first; ``named``: what the file
        calls its image, a name, a path or a URL; ``stems``: the file's own name, the likeliest first.
        """
        wanted = list(_wanted(named, stems))
        if self._elsewhere is not None:
            found = self._find_elsewhere(folders, wanted)
            if found is not None:
                return storage.join(self._elsewhere, found)
        places = [*_named_folders(folders[0], named), *folders]
        for name, any_suffix in wanted:
            for folder in places:
                matches = self._names(folder).find(name, any_suffix)
                if matches:
                    return storage.join(self._place(folder), matches[0])
        return None

    def _find_elsewhere(self, folders: list[str], wanted: list[tuple[str, bool]]) -> str | None:
        """The image in the folder that is parallel to the XML's, or else the only one of its name."""
        for name, any_suffix in wanted:
            for folder in folders:
                matches = self._pool[folder].find(name, any_suffix) if folder in self._pool else []
                if matches:
                    return str(PurePosixPath(folder) / matches[0])
        for name, any_suffix in wanted:
            matches = self._anywhere.find(name, any_suffix)
            if matches:
                return matches[0] if len(matches) == 1 else None
        return None

    def _names(self, folder: str) -> _Names:
        if folder not in self._beside:
            place = self._place(folder)
            unknown = not self._complete or folder == ".."
            there = unknown and storage.exists(place) and storage.is_dir(place)
            self._beside[folder] = _Names(storage.listdir(place) if there else [])
        return self._beside[folder]

    def _place(self, folder: str) -> str:
        if folder == "..":
            return self._base.rpartition("/")[0] or "/"
        return self._base if folder == "." else storage.join(self._base, folder)


class _Names:
    """Some images, by name and by stem."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if is_image(name):
                path = PurePosixPath(name)
                self._by_name[path.name.lower()].append(name)
                self._by_stem[path.stem.lower()].append(name)

    def find(self, name: str, any_suffix: bool) -> list[str]:
        return (self._by_stem if any_suffix else self._by_name).get(name.lower(), [])


def _by_folder(names: Iterable[str]) -> dict[str, _Names]:
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folders[str(PurePosixPath(name).parent)].append(PurePosixPath(name).name)
    return {folder: _Names(inside) for folder, inside in folders.items()}


def _wanted(named: str | None, stems: list[str]) -> Iterator[tuple[str, bool]]:
    """Names to look for, and whether with any suffix: XML may tell of TIFFs where JPEGs were published."""
    if named is not None:
        own = PurePosixPath(named.replace("\\", "/"))
        yield own.name, False
        yield own.stem, True
    for stem in stems:
        yield stem, True


def _named_folders(folder: str, named: str | None) -> list[str]:
    """Folders inside the input that a relative path in an XML file may mean.

    It is relative to the file or, in workspaces of OCR-D, to the folder above. A path that leads out of the
    input is not followed: no XML file decides what is read on this machine.
    """
    inner = str(PurePosixPath(named.replace("\\", "/")).parent) if named is not None else "."
    if inner == "." or inner.startswith("/") or ":" in inner:
        return []
    starts = [folder] if folder == "." else [folder, str(PurePosixPath(folder).parent)]
    places = (posixpath.normpath(posixpath.join(start, inner)) for start in starts)
    return [place for place in places if not place.startswith("..")]
