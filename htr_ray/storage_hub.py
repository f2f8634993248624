"""``hf://`` for :mod:`htr_ray.storage`: the Hugging Face hub as a pyarrow filesystem."""

from __future__ import annotations

import os
import re
from typing import Any

import pyarrow as pa
from pyarrow import fs

from htr_ray.errors import UserError

_DATASET = re.compile(r"hf://(datasets/|spaces/)?(?!datasets/|spaces/)[^/]+/[^/]+", re.IGNORECASE)
# What the hub's library raises, of its own or of its HTTP client's, which changes with its version.
_LIBRARIES = frozenset({"huggingface_hub", "httpx", "httpx2", "requests"})


def hub_filesystem(uri: str) -> fs.FileSystem:
    """The filesystem of an ``hf://`` URI. Raises UserError when the library is missing or the URI names no dataset."""
    if not _DATASET.match(uri):
        raise UserError(f"{uri}: names no dataset; write hf://datasets/namespace/name/path")
    try:
        from huggingface_hub import HfFileSystem
    except ImportError as error:
        raise UserError(f"{uri}: hf:// needs huggingface_hub; pip install 'htr-ray[hub]'") from error
    # It keeps one instance per thread, endpoint and token itself.
    return fs.PyFileSystem(_Handler(HfFileSystem(endpoint=os.environ.get("HF_ENDPOINT"))))


def is_hub_error(error: Exception) -> bool:
    """Whether the hub's library raised it; not all that it raises are OSErrors."""
    return type(error).__module__.split(".")[0] in _LIBRARIES


class _Handler(fs.FSSpecHandler):
    """Tells a hub that does not answer from a file that is not there: fsspec's isfile and isdir say no to both."""

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        try:
            self._expect(selector.base_dir, "directory", NotADirectoryError)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        depth = None if selector.recursive else 1
        found = self.fs.find(selector.base_dir, maxdepth=depth, withdirs=True, detail=True)
        below = {path: info for path, info in found.items() if path.strip("/") != selector.base_dir.strip("/")}
        return [self._create_file_info(path, info) for path, info in below.items()]

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        self._expect(path, "file", IsADirectoryError)
        return pa.PythonFile(self.fs.open(path, mode="rb"), mode="r")

    def _expect(self, path: str, kind: str, otherwise: type[OSError]) -> None:
        info: dict[str, Any] = self.fs.info(path)
        if info["type"] != kind:
            raise otherwise(path)
