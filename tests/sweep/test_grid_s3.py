"""A grid whose corpus, checkpoints and results lie in S3: nothing but URIs differs."""

from __future__ import annotations

import io
from pathlib import Path

import ray
from mlflow import MlflowClient
from rich.console import Console

from htr_ray import storage
from htr_ray.config import GridSettings, load
from htr_ray.corpus.read import Corpus
from htr_ray.sweep.run import run_grid

pytest_plugins = ["s3_server"]


def test_a_grid_in_s3(sample_corpus: str, s3: str, tmp_path: Path) -> None:
    storage.upload_dir(sample_corpus, f"{s3}/corpora/sample")
    assert Corpus.open(f"{s3}/corpora/sample").info.counts["train"].lines > 0
    settings = load(
        GridSettings,
        overrides=[
            *(f"corpora=[{s3}/corpora/sample]", f"storage={s3}/runs", f"tracking_uri=sqlite:///{tmp_path}/mlflow.db"),
            *("name=remote", "pretexts=[none,sorting]", "decoders=[ctc]", "label_fractions=[1.0]"),
            *("model.channels=16", "model.lstm_hidden=16", "finetune.max_epochs=1", "pretrain.max_epochs=1"),
        ],
        environment={},
    )
    said = io.StringIO()
    # Only now: workers of Ray have the environment of the process that starts it, keys of the store included.
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        told = run_grid(settings, console=Console(file=said, width=200))
    finally:
        ray.shutdown()
    assert told["failed"] == {} and [row["state"] for row in told["rows"]] == ["done"] * 3, said.getvalue()
    for row in told["rows"]:
        names = storage.walk(f"{s3}/runs/remote/{row['key']}")
        assert {"result.json", "model/model.safetensors"} <= set(names)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_model_version_by_alias("htr-ray-sample", "champion").aliases == ["champion"]
