"""The grid: settings -> trials and what each waits for."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass, field
from typing import Any

from htr_ray import storage
from htr_ray.config import GridSettings
from htr_ray.errors import UserError
from htr_ray.train.job import MODEL, Job


@dataclass(frozen=True)
class Trial:
    """One run of one cell (or one pre-training).

    key: stable name, also the trial's path below the grid's folder; waits_for: key of the
    pre-training whose encoder it starts from, or None.
    """

    key: str
    job: Job
    corpus: str
    pretext: str
    waits_for: str | None = None
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return self.job.stage


def corpus_name(uri: str) -> str:
    """Last part of a corpus URI."""
    return posixpath.basename(uri.rstrip("/")) or uri


def grid_folder(settings: GridSettings) -> str:
    """URI under which a grid keeps everything."""
    return storage.join(storage.normalise(settings.storage), settings.name)


def expand(settings: GridSettings) -> list[Trial]:
    """All trials of a grid, the pre-trainings first.

    Each encoder is pre-trained once per (corpus, pretext, seed) and shared by every cell
    that needs it. Raises UserError when two corpora have the same name.
    """
    folder = grid_folder(settings)
    names = {uri: corpus_name(uri) for uri in settings.corpora}
    if len(set(names.values())) < len(names):
        raise UserError(
            f"corpora: two URIs end in the same name ({', '.join(sorted(names.values()))}); "
            "the name tells them apart in tables and folders, so rename one"
        )
    common: dict[str, Any] = {"model": settings.model, "augment": settings.augment, "stream": settings.stream}
    pretrainings, finetunings = [], []
    for uri, name in names.items():
        for pretext in settings.pretexts:
            for seed in settings.seeds:
                encoder_key = None
                if pretext != "none":
                    encoder_key = f"pretrain/{name}/{pretext}/seed{seed}"
                    job = Job(
                        stage="pretrain",
                        corpus=uri,
                        folder=storage.join(folder, encoder_key),
                        seed=seed,
                        pretext=pretext,
                        pretext_settings=settings.pretext,
                        pretrain=settings.pretrain,
                        **common,
                    )
                    pretrainings.append(Trial(encoder_key, job, name, pretext, tags=_tags(job, name, pretext)))
                for protocol in settings.protocols:
                    for decoder in settings.decoders:
                        for fraction in settings.label_fractions:
                            key = f"finetune/{name}/{protocol}/{decoder}/{fraction:g}/{pretext}/seed{seed}"
                            job = Job(
                                stage="finetune",
                                corpus=uri,
                                folder=storage.join(folder, key),
                                seed=seed,
                                decoder=decoder,
                                label_fraction=fraction,
                                protocol=protocol,
                                finetune=settings.finetune,
                                encoder=encoder_key and storage.join(folder, encoder_key, MODEL),
                                **common,
                            )
                            finetunings.append(Trial(key, job, name, pretext, encoder_key, _tags(job, name, pretext)))
    # Longest path first: encoders (others wait for them), then cells with many labels.
    finetunings.sort(key=lambda trial: -(trial.job.label_fraction or 0.0))
    return pretrainings + finetunings


def _tags(job: Job, corpus: str, pretext: str) -> dict[str, str]:
    """Coordinates of a trial, for tables and for MLflow's search."""
    tags = {"stage": job.stage, "corpus": corpus, "pretext": pretext, "seed": str(job.seed)}
    if job.stage == "finetune":
        tags |= {
            "decoder": str(job.decoder),
            "label_fraction": f"{job.label_fraction:g}",
            "protocol": str(job.protocol),
        }
    return tags


# Settings that may change between two runs of one grid: they add trials or say where and how fast, not what.
FREE = {
    "name",
    "corpora",
    "pretexts",
    "decoders",
    "label_fractions",
    "protocols",
    "seeds",
    "storage",
    "tracking_uri",
    "max_concurrent",
    "preset",
    "stream",
}
FREE_STAGE = {
    "workers",
    "cpus_per_worker",
    "gpus_per_worker",
    "threads",
    "retries",
    "checkpoint_minutes",
    "sample_lines",
}


def recipe_of(settings: GridSettings) -> dict[str, Any]:
    """The settings that decide what a trial computes, flat: dotted key -> value."""
    flat: dict[str, Any] = {}

    def walk(node: dict[str, Any], prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif not (prefix in ("pretrain.", "finetune.") and key in FREE_STAGE):
                flat[prefix + key] = value

    walk(settings.model_dump(mode="json", exclude=FREE), "")
    return flat


def digest(recipe: dict[str, Any]) -> str:
    """Short fingerprint of a recipe, for tags."""
    return hashlib.blake2b(repr(sorted(recipe.items())).encode(), digest_size=6).hexdigest()
