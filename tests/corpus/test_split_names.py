"""What other people call their splits."""

from __future__ import annotations

import pytest

from htr_ray.corpus.importers.splits import split_named


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        (" Validation ", "val"),
        ("dev", "val"),
        ("testset", "test"),
        # As on the Hugging Face hub: what is published to be judged by must not be trained on, nor choose.
        ("eval", "test"),
        ("evaluation", "test"),
        ("fold1", None),
    ],
)
def test_split_named(name: str, split: str | None) -> None:
    assert split_named(name) == split
