"""What a stage is asked to do and what comes out: plain data, so that it travels and can be stored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from htr_ray.config import (
    AugmentSettings,
    DecoderName,
    FinetuneSettings,
    ModelSettings,
    PretextName,
    PretextSettings,
    PretrainSettings,
    ProtocolName,
    RunSettings,
    StreamSettings,
)
from htr_ray.stream.batch import Recipe

RESULT = "result.json"
MODEL = "model"
PREVIEW = "preview.json"
READINGS = "readings.json"
SHOWN = 5
LEFT_ASIDE = (
    "line(s) were set aside, their text has characters outside the alphabet of corpus.json "
    "(prepare the corpus again to add them)"
)


class Job(BaseModel):
    """One trial of one stage.

    corpus: URI; folder: the trial's own URI, where its checkpoint, ``model/`` and
    ``result.json`` go; encoder: URI of a pre-trained model folder, or None (from scratch).
    """

    model_config = ConfigDict(extra="forbid")

    stage: Literal["pretrain", "finetune"]
    corpus: str
    folder: str
    seed: int
    model: ModelSettings
    augment: AugmentSettings
    stream: StreamSettings
    pretext: PretextName | None = None
    pretext_settings: PretextSettings | None = None
    pretrain: PretrainSettings | None = None
    finetune: FinetuneSettings | None = None
    decoder: DecoderName | None = None
    label_fraction: float | None = None
    protocol: ProtocolName | None = None
    encoder: str | None = None

    @property
    def settings(self) -> PretrainSettings | FinetuneSettings:
        """The settings of this job's stage."""
        settings = self.pretrain if self.stage == "pretrain" else self.finetune
        assert settings is not None
        return settings

    def recipe(self, **changes: Any) -> Recipe:
        """How lines are prepared for this job's network."""
        return Recipe(
            **{
                "height": self.model.height,
                "width_scale": self.model.width_scale,
                "max_width": self.model.max_width,
                "seed": self.seed,
                **changes,
            }
        )


def left_out(unreadable: list[str], set_aside: list[str]) -> list[str]:
    """What to tell a person about lines that did not take part: how many, why, and the first few."""
    told = []
    for names, why in ((unreadable, "unreadable line(s) were left out"), (set_aside, LEFT_ASIDE)):
        if names:
            more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            told.append(f"{len(names)} {why}: {'; '.join(names[:SHOWN])}{more}")
    return told


def pretrain_job(settings: RunSettings, corpus: str, folder: str, pretext: PretextName) -> Job:
    """The job of ``jobs/pretrain.py``; the grid makes its own (``sweep/cells.py``)."""
    return Job(
        stage="pretrain",
        corpus=corpus,
        folder=folder,
        seed=settings.seed,
        model=settings.model,
        augment=settings.augment,
        stream=settings.stream,
        pretext=pretext,
        pretext_settings=settings.pretext,
        pretrain=settings.pretrain,
    )


def finetune_job(settings: RunSettings, corpus: str, folder: str, encoder: str | None) -> Job:
    """The job of ``jobs/finetune.py``; the grid makes its own (``sweep/cells.py``)."""
    return Job(
        stage="finetune",
        corpus=corpus,
        folder=folder,
        seed=settings.seed,
        model=settings.model,
        augment=settings.augment,
        stream=settings.stream,
        finetune=settings.finetune,
        decoder=settings.decoder,
        label_fraction=settings.label_fraction,
        protocol=settings.protocol,
        encoder=encoder,
    )
