"""GPUs that a job asks for where nobody says how many, and parts of cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from train_helpers import PLAIN, finetuning

from htr_ray.train import single
from htr_ray.train.nodes import gpus_of_a_worker
from htr_ray.train.worker import local_device


@pytest.mark.parametrize(
    ("wanted", "workers", "given"), [(0.25, 1, 0.25), (0.25, 2, 1.0), (0.0, 2, 0.0), (1.0, 1, 1.0), (2.0, 4, 2.0)]
)
def test_workers_of_a_group_have_whole_cards(wanted: float, workers: int, given: float) -> None:
    assert gpus_of_a_worker(wanted, workers) == given


@pytest.mark.parametrize(
    ("settings", "cards", "each"),
    [
        ([], 0, 0.0),
        ([], 1, 1.0),
        (["finetune.workers=2"], 1, 0.0),
        (["finetune.workers=8", "finetune.min_workers=2"], 4, 1.0),
        (["finetune.workers=2", "finetune.gpus_per_worker=0.5"], 2, 1.0),
        (["finetune.gpus_per_worker=0.5"], 2, 0.5),
        (["finetune.gpus_per_worker=0"], 2, 0.0),
    ],
)
def test_a_single_job_takes_the_cards_that_there_are(
    sample_corpus: str,
    ray_local: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: list[str],
    cards: int,
    each: float,
) -> None:
    asked: dict[str, Any] = {}

    def run_group(job: Any, **given: Any) -> dict[str, Any]:
        asked.update(given)
        return {}

    monkeypatch.setattr(single, "run_group", run_group)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": float(cards)})
    single.run_single(finetuning(sample_corpus, tmp_path, *PLAIN, *settings))
    assert asked["gpus_per_worker"] == each


def test_outside_of_rays_processes_the_first_card_is_taken(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local_device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_device() == torch.device("cpu")
