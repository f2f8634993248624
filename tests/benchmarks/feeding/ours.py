"""Our stream: Ray Data with so many CPU workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import ray
import torch
from scene import Contender, Fed, Scene

from htr_ray.stream.pipeline import open_source, stream
from htr_ray.train.fit import _epochs, to_tensors
from htr_ray.train.wake import wake


class Ours(Contender):
    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        cpus = scene.streaming.workers + 1
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )

    def epochs(self, count: int) -> Iterator[Iterator[Fed]]:
        scene = self.scene
        # As a trial does, before it opens its lines.
        wake(scene.streaming.workers, scene.streaming.cpus_per_worker, ["SPREAD"])
        source = open_source(
            scene.corpus, "train", scene.recipe, scene.streaming, batch_size=scene.batch_size, seed=0, labelled=True
        )
        cpu = torch.device("cpu")
        for epoch in _epochs(stream(source, scene.recipe, scene.streaming, epochs=count)):
            yield (to_tensors(batch, cpu) for batch in epoch)
