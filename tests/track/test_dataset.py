"""A corpus as MLflow's datasets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from htr_ray.corpus.read import Corpus
from htr_ray.corpus.sample import write_sample
from htr_ray.track.dataset import dataset_inputs, split_dataset, split_digest


def test_the_digest_moves_with_the_corpus_and_changes_with_its_lines(sample_corpus: str, tmp_path: Path) -> None:
    here = Corpus.open(sample_corpus)
    shutil.copytree(sample_corpus, tmp_path / "sample")
    copied = Corpus.open(str(tmp_path / "sample"))
    other = Corpus.open(write_sample(str(tmp_path / "other"), lines=120, writers=6))
    for split in ("train", "val", "test"):
        assert split_digest(here, split) == split_digest(copied, split) != split_digest(other, split)
    assert len({split_digest(here, split) for split in ("train", "val", "test")}) == 3


def test_a_dataset_tells_columns_and_counts(sample_corpus: str) -> None:
    corpus = Corpus.open(sample_corpus)
    dataset = split_dataset(corpus, "train")
    profile, schema = json.loads(dataset.profile), json.loads(dataset.schema)["mlflow_colspec"]
    assert profile["num_rows"] == corpus.info.counts["train"].lines and profile["alphabet"] == corpus.info.alphabet
    assert {"name": "text", "type": "string", "required": False} in schema
    assert (dataset.source_type, json.loads(dataset.source)) == ("local", {"uri": corpus.uri})


def test_an_empty_split_is_no_input(sample_corpus: str) -> None:
    corpus = Corpus.open(sample_corpus)
    corpus.info.counts["test"].lines = 0
    inputs = dataset_inputs(corpus, ("train", "test"))
    assert [[tag.value for tag in item.tags] for item in inputs] == [["training"]]
