"""The lines of a job, planned and opened. Without torch: who only starts a worker group has no use for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.fractions import label_subset
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Split
from htr_ray.errors import UserError
from htr_ray.stream.batch import Recipe
from htr_ray.stream.pipeline import Source, open_source
from htr_ray.train.job import Job

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuneData:
    """The planned lines of a fine-tuning, opened once and shared by its workers."""

    train: Source
    validation: Source
    validation_all: Source
    test: Source
    train_recipe: Recipe
    plain_recipe: Recipe
    alphabet: Alphabet
    corpus_name: str
    set_aside: list[str]
    unknown_in_test: dict[str, int]


@dataclass(frozen=True)
class PretrainData:
    """The planned lines of a pre-training, opened once and shared by its workers."""

    train: Source
    validation: Source
    train_recipe: Recipe
    validation_recipe: Recipe


def open_data(job: Job) -> FinetuneData | PretrainData:
    """Plan the lines of a job, by its stage. Raises UserError as :func:`open_source`, and when no label is left."""
    return _pretrain(job) if job.stage == "pretrain" else _finetune(job)


def _finetune(job: Job) -> FinetuneData:
    """Plan the lines: the label subset, validation and test.

    Training lines whose text has characters outside the corpus' alphabet are set aside and
    named. Raises UserError as :func:`open_source`, and when no label is left.
    """
    settings = job.finetune
    assert settings is not None and job.label_fraction is not None
    corpus = Corpus.open(job.corpus)
    alphabet = corpus.alphabet
    labelled = _labelled(corpus, "train")
    if not labelled:
        raise UserError(f"{corpus.uri}: no training line has a text; fine-tuning needs some labels")
    subset = label_subset(list(labelled), job.label_fraction, corpus.info.name, job.seed)
    texts = {line_id: text for line_id, text in labelled.items() if line_id in subset}
    foreign = {line_id: "".join(sorted(alphabet.covers(text))) for line_id, text in texts.items()}
    set_aside = [f"{line_id}: {unknown}" for line_id, unknown in foreign.items() if unknown]
    if set_aside:
        logger.warning(
            "%s: %d training line(s) set aside, their text has characters outside the alphabet of corpus.json "
            "(prepare the corpus again to add them): %s",
            corpus.uri,
            len(set_aside),
            "; ".join(set_aside[:5]),
        )
    test = corpus.index("test", columns=("text",))["text"].to_pylist()
    unknown: dict[str, int] = {}
    for text in test:
        for character in alphabet.covers(text or ""):
            unknown[character] = unknown.get(character, 0) + 1
    train = job.recipe(augment=job.augment, alphabet=alphabet)
    plain = job.recipe()
    shared: dict[str, Any] = {"batch_size": settings.batch_size, "workers": settings.workers, "labelled": True}
    few = sampled(list(_labelled(corpus, "val")), settings.eval_lines, 0)
    # Of no use until the end, which a halved trial does not reach, and read once then.
    last = job.stream.model_copy(update={"cache_mb": 0})
    everything = open_source(corpus, "val", plain, job.stream if few is None else last, seed=0, **shared)
    return FinetuneData(
        train=open_source(
            corpus,
            "train",
            train,
            job.stream,
            seed=job.seed,
            min_steps=settings.min_steps_per_epoch,
            max_steps=settings.max_steps_per_epoch,
            only={line_id for line_id, foreign_ in foreign.items() if not foreign_},
            **shared,
        ),
        validation=everything
        if few is None
        else open_source(corpus, "val", plain, job.stream, seed=0, only=few, **shared),
        validation_all=everything,
        test=open_source(corpus, "test", plain, last, seed=0, **shared),
        train_recipe=train,
        plain_recipe=plain,
        alphabet=alphabet,
        corpus_name=corpus.info.name,
        set_aside=set_aside,
        unknown_in_test=unknown,
    )


def _labelled(corpus: Corpus, split: Split) -> dict[str, str]:
    """Texts of a split's lines that have one, by id."""
    index = corpus.index(split, columns=("id", "text"))
    return {i: text for i, text in zip(index["id"].to_pylist(), index["text"].to_pylist(), strict=True) if text}


def _pretrain(job: Job) -> PretrainData:
    """Plan the lines: every training line, never a label. Raises UserError as :func:`open_source`."""
    settings = job.pretrain
    assert settings is not None and job.pretext_settings is not None
    corpus = Corpus.open(job.corpus)
    view = {"pretext": job.pretext, "pretext_settings": job.pretext_settings}
    train = job.recipe(augment=job.augment if job.pretext_settings.augment else None, **view)
    # Validation lines are as they are; the seed is fixed, so that seeds are compared on the same views.
    validation = job.recipe(**{**view, "seed": 0})
    ids = corpus.index("val", columns=("id",))["id"].to_pylist()
    shared: dict[str, Any] = {"batch_size": settings.batch_size, "workers": settings.workers}
    return PretrainData(
        train=open_source(
            corpus,
            "train",
            train,
            job.stream,
            seed=job.seed,
            min_steps=settings.min_steps_per_epoch,
            max_steps=settings.max_steps_per_epoch,
            **shared,
        ),
        validation=open_source(
            corpus, "val", validation, job.stream, seed=0, only=sampled(ids, settings.eval_lines, 0), **shared
        ),
        train_recipe=train,
        validation_recipe=validation,
    )


def sampled(ids: list[str], count: int | None, seed: int) -> set[str] | None:
    """A seeded sample of ``count`` ids for validation between epochs; None where all are used."""
    if count is None or count >= len(ids):
        return None
    return label_subset(ids, count / len(ids), "validation", seed)
