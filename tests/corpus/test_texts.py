"""Figures of texts in Arrow are those of the texts one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus import texts as module
from htr_ray.corpus.texts import measure

texts = st.lists(st.one_of(st.none(), st.text("abבé\u0301𝔞", max_size=6)), max_size=12)


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """Texts are measured in several batches, as a large corpus is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BATCH_LINES", 5)
        yield


@given(texts, texts)
def test_one_by_one(first: list[str | None], second: list[str | None]) -> None:
    column = pa.chunked_array([pa.array(first, pa.string()), pa.array(second, pa.string())])
    found = measure(column.slice(1) if len(column) else column)
    given = [text or "" for text in [*first, *second]][1:]
    assert found.lengths.tolist() == [len(text) for text in given]
    assert found.repeats.tolist() == [sum(a == b for a, b in zip(t, t[1:], strict=False)) for t in given]
    assert found.characters == Counter("".join(given))
