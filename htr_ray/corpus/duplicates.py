"""Lines that a corpus holds more than once; on two sides of a split they make its test too easy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr_ray.corpus.schema import SPLITS, Split

NAMED = 100
"""Most duplicates that are named; all are counted."""
_SEPARATOR = "\x1f"


def same_images(tables: Mapping[Split, pa.Table], digests: Mapping[Split, np.ndarray]) -> dict[str, Any]:
    """Compare the images of all splits by their digests (uint64, in the order of the tables' rows).

    Returns ``lines_on_two_sides``, the number of lines that have the same image as a line of another split;
    ``on_two_sides``, their names (``train: id``) in groups of the same image, one of each side first, at most
    100 groups of 100; and ``lines_within_a_split``, the number of lines whose image came before in the same split.
    """
    sides = [split for split in SPLITS if len(digests[split])]
    if not sides:
        return {"lines_on_two_sides": 0, "on_two_sides": [], "lines_within_a_split": 0}
    everything = np.concatenate([digests[split] for split in sides])
    side = np.repeat(np.arange(len(sides)), [len(digests[split]) for split in sides])
    order = np.lexsort((side, everything))
    sorted_digests, sorted_sides = everything[order], side[order]
    new = np.concatenate([[True], sorted_digests[1:] != sorted_digests[:-1]])
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(order)))
    # Sides are in order within a group: it is on two of them if its first and last differ.
    mixed = sorted_sides[starts] != sorted_sides[starts + sizes - 1]
    again = ~new & (sorted_sides == np.roll(sorted_sides, 1))
    offsets = dict(zip(sides, np.cumsum([0, *(len(digests[split]) for split in sides)]).tolist(), strict=False))

    def name(position: int) -> str:
        split = sides[side[position]]
        return f"{split}: {tables[split]['id'][position - offsets[split]].as_py()}"

    def names(positions: np.ndarray) -> list[str]:
        """One of each side first, then the others."""
        first = np.unique(side[positions], return_index=True)[1]
        others = np.delete(positions, first)
        return [name(int(position)) for position in [*positions[first], *others][:NAMED]]

    groups = [
        names(order[start : start + size])
        for start, size in zip(starts[mixed][:NAMED], sizes[mixed][:NAMED], strict=True)
    ]
    return {
        "lines_on_two_sides": int(sizes[mixed].sum()),
        "on_two_sides": sorted(groups),
        "lines_within_a_split": int(again.sum()),
    }


def same_texts(tables: Mapping[Split, pa.Table]) -> dict[str, Any]:
    """Compare the texts of val and test with those of train.

    Returns for either split ``lines`` whose text is also in train, ``same_size`` of them where the image has
    the same width and height too (a copy, maybe, where sizes vary), and ``ids`` of these, 100 at most.
    """
    found = {}
    train = tables["train"]
    for split in ("val", "test"):
        lines = pc.and_kleene(pc.is_in(tables[split]["text"], train["text"]), pc.is_valid(tables[split]["text"]))
        same_size = pc.fill_null(pc.is_in(_text_and_size(tables[split]), _text_and_size(train), skip_nulls=True), False)
        ids = tables[split]["id"].filter(same_size)
        found[split] = {
            "lines": pc.sum(lines).as_py() or 0,
            "same_size": len(ids),
            "ids": ids.slice(0, NAMED).to_pylist(),
        }
    return found


def _text_and_size(table: pa.Table) -> pa.ChunkedArray:
    """Text, width and height as one string; null where there is no text."""
    sides = (table[name].cast(pa.string()) for name in ("width", "height"))
    return pc.binary_join_element_wise(table["text"], *sides, _SEPARATOR)
