"""Fetch a catalogued corpus once: into a cache, checked, and marked as complete when it is."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htr_ray import storage
from htr_ray.corpus.catalogue import from_git, from_hub
from htr_ray.corpus.catalogue.entries import Entry, GitSource
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import LFS_POINTER
from htr_ray.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there two fetches of one corpus at once are the user's to avoid
    fcntl = None  # type: ignore[assignment]

CACHE_VARIABLE = "HTR_RAY_CACHE"
_MARKER = ".complete"


@dataclass(frozen=True)
class Fetched:
    """A corpus that lies in the cache, and how to import it: arguments of ``prepare``."""

    input: str
    """Local folder or file for the importer."""
    options: ImportOptions
    source: str
    """Where exactly it is from, for ``corpus.json``."""
    remarks: tuple[str, ...]
    """What was checked and what could not be, for people."""


def fetch(
    entry: Entry, cache_dir: str | os.PathLike[str] | None = None, progress: Callable[[str], None] | None = None
) -> Fetched:
    """Have ``entry`` in the cache; download it when it is not there, which needs no network otherwise.

    ``cache_dir``: by default ``$HTR_RAY_CACHE`` or ``~/.cache/htr-ray``; a corpus lies there as
    ``corpora/NAME@COMMIT``. ``progress`` is told what is being done, a line at a time. Raises UserError.
    """
    root = Path(cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/htr-ray").expanduser() / "corpora"
    with storage.user_errors(str(root)), _alone(root / f".{entry.name}.lock"):
        folder = _cached(root, entry) or _download(root, entry, progress or _silent)
        facts = storage.read_json(str(folder / _MARKER))
    place = str(folder.absolute())
    if entry.input and not storage.exists(entry.input_at(place)):
        raise UserError(f"{entry.source.address}: has no '{entry.input}'; the catalogue is wrong about it")
    return Fetched(entry.input_at(place), entry.options_at(place), facts["source"], tuple(facts["remarks"]))


def _cached(root: Path, entry: Entry) -> Path | None:
    """The folder of a complete download of what the entry asks for; of several (no commit is asked) the newest."""
    found = []
    for folder in root.glob(f"{entry.name}@{entry.source.revision or '*'}"):
        marker = folder / _MARKER
        if marker.exists() and storage.read_json(str(marker))["asked"] == _asked(entry):
            found.append((marker.stat().st_mtime_ns, folder))
    return max(found)[1] if found else None


def _asked(entry: Entry) -> dict[str, Any]:
    return entry.source.model_dump(mode="json")


def _download(root: Path, entry: Entry, progress: Callable[[str], None]) -> Path:
    source = entry.source
    if isinstance(source, GitSource):
        commit = source.revision or from_git.newest_commit(source)
        folder, remarks = _download_git(root / f"{entry.name}@{commit}", source, commit, progress)
        exactly = f"{source.address} at {commit}"
    else:
        commit = source.revision or from_hub.newest_commit(source)
        folder = root / f"{entry.name}@{commit}"
        sums = from_hub.fetch_files(source, commit, folder, progress)
        digest = _digest_of(sums)
        exactly = f"{source.address} at {commit} (sha256 of its files' sha256 list: {digest})"
        remarks = [_hub_remark(len(sums), source.sha256, digest)]
    if source.revision is None:
        remarks.insert(0, f"the catalogue names no commit; the newest was taken: {commit}")
    facts = {"name": entry.name, "asked": _asked(entry), "source": exactly, "remarks": remarks}
    storage.write_json(str(folder / _MARKER), facts)
    return folder


def _download_git(
    folder: Path, source: GitSource, commit: str, progress: Callable[[str], None]
) -> tuple[Path, list[str]]:
    # git cannot go on with half a transfer: a leftover is thrown away.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        from_git.fetch_commit(source, commit, partial, progress)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    remarks = [f"checked by git: all files are those of commit {commit}"]
    pointers = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if _is_pointer(path))
    if pointers:
        remarks.append(
            f"{len(pointers)} files are git LFS pointers instead of the files, for instance {pointers[0]}; to have"
            f" them, run: git lfs install; delete {folder} and fetch again"
        )
    return folder, remarks


def _hub_remark(files: int, known: dict[str, str] | None, digest: str) -> str:
    if known is None:
        return (
            f"{files} files have the checksums that the hub states; not verified against the catalogue, which has"
            f" none. The sha256 of their list, as sha256sum prints it: {digest}"
        )
    return f"{len(known)} of {files} files verified against the catalogue's sha256, all against the hub's"


def _digest_of(sums: dict[str, str]) -> str:
    text = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(sums.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _is_pointer(path: Path) -> bool:
    """Whether a file is what git LFS leaves in place of one that was not downloaded."""
    if not path.is_file() or path.stat().st_size > 1024:
        return False
    return path.read_bytes().startswith(LFS_POINTER)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for another process that fetches the same corpus."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as stream:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _silent(_: str) -> None:
    pass
