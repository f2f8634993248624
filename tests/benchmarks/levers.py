"""One lever at a time: a recognizer trained for N CPU minutes of one core with some settings, its validation CER.

    taskset -c 1 python tests/benchmarks/levers.py CORPUS_URI --minutes 5 model.height=32 [key=value ...]

The same model, lines, batches, augmentation and schedule as jobs/finetune.py, but in one process and
by its CPU time, so that what else runs on the machine does not count. Decoding and augmentation count,
validation does not. Prints JSON; results/levers.md is made of these.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from htr_ray.config import RunSettings, load
from htr_ray.corpus.fractions import label_subset
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Split
from htr_ray.model.recognizer import Recognizer
from htr_ray.stream.batch import BatchMaker, Recipe, unpack
from htr_ray.stream.pipeline import open_source
from htr_ray.train.finetune import RecognizerLearner
from htr_ray.train.fit import to_tensors
from htr_ray.train.metrics import ErrorCount
from htr_ray.train.schedule import rate
from htr_ray.train.worker import autocast_dtype, set_threads

CPU = torch.device("cpu")


class Lines:
    """The lines of a split, and their batches as the stream would make them."""

    def __init__(
        self, corpus: Corpus, split: Split, recipe: Recipe, settings: RunSettings, batch_size: int, share: float
    ) -> None:
        table = corpus.index(split, columns=("id", "image", "text")).select(["id", "image", "text"])
        ids = [row["id"] for row in table.select(["id", "text"]).to_pylist() if row["text"]]
        used = label_subset(ids, share, corpus.info.name, settings.seed)
        self.rows = [row for row in table.to_pylist() if row["id"] in used]
        uncached = settings.stream.model_copy(update={"cache_mb": 0})
        source = open_source(
            corpus, split, recipe, uncached, batch_size=batch_size, seed=settings.seed, labelled=True, only=set(used)
        )
        # As where the corpus is cached: every line is reached by itself.
        self.plan = replace(source.plan, unit=np.arange(source.lines, dtype=np.int32))
        self.make = BatchMaker(recipe)

    def batches(self, lap: int) -> Iterator[dict[str, Any]]:
        for number, chunk in enumerate(self.plan.chunks(lap)):
            for batch in self.plan.batches(lap, number, chunk):
                rows = [self.rows[i] for i in batch]
                columns = {name: [row[name] for row in rows] for name in ("id", "image", "text")}
                made = self.make(columns, lap=lap, epoch=lap, total=len(rows), last=False)
                yield to_tensors(unpack(made), CPU)


def cer(recognizer: Recognizer, batches: list[dict[str, Any]], dtype: torch.dtype | None) -> float:
    count = ErrorCount()
    with torch.inference_mode(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        for batch in batches:
            for truth, reading in zip(
                batch["texts"], recognizer.read(batch["images"], batch["widths"], 1), strict=True
            ):
                count.add(truth, reading.text)
    return count.cer


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("corpus", help="URI of a corpus")
    made.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of training")
    made.add_argument("--looks", type=int, default=3, help="how often validation is looked at")
    asked, overrides = made.parse_known_args()
    set_threads(1, 1)
    settings: RunSettings = load(RunSettings, overrides=overrides)
    model, stage = settings.model, settings.finetune
    corpus = Corpus.open(asked.corpus)
    plain = Recipe(model.height, model.width_scale, model.max_width, settings.seed, alphabet=corpus.alphabet)
    varied = replace(plain, augment=settings.augment)
    train = Lines(corpus, "train", varied, settings, stage.batch_size, settings.label_fraction)
    validation = list(Lines(corpus, "val", plain, settings, 32, 1.0).batches(0))
    torch.manual_seed(settings.seed)
    recognizer = Recognizer(model, settings.decoder, corpus.alphabet)
    if settings.decoder == "transformer" and stage.auxiliary_ctc > 0:
        recognizer.add_auxiliary(stage.auxiliary_ctc)
    groups = RecognizerLearner(recognizer).groups(stage.learning_rate)
    optimizer = torch.optim.AdamW(groups, lr=stage.learning_rate, weight_decay=stage.weight_decay, fused=True)
    dtype = autocast_dtype(stage.precision, CPU)
    lines, lap, looks, seen = 0, 0, [], 0.0
    began = time.process_time()
    while seen < 1.0:
        for batch in train.batches(lap):
            seen = (time.process_time() - began) / (60 * asked.minutes)
            if seen >= 1.0:
                break
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * rate(seen, warmup=stage.warmup, final=stage.final_rate)
            recognizer.train()
            with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                loss = (recognizer(batch) * batch["weights"]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if nn.utils.clip_grad_norm_(recognizer.parameters(), stage.clip_norm).isfinite():
                optimizer.step()
            lines += len(batch["ids"])
            if seen * asked.looks >= len(looks) + 1:
                paused = time.process_time()
                looks.append(round(cer(recognizer, validation, dtype), 2))
                began += time.process_time() - paused
        lap += 1
    print(
        json.dumps(
            {
                "corpus": corpus.info.name,
                "settings": overrides,
                "minutes": asked.minutes,
                "lines_per_second": round(lines / (60 * asked.minutes), 1),
                "val_cer": [*looks, round(cer(recognizer, validation, dtype), 2)],
            }
        )
    )


if __name__ == "__main__":
    main()
