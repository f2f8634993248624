"""Lines by number, in Arrow's memory: as they come from storage, or as they are kept in Ray's object store."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

# Storage answers slowly but in parallel; reading, decoding and scaling let go of the interpreter lock.
READ_THREADS = 16

Columns = dict[str, list[Any]]
"""Columns ``id``, ``image``, ``text`` of lines; an image is an encoded file (bytes) or scaled (uint8 ``[H, W]``)."""

Part = TypeVar("Part")


class Piece(NamedTuple):
    """Some lines: Arrow arrays ``[N]`` of strings, binaries and strings.

    scaled: bool ``[N]``, whether ``image`` holds the pixels of the scaled line, row after row, or an encoded file.
    """

    id: pa.Array
    image: pa.Array
    text: pa.Array
    scaled: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.id.nbytes + self.image.nbytes + self.text.nbytes

    @classmethod
    def of(cls, table: pa.Table) -> Piece:
        """The encoded lines of a table with columns ``id``, ``image`` and ``text``."""
        line_id, image, text = (table[name].combine_chunks() for name in ("id", "image", "text"))
        return cls(line_id, image, text, np.zeros(table.num_rows, dtype=bool))

    def scale(self, decode: Callable[[bytes], np.ndarray]) -> Piece:
        """Decode the encoded lines to the network's height.

        An unreadable line (``decode`` raises ValueError) stays as it is: who makes a batch of it finds out, and
        names it, every time.
        """
        images: list[bytes] = []
        scaled = np.zeros(len(self.id), dtype=bool)
        for row, data in enumerate(self.image):
            encoded = data.as_py()
            try:
                images.append(decode(encoded).tobytes())
                scaled[row] = True
            except ValueError:
                images.append(encoded)
        return Piece(self.id, pa.array(images, pa.large_binary()), self.text, scaled)


class Lines:
    """Lines in pieces, numbered through; ``height`` is that of scaled lines in pixels."""

    def __init__(self, pieces: list[Piece], height: int) -> None:
        self.pieces = pieces
        self.height = height
        self._starts = [0, *accumulate(len(piece.id) for piece in pieces)]

    def columns(self, numbers: np.ndarray) -> Columns:
        """The lines of these numbers, in this order. Scaled images are read-only views, nothing is copied."""
        ids, images, texts = [], [], []
        for number in numbers.tolist():
            place = bisect_right(self._starts, number) - 1
            piece, row = self.pieces[place], number - self._starts[place]
            ids.append(piece.id[row].as_py())
            texts.append(piece.text[row].as_py())
            image = piece.image[row]
            if piece.scaled[row]:
                images.append(np.frombuffer(image.as_buffer(), np.uint8).reshape(self.height, -1))
            else:
                images.append(image.as_py())
        return {"id": ids, "image": images, "text": texts}


def gather(
    read: Callable[[Part], Piece],
    parts: Iterable[Part],
    limit: float = float("inf"),
    keep: Callable[[Piece], Any] = lambda piece: piece,
) -> list[Any] | None:
    """Read parts side by side; what ``keep`` makes of each, in order, or None if they have more than ``limit`` bytes.

    Each piece is handed to ``keep`` as soon as it is there: what keeps them elsewhere needs no room for all here.
    """
    kept: list[Any] = []
    size = 0
    with ThreadPoolExecutor(READ_THREADS, thread_name_prefix="htr-ray-lines") as pool:
        waiting: deque[Future[Piece]] = deque()
        remaining = iter(parts)
        while True:
            waiting.extend(pool.submit(read, part) for part in islice(remaining, READ_THREADS - len(waiting)))
            if not waiting:
                return kept
            piece = waiting.popleft().result()
            size += piece.nbytes
            if size > limit:
                pool.shutdown(cancel_futures=True)
                return None
            kept.append(keep(piece))
