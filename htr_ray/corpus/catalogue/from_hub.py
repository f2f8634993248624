"""Files of a dataset on the Hugging Face hub, each checked against the sum that the hub or the catalogue states."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urljoin

from htr_ray import __version__, storage
from htr_ray.corpus.catalogue.entries import HubSource
from htr_ray.errors import UserError

Progress = Callable[[str], None]
_TIMEOUT = 60
_CHUNK = 1 << 20
_NO_CONNECTION = "no connection; check the network and run the same command again, it goes on where it stopped"


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it."""

    path: str
    size: int
    sha256: str | None
    """Of large files; None: a small one, which has only a git id."""
    git_id: str


def newest_commit(source: HubSource) -> str:
    """The commit that the dataset is at now."""
    return _revision(source, "main")


def fetch_files(source: HubSource, commit: str, folder: Path, progress: Progress) -> dict[str, str]:
    """Download what ``source`` names into ``folder``; return the sha256 of each file, by path.

    What an interrupted call has left there is used. Raises UserError; a file that is not what it should be is
    deleted first.
    """
    received = _revision(source, commit)
    if received != commit:
        raise UserError(f"{source.address}: asked for commit {commit}, the hub answers with {received}")
    files = _listing(source, commit)
    missing = set(source.sha256 or {}) - {file.path for file in files}
    if missing:
        raise UserError(f"{source.address}: has no {sorted(missing)[0]}, which the catalogue names")
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {_megabytes(needed)} are needed, {_megabytes(free)} are free; free some space or set"
            " HTR_RAY_CACHE to a folder on another disk"
        )
    return {file.path: _fetch(source, commit, file, folder, progress) for file in files}


def _fetch(source: HubSource, commit: str, file: HubFile, folder: Path, progress: Progress) -> str:
    target = folder / file.path
    part = target.with_name(target.name + ".part")
    expected = (source.sha256 or {}).get(file.path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        url = f"{_endpoint()}/datasets/{source.repository}/resolve/{commit}/{quote(file.path)}"
        _download(url, part, file, progress)
        progress(f"checking {file.path}")
        sha256 = _checked(part, file, expected)
        os.replace(part, target)
        return sha256
    progress(f"checking {file.path}")
    return _checked(target, file, expected)


def _checked(path: Path, file: HubFile, expected: str | None) -> str:
    """The sha256 of a file, when it is the one wanted. Raises UserError, after deleting it, when it is not."""
    sha256 = _digest(path, hashlib.sha256())
    wrong = None
    if expected is not None and sha256 != expected:
        wrong = f"sha256 {sha256}, the catalogue says {expected}"
    elif file.sha256 is not None and sha256 != file.sha256:
        wrong = f"sha256 {sha256}, the hub says {file.sha256}"
    elif file.sha256 is None:
        # git names a file by the SHA-1 of a header and its content.
        git_id = _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))
        wrong = None if git_id == file.git_id else f"git id {git_id}, the hub says {file.git_id}"
    if wrong:
        path.unlink()
        raise UserError(f"{file.path}: wrong checksum: {wrong}. The file was deleted; run the same command again")
    return sha256


def _digest(path: Path, digest: Any) -> str:
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, part: Path, file: HubFile, progress: Progress) -> None:
    """Fetch a file, going on after what is there; a broken connection is taken up as long as something comes."""
    have = part.stat().st_size if part.exists() else 0
    if have > file.size:
        part.unlink()
        have = 0
    while have < file.size or not part.exists():
        try:
            _append(url, part, have, lambda size: progress(f"{file.path}: {_of(size, file.size)}"))
        except (OSError, http.client.HTTPException) as error:
            now = part.stat().st_size if part.exists() else 0
            if now <= have:
                raise _explain(url, error) from error
        now = part.stat().st_size
        if now <= have and now < file.size:
            raise UserError(f"{url}: ends after {now} of {file.size} bytes")
        have = now


def _append(url: str, part: Path, have: int, told: Callable[[int], None]) -> None:
    with _open(url, {"Range": f"bytes={have}-"} if have else {}) as response:
        # A server that cannot go on in the middle sends all of it.
        mode = "ab" if have and response.status == 206 else "wb"
        size = have if mode == "ab" else 0
        with open(part, mode) as stream:
            while chunk := response.read(_CHUNK):
                stream.write(chunk)
                size += len(chunk)
                told(size)


def _revision(source: HubSource, revision: str) -> str:
    answer, _ = _json(f"{_endpoint()}/api/datasets/{source.repository}/revision/{revision}")
    return str(answer["sha"])


def _listing(source: HubSource, commit: str) -> list[HubFile]:
    url: str | None = f"{_endpoint()}/api/datasets/{source.repository}/tree/{commit}?recursive=true"
    files = []
    while url:
        page, url = _json(url)
        for item in page:
            path = str(item["path"])
            if item["type"] == "file" and any(fnmatchcase(path, pattern) for pattern in source.files):
                if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                    raise UserError(f"{source.address}: a file is named '{path}', outside of the dataset")
                files.append(HubFile(path, item["size"], (item.get("lfs") or {}).get("oid"), item["oid"]))
    if not files:
        raise UserError(f"{source.address}: no file {' or '.join(source.files)} at commit {commit}")
    return sorted(files, key=lambda file: file.path)


def _json(url: str) -> tuple[Any, str | None]:
    """What the hub's API says, and the address of the next page of it."""
    try:
        with _open(url, {}) as response:
            link = response.headers.get("Link", "")
            return json.load(response), urljoin(url, link.split(">")[0][1:]) if 'rel="next"' in link else None
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise _explain(url, error) from error


def _open(url: str, headers: dict[str, str]) -> Any:
    # No credentials: what is catalogued is public, and files come from other hosts, which must not see any.
    request = urllib.request.Request(url, headers={"User-Agent": f"htr-ray/{__version__}", **headers})
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _explain(url: str, error: Exception) -> UserError:
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (401, 403, 404):
            return UserError(f"{url}: not there, or not public any more (HTTP {error.code})")
        return storage.Unavailable(f"{url}: the hub is busy or broken (HTTP {error.code}); run the same command later")
    if isinstance(error, json.JSONDecodeError):
        return UserError(f"{url}: not an answer of the hub; check HF_ENDPOINT")
    if isinstance(error, urllib.error.URLError | http.client.HTTPException | ConnectionError | TimeoutError):
        return storage.Unavailable(f"{url}: {_NO_CONNECTION} ({getattr(error, 'reason', error)})")
    raise error


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _of(size: int, total: int) -> str:
    return f"{_megabytes(size)} of {_megabytes(total)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
