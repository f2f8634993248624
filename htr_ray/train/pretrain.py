"""Stage ``pretrain``: an encoder learns a pretext task on unlabelled lines (paper, section 3)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from htr_ray import storage
from htr_ray.corpus.read import Corpus
from htr_ray.errors import UserError
from htr_ray.model.encoder import Encoder
from htr_ray.model.files import save_encoder
from htr_ray.pretext import make as make_pretext
from htr_ray.pretext.base import Pretext
from htr_ray.train import checkpoint
from htr_ray.train.data import PretrainData
from htr_ray.train.fit import NONE_READABLE, EvalBatches, Learner, fit
from htr_ray.train.job import MODEL, PREVIEW, RESULT, Job
from htr_ray.train.preview import preview
from htr_ray.train.worker import Worker

logger = logging.getLogger(__name__)


class PretextModule(nn.Module):
    """Encoder and pretext head; ``forward(batch)`` is the loss of each line ``[B]``."""

    def __init__(self, encoder: Encoder, pretext: Pretext) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = pretext.head(encoder.dim)
        self.pretext = pretext

    def logits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Answers as logits, float ``[B, K, C]``."""
        features, frames = self.encoder(batch["images"], batch["widths"])
        return self.head(features, frames)

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.pretext.loss(self.logits(batch).float(), batch["targets"])


class PretextLearner(Learner):
    """Judged by the accuracy on held-out lines, whose views are the same in every epoch."""

    score = "val_accuracy"
    sign = 1

    def __init__(self, module: PretextModule) -> None:
        self.module = module

    def groups(self, peak: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": peak}]

    def evaluate(self, batches: Iterator[dict[str, Any]], worker: Worker) -> dict[str, float]:
        right, loss, lines = 0.0, 0.0, 0.0
        module = self.module
        assert isinstance(module, PretextModule)
        for batch in batches:
            logits = module.logits(batch).float()
            keep = batch["weights"]
            right += float((module.pretext.correct(logits, batch["targets"]) * keep).sum())
            loss += float((module.pretext.loss(logits, batch["targets"]) * keep).sum())
            lines += float(keep.sum())
        totals = [sum(column) for column in zip(*worker.gather([right, loss, lines]), strict=True)]
        if not totals[2]:
            raise UserError(NONE_READABLE)
        return {"val_accuracy": 100.0 * totals[0] / totals[2], "val_loss": totals[1] / totals[2]}


def run(job: Job, data: PretrainData, worker: Worker) -> dict[str, Any]:
    """Pre-train; return the result.

    Leaves ``model/`` (the encoder), ``preview.json`` and ``result.json`` in the job's folder.
    """
    settings = job.pretrain
    assert settings is not None and job.pretext is not None and job.pretext_settings is not None
    torch.manual_seed(job.seed)
    pretext = make_pretext(job.pretext, job.pretext_settings, job.model.height)
    module = PretextModule(Encoder(job.model), pretext)
    learner = PretextLearner(module)
    learner.sync_batchnorm = job.model.sync_batchnorm
    outcome = fit(
        learner,
        data.train,
        data.train_recipe,
        EvalBatches(data.validation, data.validation_recipe, job.stream, worker),
        settings=settings,
        streaming=job.stream,
        worker=worker,
        folder=job.folder,
        seed=job.seed,
    )
    best = next((h for h in outcome.history if h["epoch"] == outcome.best_epoch), {})
    result = {
        "stage": "pretrain",
        "pretext": job.pretext,
        "val_accuracy": best.get("val_accuracy"),
        "chance": 100.0 * pretext.chance,
        "lines": data.train.lines,
        "epochs": outcome.epochs,
        "minutes": outcome.seconds / 60.0,
        "stopped": outcome.stopped,
        "lines_per_second": outcome.lines_per_second,
        "waiting_share": outcome.waiting_share,
        "unreadable": outcome.unreadable,
        "history": outcome.history,
    }
    if worker.leads:
        with tempfile.TemporaryDirectory(prefix="htr-ray-") as local:
            save_encoder(Path(local), module.encoder, {"pretext": job.pretext, "corpus": job.corpus, "seed": job.seed})
            storage.upload_dir(Path(local), storage.join(job.folder, MODEL))
        try:
            shown = preview(Corpus.open(job.corpus), data.validation_recipe, module, pretext, worker.device)
            storage.write_json(storage.join(job.folder, PREVIEW), shown)
        except Exception as error:  # hours of training stand without a picture of some lines
            told = "%s: the preview of the pretext task could not be made, the encoder is complete without it (%s: %s)"
            logger.warning(told, job.folder, type(error).__name__, error)
        storage.write_json(storage.join(job.folder, RESULT), result)
        checkpoint.clear(job.folder)
    return result
