"""What all contenders share: the lines, what is done with them, and how a contender is asked."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from htr_ray.config import RunSettings, StreamSettings, load
from htr_ray.corpus.read import Corpus
from htr_ray.stream.batch import Recipe

HEIGHT = 48
Fed = dict[str, Any]
"""A batch as the training loop takes it: tensors images, widths, targets, lengths; lists ids and texts."""


@dataclass(frozen=True)
class Scene:
    """Where the lines lie and how they are wanted.

    source: the corpus (our layout), for us and for what all need to know of the lines; peer: folder, or ``s3://``
    prefix, of the same lines in the contender's own layout; cache: a local folder that a contender may keep lines in.
    """

    source: str
    peer: str
    cache: str
    batch_size: int
    stream: dict[str, Any]

    @property
    def corpus(self) -> Corpus:
        return Corpus.open(self.source)

    @property
    def settings(self) -> RunSettings:
        return load(RunSettings, environment={})

    @property
    def streaming(self) -> StreamSettings:
        return StreamSettings(**self.stream)

    @property
    def recipe(self) -> Recipe:
        """That of fine-tuning with the preset `small`, at a height that stays when the preset changes."""
        settings = self.settings
        # In full from the first pass: not all contenders count passes.
        augment = settings.augment.model_copy(update={"ramp": 0})
        return Recipe(
            HEIGHT,
            1.0,
            1536,
            0,
            augment=augment,
            alphabet=self.corpus.alphabet,
        )

    @property
    def remote(self) -> bool:
        return self.peer.startswith("s3://")


class Contender(ABC):
    """One way to feed a training process with one worker process. What is made with it, a cluster, is not timed."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @abstractmethod
    def epochs(self, count: int) -> Iterator[Iterator[Fed]]:
        """Open the lines and deliver so many epochs."""


def area(images: Tensor) -> int:
    """Pixels of a batch, padding included."""
    return images.shape[0] * images.shape[2] * images.shape[3]


def environment(endpoint: str | None) -> dict[str, str]:
    """The environment of a contender, with the S3 server at ``endpoint``."""
    values = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local", "TOKENIZERS_PARALLELISM": "false"}
    # Ray's workers give way to others by default, which those of the other loaders do not.
    values["RAY_worker_niceness"] = "0"
    if endpoint:
        values |= {
            "AWS_ENDPOINT_URL": endpoint,
            "S3_ENDPOINT_URL": endpoint,  # mosaicml-streaming's name for it
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    return values
