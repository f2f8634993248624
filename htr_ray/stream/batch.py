"""Make a batch out of lines: decode and scale if that is still to do, augment or view, pad, pack into one Arrow row."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from htr_ray.config import AugmentSettings, PretextSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.images import decode_grey
from htr_ray.pretext import make as make_pretext
from htr_ray.stream.augment import augment
from htr_ray.stream.scale import MIN_WIDTH, PAPER, pack, scale_line

WIDTH_STEP = 16  # least step of batch widths


def padded_width(width: int) -> int:
    """Width of a batch whose widest line has ``width`` pixels.

    Every distinct width costs the CPU's kernels some 0.1 s of preparation: steps of a sixteenth
    leave a few dozen widths in all, and pad 3 % on average.
    """
    step = max(WIDTH_STEP, 1 << max(0, width.bit_length() - 5))
    return -(-width // step) * step


@dataclass(frozen=True)
class Recipe:
    """What is done with a line on its way into a batch.

    A line becomes the input of a recognizer, or, with ``pretext``, a view with its answer.
    ``augment`` None leaves the line as it is (validation, test).
    """

    height: int
    width_scale: float
    max_width: int
    seed: int
    augment: AugmentSettings | None = None
    pretext: str | None = None
    pretext_settings: PretextSettings | None = None
    alphabet: Alphabet | None = None

    @property
    def scaling(self) -> tuple[int, float, int]:
        """What a line's scaled pixels depend on: height, width_scale, max_width."""
        return self.height, self.width_scale, self.max_width

    def scaled(self, data: bytes) -> np.ndarray:
        """An encoded line as uint8 ``[height, W]``. Raises ValueError if unreadable."""
        return scale_line(decode_grey(data), *self.scaling)


@dataclass
class Batch:
    """A batch on the trainer's side, still numpy.

    images: uint8 ``[B, 1, H, W]``, padded with 255 on the right; widths: int32 ``[B]``;
    targets: int64 ``[B, L]`` (characters padded with 0, or the pretext's answer);
    lengths: int64 ``[B]``; weights: float32 ``[B]``, 0 for a line that could not be decoded;
    total: lines of the global batch over all workers; epoch: counted from 0.
    """

    images: np.ndarray
    widths: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray
    ids: list[str]
    texts: list[str]
    total: int
    epoch: int
    last: bool
    unreadable: list[str]


SCHEMA = pa.schema(
    [
        ("images", pa.large_binary()),
        ("shape", pa.list_(pa.int32())),
        ("widths", pa.list_(pa.int32())),
        ("targets", pa.list_(pa.int64())),
        ("lengths", pa.list_(pa.int64())),
        ("weights", pa.list_(pa.float32())),
        ("ids", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("total", pa.int32()),
        ("epoch", pa.int32()),
        ("last", pa.bool_()),
        ("unreadable", pa.list_(pa.string())),
    ]
)


# Texts whose numbers a maker remembers: those of most corpora, in some 20 MiB.
TEXTS = 2**16


class BatchMaker:
    """Decodes and packs; one per CPU worker and recipe (the pretext task is built once)."""

    def __init__(self, recipe: Recipe) -> None:
        # Ray runs one worker per CPU already; OpenCV's own threads would only fight over the cores.
        cv2.setNumThreads(0)
        self.recipe = recipe
        self.pretext = None
        if recipe.pretext is not None:
            assert recipe.pretext_settings is not None
            self.pretext = make_pretext(recipe.pretext, recipe.pretext_settings, recipe.height)
        self._target = lru_cache(TEXTS)(self._encode)

    def _encode(self, text: str) -> np.ndarray:
        target = self.recipe.alphabet.encode(text) if self.recipe.alphabet is not None and text else []
        return np.asarray(target, dtype=np.int64)

    def line(self, image: bytes | np.ndarray, line_id: str, text: str, lap: int) -> tuple[np.ndarray, np.ndarray]:
        """One line: uint8 ``[H, W]`` and its target, int64 ``[L]``. Raises ValueError if unreadable.

        ``image`` is an encoded file, or what :meth:`Recipe.scaled` makes of it.
        """
        recipe = self.recipe
        # crc32, not hash(): the same view on every machine and in every process.
        rng = np.random.default_rng([recipe.seed, 3, lap, zlib.crc32(line_id.encode())])
        if isinstance(image, bytes):
            image = recipe.scaled(image)
        if recipe.augment is not None:
            # A pretext task has a new question every time: it needs no ramp.
            image = augment(image, recipe.augment, rng, seen=lap if self.pretext is None else None)
        if self.pretext is not None:
            return self.pretext.view(image, rng)
        if image.shape[1] > recipe.max_width:  # stretched by augmentation: all of the text stays, as in a line so wide
            image = cv2.resize(image, (recipe.max_width, recipe.height), interpolation=cv2.INTER_AREA)
        return image, self._target(text)

    def __call__(self, lines: Mapping[str, Sequence[Any]], *, lap: int, epoch: int, total: int, last: bool) -> pa.Table:
        """Pack lines (columns ``id``, ``image``, ``text``) into a one-row table of :data:`SCHEMA`."""
        return to_table([self.batch(lines, lap=lap, epoch=epoch, total=total, last=last)])

    def batch(self, lines: Mapping[str, Sequence[Any]], *, lap: int, epoch: int, total: int, last: bool) -> Batch:
        """The batch of lines (columns ``id``, ``image``, ``text``)."""
        images, targets, weights, unreadable = [], [], [], []
        answers = self.pretext.positions if self.pretext is not None else 0
        for line_id, given, text in zip(lines["id"], lines["image"], lines["text"], strict=True):
            try:
                image, target = self.line(given, line_id, text or "", lap)
                weights.append(1.0)
            except ValueError as error:
                # Set aside and named, not dropped: all workers keep the same number of batches.
                image = np.full((self.recipe.height, MIN_WIDTH), PAPER, np.uint8)
                target = np.zeros(answers, np.int64)
                weights.append(0.0)
                unreadable.append(f"{line_id}: {error}")
            images.append(image)
            targets.append(target)

        widths = np.array([image.shape[1] for image in images], dtype=np.int32)
        lengths = np.array([len(target) for target in targets], dtype=np.int64)
        table = np.zeros((len(targets), max(1, int(lengths.max()))), dtype=np.int64)
        for number, target in enumerate(targets):
            table[number, : len(target)] = target
        return Batch(
            images=pack(images, padded_width(int(widths.max()))),
            widths=widths,
            targets=table,
            lengths=lengths,
            weights=np.array(weights, np.float32),
            ids=list(lines["id"]),
            texts=[text or "" for text in lines["text"]],
            total=total,
            epoch=epoch,
            last=last,
            unreadable=unreadable,
        )


def to_table(batches: Sequence[Batch]) -> pa.Table:
    """Batches as the rows of a table of :data:`SCHEMA`.

    The more the better: what Ray does with a table it does with each of its dozen columns.
    """
    pixels = np.concatenate([batch.images.ravel() for batch in batches])
    ends = np.cumsum([0, *(batch.images.nbytes for batch in batches)])
    images = pa.Array.from_buffers(
        pa.large_binary(), len(batches), [None, pa.py_buffer(ends.astype(np.int64)), pa.py_buffer(pixels)]
    )
    columns = [images, _lists([np.array([len(b.images), *b.images.shape[2:]], np.int32) for b in batches])]
    columns += [
        _lists([getattr(batch, name).ravel() for batch in batches])
        for name in ("widths", "targets", "lengths", "weights")
    ]
    for field in list(SCHEMA)[len(columns) :]:
        columns.append(pa.array([getattr(batch, field.name) for batch in batches], field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _lists(values: Sequence[np.ndarray]) -> pa.Array:
    """Numbers ``[N_i]`` of every row as an array of lists, without a Python object for each number."""
    ends = np.cumsum([0, *(len(row) for row in values)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(values)))


def unpack(table: pa.Table) -> Batch:
    """The inverse of :func:`to_table` for one row -> :class:`Batch`."""
    count, height, width = table["shape"][0].as_py()
    pixels = np.frombuffer(table["images"][0].as_buffer(), dtype=np.uint8)

    def array(name: str) -> np.ndarray:
        # A copy, or who keeps these few numbers would keep the whole block of batches in the object store.
        return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()

    return Batch(
        images=pixels.reshape(count, 1, height, width),
        widths=array("widths"),
        targets=array("targets").reshape(count, -1),
        lengths=array("lengths"),
        weights=array("weights"),
        ids=table["ids"][0].as_py(),
        texts=table["texts"][0].as_py(),
        total=table["total"][0].as_py(),
        epoch=table["epoch"][0].as_py(),
        last=table["last"][0].as_py(),
        unreadable=table["unreadable"][0].as_py(),
    )
