"""Other people's names for splits."""

from __future__ import annotations

from htr_ray.corpus.schema import Split

_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    # As the Hugging Face hub has it (datasets, data_files.py).
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
    "testset": "test",
}


def split_named(name: str) -> Split | None:
    """The split that ``name`` means: ``Validation`` -> val, ``testset`` -> test; None for any other name."""
    return _NAMES.get(name.strip().lower())
