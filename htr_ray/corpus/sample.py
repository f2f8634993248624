"""The embedded sample corpus: made on the spot, offline, the same everywhere the same libraries run.

It stands in for a collection while one tries htr-ray out, and in tests: a few thousand short
lines by synthetic writers, small enough to learn to read in minutes on two cores. No files
are shipped; letters come from the Hershey fonts (``sample_glyphs``), texts from a small
grammar (``sample_text``), writers from ``sample_hand``, ink and paper from ``sample_draw``.
"""

from __future__ import annotations

import numpy as np

from htr_ray import storage
from htr_ray.corpus.images import encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.sample_draw import draw_line
from htr_ray.corpus.sample_hand import make_hand
from htr_ray.corpus.sample_text import draw_texts
from htr_ray.corpus.schema import INFO_FILE, SPLITS, Line
from htr_ray.corpus.splits import assign_splits
from htr_ray.corpus.write import CorpusWriter
from htr_ray.errors import UserError

NAME = "sample"
# Raise it with every change of what is drawn or said: samples of an earlier version are then made anew.
VERSION = 1
LINES_PER_PAGE = 12


def write_sample(root: str, *, lines: int = 1500, writers: int = 48, seed: int = 0) -> str:
    """Write the sample corpus and return its URI, ``<root>/sample``.

    Returns at once when it is there already, made with the same parameters; otherwise it is
    made anew. ``lines`` are dealt evenly to ``writers``, and writers to the splits (80, 10 and
    10 % of the lines). Characters of val and test all occur in train. Raises UserError for
    fewer than three writers, fewer than eight lines each, a negative seed, or when the storage fails.
    """
    if writers < 3:
        sides = ", ".join(SPLITS)
        raise UserError(f"sample corpus: writers = {writers}: at least 3, one for each of {sides}")
    if lines < 8 * writers:
        raise UserError(f"sample corpus: lines = {lines}: at least 8 for each of {writers} writers")
    if seed < 0:
        raise UserError(f"sample corpus: seed = {seed}: must not be negative")
    uri = storage.join(root, NAME)
    source = f"htr_ray embedded sample, version {VERSION}: lines={lines} writers={writers} seed={seed}"
    if _is_there(uri, source):
        return uri

    order = [f"w{number % writers:03d}" for number in range(lines)]
    split_of = assign_splits(order, seed)
    texts = _deal_texts([split_of[writer] for writer in order], seed)
    with CorpusWriter(uri, NAME, licence="CC0-1.0", source=source, seed=seed) as corpus:
        corpus.split_by = "writer"
        for number, (writer, text) in enumerate(zip(order, texts, strict=True)):
            turn = number // writers  # which line of this writer
            hand = make_hand(number % writers, seed)
            image = draw_line(text, hand, np.random.default_rng([seed, 3, number % writers, turn]))
            line = Line(
                id=f"{writer}-{turn:04d}",
                image=encode_png(image),
                width=image.shape[1],
                height=image.shape[0],
                text=text,
                writer=writer,
                page=f"{writer}-p{turn // LINES_PER_PAGE + 1}",
            )
            corpus.add(line, split_of[writer])
    return uri


def _is_there(uri: str, source: str) -> bool:
    if not storage.exists(storage.join(uri, INFO_FILE)):
        return False
    try:
        return Corpus.open(uri).info.source == source
    except UserError:  # of a later version, or damaged: made anew
        return False


def _deal_texts(splits: list[str], seed: int) -> list[str]:
    """A text for each line; those of val and test use no character that train lacks."""
    rng = np.random.default_rng([seed, 4])
    train = iter(draw_texts(splits.count("train"), rng))
    written = [next(train) if split == "train" else "" for split in splits]
    known = set("".join(written))
    return [text or draw_texts(1, rng, known)[0] for text in written]
