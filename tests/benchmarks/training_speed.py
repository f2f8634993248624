"""What bfloat16 autocast and the stream do to training speed, as ratios within one run.

    python tests/benchmarks/training_speed.py [CORPUS_URI]

One trainer with one thread on `small`. "alone" repeats one batch that lies in memory; "fed"
takes every batch from the stream (decode, augmentation, packing on another CPU worker). The
three are measured in turn, several times; medians and their ratios are printed as JSON.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import ray
import torch
from rich.console import Console

from htr_ray.config import RunSettings, load
from htr_ray.connect import cluster
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.sample import write_sample
from htr_ray.model.recognizer import Recognizer
from htr_ray.stream.batch import Recipe
from htr_ray.stream.pipeline import open_source, stream
from htr_ray.train.fit import to_tensors

ROUNDS, STEPS = 5, 25


def speed(recognizer: Recognizer, batches: Iterator[dict[str, Any]], dtype: torch.dtype | None) -> float:
    """Lines per second of forward, backward and optimizer step."""
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=1e-4)
    lines, began = 0, time.monotonic()
    for _ in range(STEPS):
        batch = next(batches)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            loss = recognizer(batch).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        lines += len(batch["ids"])
    return lines / (time.monotonic() - began)


def main(uri: str) -> None:
    settings = load(RunSettings)
    torch.set_num_threads(1)
    corpus = Corpus.open(uri)
    alphabet = corpus.alphabet
    model = settings.model
    recipe = Recipe(model.height, model.width_scale, model.max_width, 0, augment=settings.augment, alphabet=alphabet)
    source = open_source(
        corpus, "train", recipe, settings.stream, batch_size=settings.finetune.batch_size, seed=0, labelled=True
    )
    recognizer = Recognizer(model, "ctc", alphabet)
    fed = (to_tensors(batch, torch.device("cpu")) for batch in stream(source, recipe, settings.stream))
    held = next(fed)

    def alone() -> Iterator[dict[str, Any]]:
        while True:
            yield held

    found: dict[str, list[float]] = {"float32 alone": [], "bfloat16 alone": [], "bfloat16 fed": []}
    for number in range(ROUNDS + 1):
        figures = {
            "float32 alone": speed(recognizer, alone(), None),
            "bfloat16 alone": speed(recognizer, alone(), torch.bfloat16),
            "bfloat16 fed": speed(recognizer, fed, torch.bfloat16),
        }
        if number:  # the first round warms up kernels and stream
            for name, value in figures.items():
                found[name].append(value)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(
        json.dumps(
            {
                "lines_per_second": medians,
                "bfloat16_over_float32": medians["bfloat16 alone"] / medians["float32 alone"],
                "fed_over_alone": medians["bfloat16 fed"] / medians["bfloat16 alone"],
                "batch": list(held["images"].shape),
                "machine": platform.processor() or platform.machine(),
                "versions": {"torch": torch.__version__, "ray": ray.__version__},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    with cluster(Console(stderr=True)):
        main(sys.argv[1] if len(sys.argv) > 1 else write_sample("runs/corpora"))
