"""Look at every image of a split: which are the same, damaged, nearly blank?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Split
from htr_ray.corpus.work import image_digest
from htr_ray.errors import UserError

# Faint pencil in the corpora at hand has 30 and more.
_BLANK_CONTRAST = 20


@dataclass
class Images:
    """What was seen in the images of one split."""

    digests: np.ndarray
    """uint64, one for each line: equal for equal files, or for equal pixels if the images were decoded."""
    nearly_blank: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _Seen(NamedTuple):
    digest: bytes
    shape: tuple[int, int] | None = None
    contrast: int = 0
    error: str = ""


def look(corpus: Corpus, split: Split, index: pa.Table, *, decode: bool) -> Images:
    """Read the images of a split, a row group at a time; ``index`` is the split's own (see ``Corpus.index``).

    With ``decode`` their pixels are looked at, without it only the files' bytes.
    """
    found = Images(np.zeros(index.num_rows, np.uint64))
    files = corpus.files(split)
    columns = ("id", "image", "width", "height") if decode else ("image",)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, row_group, start, stop in _row_groups(index):
            try:
                group = corpus.read_row_group(files[file], row_group, columns)
            except UserError as error:
                found.problems.append(str(error))
                # Unlike any other: what was not seen is no duplicate.
                found.digests[start:stop] = np.random.default_rng().integers(1 << 63, size=stop - start)
                continue
            images = (image.as_py() for image in group["image"])
            seen = list(pool.map(_pixels if decode else _bytes, images))
            found.digests[start:stop] = np.frombuffer(b"".join(item.digest for item in seen), np.uint64)
            if decode:
                for row, item in zip(group.drop_columns(["image"]).to_pylist(), seen, strict=True):
                    _judge(found, split, row["id"], (row["height"], row["width"]), item)
    return found


def _row_groups(index: pa.Table) -> Iterator[tuple[int, int, int, int]]:
    """``(file, row group, first row of the index, row after its last)`` of each row group."""
    if not index.num_rows:
        return
    file, row_group = index["file"].to_numpy(), index["row_group"].to_numpy()
    starts = np.flatnonzero(np.diff(file, prepend=-1) | np.diff(row_group, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), index.num_rows], strict=True):
        yield int(file[start]), int(row_group[start]), start, stop


def _bytes(image: bytes) -> _Seen:
    return _Seen(image_digest(image))


def _pixels(image: bytes) -> _Seen:
    try:
        array = decode_grey(image)
    except ValueError as error:
        return _Seen(_bytes(image).digest, error=str(error))
    height, width = array.shape
    digest = blake2b(np.ascontiguousarray(array), digest_size=8, salt=width.to_bytes(8, "little")).digest()
    return _Seen(digest, (height, width), _contrast(array))


def _judge(found: Images, split: Split, id_: str, said: tuple[int, int], seen: _Seen) -> None:
    if seen.shape is None:
        found.problems.append(f"{split}: image of {id_}: {seen.error}")
        return
    if seen.contrast < _BLANK_CONTRAST:
        found.nearly_blank.append(id_)
    if seen.shape != said:
        (height, width), (said_height, said_width) = seen.shape, said
        what = f"is {width}x{height}, not {said_width}x{said_height} as said"
        found.problems.append(f"{split}: image of {id_} {what}")


def _contrast(array: np.ndarray) -> int:
    """Grey levels between the paper (median) and the darkest half percent."""
    dark, middle = array.size // 200, array.size // 2
    ordered = np.partition(array.ravel(), (dark, middle))
    return int(ordered[middle]) - int(ordered[dark])
