"""Duplicates found at once are those found by comparing every line with every other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.duplicates import same_images, same_texts
from htr_ray.corpus.schema import SPLITS

digests = st.fixed_dictionaries({split: st.lists(st.integers(0, 6), max_size=7) for split in SPLITS})
facts = st.tuples(st.one_of(st.none(), st.sampled_from(["a", "ab", ""])), st.integers(1, 2), st.integers(1, 2))
texts = st.fixed_dictionaries({split: st.lists(facts, max_size=6) for split in SPLITS})


@given(digests)
def test_images(given: dict[str, list[int]]) -> None:
    tables = {
        split: pa.table({"id": pa.array([f"{i}" for i in range(len(d))], pa.string())}) for split, d in given.items()
    }
    found = same_images(tables, {split: np.array(d, np.uint64) for split, d in given.items()})  # type: ignore[arg-type]
    lines = [(split, i, digest) for split in SPLITS for i, digest in enumerate(given[split])]
    twice = {line for line in lines if any(line[2] == other[2] and line[0] != other[0] for other in lines)}
    assert found["lines_on_two_sides"] == len(twice)
    groups = {digest: {f"{s}: {i}" for s, i, d in lines if d == digest} for _, _, digest in twice}
    assert sorted(map(sorted, found["on_two_sides"])) == sorted(map(sorted, groups.values()))
    assert all(group[0].split(":")[0] != group[1].split(":")[0] for group in found["on_two_sides"])
    assert found["lines_within_a_split"] == sum(len(d) - len(set(d)) for d in given.values())


@given(texts)
def test_texts(given: dict[str, list[tuple[str | None, int, int]]]) -> None:
    tables = {}
    for split, rows in given.items():
        columns = {
            "id": pa.array([f"{split}{i}" for i in range(len(rows))], pa.string()),
            "text": pa.array([row[0] for row in rows], pa.string()),
            "width": pa.array([row[1] for row in rows], pa.int32()),
            "height": pa.array([row[2] for row in rows], pa.int32()),
        }
        tables[split] = pa.table(columns)
    found = same_texts(tables)  # type: ignore[arg-type]
    for split in ("val", "test"):
        seen = {row[0] for row in given["train"]}
        copies = [f"{split}{i}" for i, row in enumerate(given[split]) if row[0] is not None and row in given["train"]]
        assert found[split]["lines"] == sum(row[0] is not None and row[0] in seen for row in given[split])
        assert found[split]["ids"] == copies and found[split]["same_size"] == len(copies)
