"""Files on their way to MLflow: gathered in a temporary folder, fingerprinted, fetched."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from htr_ray import storage

File = bytes | Path | str


@contextmanager
def folder_of(files: Mapping[str, File]) -> Iterator[Path]:
    """A temporary folder that holds ``files`` under their artifact paths."""
    with tempfile.TemporaryDirectory(prefix="htr-ray-files-") as name:
        for path, content in files.items():
            parts = PurePosixPath(path).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise ValueError(f"artifact path '{path}' leaves the run's folder")
            target = Path(name).joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            elif isinstance(content, str):
                target.write_text(content, encoding="utf-8")
            elif content.is_dir():
                shutil.copytree(content, target)
            else:
                shutil.copyfile(content, target)
        yield Path(name)


def digest(folder: Path) -> str:
    """A fingerprint of a folder's files: names and contents."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    state.update(block)
    return state.hexdigest()


@contextmanager
def local_folder(place: Path | str) -> Iterator[Path]:
    """The folder itself when it is a Path, else what lies at that URI, downloaded for as long as needed."""
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="htr-ray-fetch-") as name:
        storage.download_dir(place, name)
        yield Path(name)
