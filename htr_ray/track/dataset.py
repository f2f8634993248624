"""A corpus as MLflow's datasets: one per split, known by a digest that moves with the corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import pyarrow as pa
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from htr_ray import storage
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SCHEMA, Split
from htr_ray.storage import redacted

CONTEXT: dict[Split, str] = {"train": "training", "val": "validation", "test": "testing"}
# MLflow's names of the types in our columns (mlflow.types.DataType).
_TYPES = {pa.string(): "string", pa.binary(): "binary", pa.int32(): "integer"}


def split_digest(corpus: Corpus, split: Split) -> str:
    """Fingerprint of a split, 16 hex digits: from ``corpus.json`` alone, the same wherever the corpus is copied.

    Part files have names of their own for every writing, so a corpus that was prepared again has another digest.
    """
    info = corpus.info
    told = {
        "name": info.name,
        "schema_version": info.schema_version,
        "split": split,
        "files": sorted(info.files.get(split, [])),
        "counts": info.counts[split].model_dump(),
    }
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()


def split_dataset(corpus: Corpus, split: Split) -> Dataset:
    """MLflow's view of a split: name of the corpus, digest, source URI, columns and counts."""
    info = corpus.info
    local = storage.is_local(corpus.uri)
    profile = {
        "num_rows": info.counts[split].lines,
        "split": split,
        **info.counts[split].model_dump(),
        "split_by": info.split_by,
        "characters": len(info.alphabet),
        "alphabet": info.alphabet,
        "direction": info.direction,
        "licence": info.licence,
        "source": info.source,
        "set_aside": sum(info.set_aside.values()),
    }
    columns = [{"name": field.name, "type": _TYPES[field.type], "required": not field.nullable} for field in SCHEMA]
    return Dataset(
        name=info.name[:500],
        digest=split_digest(corpus, split),
        source_type="local" if local else corpus.uri.partition("://")[0],
        source=json.dumps({"uri": redacted(corpus.uri)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(profile, ensure_ascii=False),
    )


def dataset_inputs(corpus: Corpus, splits: Sequence[Split]) -> list[DatasetInput]:
    """What a run reads of a corpus, each split with what it was read for; empty splits are no inputs."""
    return [
        DatasetInput(split_dataset(corpus, split), [InputTag(MLFLOW_DATASET_CONTEXT, CONTEXT[split])])
        for split in splits
        if corpus.info.counts[split].lines
    ]
