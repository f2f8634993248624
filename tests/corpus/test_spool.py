"""Lines on disk until they are asked for, in any order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.schema import SCHEMA
from htr_ray.corpus.spool import FACTS, Spool
from htr_ray.errors import UserError


def _batch(rows: list[tuple[bytes, str | None]], first: int) -> tuple[pa.RecordBatch, pa.BinaryArray]:
    facts = [
        {"id": f"l{first + i}", "width": i, "height": 1, "text": text, "writer": None, "page": text}
        for i, (_, text) in enumerate(rows)
    ]
    return pa.RecordBatch.from_pylist(facts, FACTS), pa.array([image for image, _ in rows], pa.binary())


@given(
    st.lists(st.lists(st.tuples(st.binary(max_size=40), st.none() | st.text("aé字", max_size=4)), max_size=6)),
    st.data(),
)
def test_what_goes_in_comes_out(batches: list[list[tuple[bytes, str | None]]], data: st.DataObject) -> None:
    rows = [row for batch in batches for row in batch]
    with Spool() as spool:
        first = 0
        for batch in batches:
            facts, images = _batch(batch, first)
            # As from Arrow: a piece of something larger.
            padded = pa.concat_arrays([pa.array([b"before"], pa.binary()), images, pa.array([b"after"], pa.binary())])
            spool.append(facts, padded.slice(1, len(images)))
            first += len(batch)
        spool.close()
        wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
        got = spool.take(np.array(wanted, np.int64))
    assert got.schema.equals(SCHEMA)
    got.validate(full=True)
    assert [(row["id"], row["image"], row["text"], row["page"]) for row in got.to_pylist()] == [
        (f"l{i}", rows[i][0], rows[i][1], rows[i][1]) for i in wanted
    ]


def test_more_than_a_column_holds_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htr_ray.corpus.spool._LARGEST", 1 << 20)
    with Spool() as spool:
        spool.append(*_batch([(bytes(700_000), None), (bytes(700_000), None)], 0))
        spool.close()
        assert spool.take(np.array([1])).num_rows == 1
        with pytest.raises(UserError, match="2 lines of 1 MB do not fit a row group"):
            spool.take(np.array([0, 1]))
