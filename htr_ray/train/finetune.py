"""Stage ``finetune``: a recognizer learns from a share of the labels, from scratch or a pre-trained encoder."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from htr_ray import storage
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.cost import cost
from htr_ray.model.files import load_encoder, save_recognizer
from htr_ray.model.recognizer import Recognizer
from htr_ray.stream.pipeline import Source
from htr_ray.train import checkpoint
from htr_ray.train.data import FinetuneData
from htr_ray.train.fit import NONE_READABLE, EvalBatches, Learner, _evaluate, fit
from htr_ray.train.job import MODEL, READINGS, RESULT, Job
from htr_ray.train.metrics import ErrorCount, grapheme_error_rate
from htr_ray.train.worker import Worker, autocast_dtype

logger = logging.getLogger(__name__)


@dataclass
class LineReading:
    """A test line with truth and reading, for the predictions sample and the report."""

    id: str
    truth: str
    reading: str
    confidence: float
    edits: int


class RecognizerLearner(Learner):
    """Judged by the CER on the validation lines, read greedily (beam search only at the end)."""

    score = "val_cer"
    sign = -1

    def __init__(
        self, recognizer: Recognizer, encoder_rate: float = 1.0, taken: Literal["resnet", "encoder"] | None = None
    ) -> None:
        """``taken``: what of the encoder is pre-trained, and learns on at ``encoder_rate`` times the others' rate."""
        self.module = recognizer
        self.encoder_rate = encoder_rate
        self.taken = taken
        self.beam: int | None = 1
        self.readings: list[LineReading] = []

    def groups(self, peak: float) -> list[dict[str, Any]]:
        recognizer = self.module
        assert isinstance(recognizer, Recognizer)
        known: set[int] = set()
        if self.taken is not None:
            taken = recognizer.encoder.resnet if self.taken == "resnet" else recognizer.encoder
            known = {id(p) for p in taken.parameters()}
        trained = [p for p in recognizer.parameters() if p.requires_grad]
        old, new = [p for p in trained if id(p) in known], [p for p in trained if id(p) not in known]
        groups = [{"params": old, "lr": peak * self.encoder_rate}] if old else []
        return [*groups, {"params": new, "lr": peak}]

    def evaluate(self, batches: Iterator[dict[str, Any]], worker: Worker) -> dict[str, float]:
        recognizer = self.module
        assert isinstance(recognizer, Recognizer)
        count = ErrorCount()
        self.readings = []
        for batch in batches:
            readings = recognizer.read(batch["images"], batch["widths"], self.beam)
            weights = batch["weights"].tolist()
            for line_id, truth, reading, weight in zip(batch["ids"], batch["texts"], readings, weights, strict=True):
                if weight == 0.0:  # could not be decoded; named as unreadable (EvalBatches), not counted as an error
                    continue
                edits = count.add(truth, reading.text)
                self.readings.append(LineReading(line_id, truth, reading.text, reading.confidence, edits))
        total = ErrorCount(*worker.sum(count.as_list()))
        if not total.lines:
            raise UserError(NONE_READABLE)
        return {"val_cer": total.cer, "val_wer": total.wer}


def taken(job: Job) -> Literal["resnet", "encoder"] | None:
    """What :func:`build` takes from the job's pre-trained encoder, if there is one."""
    if job.encoder is None:
        return None
    # A frozen encoder is taken whole: with a BiLSTM of random weights it would measure nothing.
    return "encoder" if job.protocol == "frozen" or job.finetune is None else job.finetune.pretrained


def build(job: Job, alphabet: Alphabet) -> Recognizer:
    """The recognizer of a job before training: seeded weights, then the encoder's if there is one."""
    assert job.decoder is not None
    torch.manual_seed(job.seed)
    recognizer = Recognizer(job.model, job.decoder, alphabet)
    if job.encoder is not None:
        with tempfile.TemporaryDirectory(prefix="htr-ray-") as local:
            storage.download_dir(job.encoder, Path(local))
            fresh = {key: value.clone() for key, value in recognizer.encoder.lstm.state_dict().items()}
            load_encoder(Path(local), into=recognizer.encoder)
        if taken(job) == "resnet":
            recognizer.encoder.lstm.load_state_dict(fresh)
    if job.protocol == "frozen":
        if job.encoder is None:
            # The literature's reference row: a random, fixed encoder.
            logger.info("%s: protocol 'frozen' without pre-training fixes a random encoder", job.folder)
        recognizer.freeze_encoder()
    elif job.decoder == "transformer" and job.finetune is not None and job.finetune.auxiliary_ctc > 0:
        recognizer.add_auxiliary(job.finetune.auxiliary_ctc)
    return recognizer


def run(job: Job, data: FinetuneData, worker: Worker) -> dict[str, Any]:
    """Fine-tune and test; leaves ``model/``, ``readings.json`` and ``result.json`` in the job's folder."""
    settings = job.finetune
    assert settings is not None and job.decoder is not None
    recognizer = build(job, data.alphabet)
    learner = RecognizerLearner(recognizer, settings.encoder_rate, taken(job))
    learner.sync_batchnorm = job.model.sync_batchnorm
    outcome = fit(
        learner,
        data.train,
        data.train_recipe,
        EvalBatches(data.validation, data.plain_recipe, job.stream, worker),
        settings=settings,
        streaming=job.stream,
        worker=worker,
        folder=job.folder,
        seed=job.seed,
    )
    dtype = autocast_dtype(settings.precision, worker.device)

    def figures(source: Source) -> tuple[dict[str, float], list[LineReading]]:
        batches = EvalBatches(source, data.plain_recipe, job.stream, worker)
        errors = _evaluate(learner, batches, worker, dtype)
        outcome.leave_out(batches.unreadable, worker)
        readings = [reading for part in worker.gather(learner.readings) for reading in part]
        return errors, sorted(readings, key=lambda reading: reading.id)

    learner.beam = None  # the beam of the settings, if any
    validation, validation_readings = figures(data.validation_all)
    # Read once, at the end, with the weights that validation chose.
    test, readings = figures(data.test)
    size = cost(job.model, job.decoder, job.model.height, 4 * job.model.height)
    result = {
        "stage": "finetune",
        "decoder": job.decoder,
        "label_fraction": job.label_fraction,
        "protocol": job.protocol,
        "val_cer": validation["val_cer"],
        "val_wer": validation["val_wer"],
        "val_gcer": _gcer(validation_readings),
        "test_cer": test["val_cer"],
        "test_wer": test["val_wer"],
        "test_gcer": _gcer(readings),
        "lines": data.train.lines,
        "test_lines": len(readings),
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "minutes": outcome.seconds / 60.0,
        "stopped": outcome.stopped,
        "lines_per_second": outcome.lines_per_second,
        "waiting_share": outcome.waiting_share,
        "parameters": size.parameters,
        "gflops": size.gflops,
        "unreadable": outcome.unreadable,
        "set_aside": data.set_aside,
        "unknown_in_test": data.unknown_in_test,
        "history": outcome.history,
    }
    if worker.leads:
        extra = {key: result[key] for key in ("val_cer", "test_cer", "label_fraction", "lines")}
        with tempfile.TemporaryDirectory(prefix="htr-ray-") as local:
            save_recognizer(Path(local), recognizer, {"corpus": data.corpus_name, "seed": job.seed, **extra})
            storage.upload_dir(Path(local), storage.join(job.folder, MODEL))
        storage.write_json(storage.join(job.folder, READINGS), [vars(reading) for reading in readings])
        storage.write_json(storage.join(job.folder, RESULT), result)
        checkpoint.clear(job.folder)
    return result


def _gcer(readings: list[LineReading]) -> float:
    return grapheme_error_rate((reading.truth, reading.reading) for reading in readings)
