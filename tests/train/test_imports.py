"""What processes import before they can work: torch is seconds, MLflow and the report are seconds more."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from htr_ray.config import PRETEXTS, PretextSettings
from htr_ray.corpus.read import Corpus
from htr_ray.stream.batch import BatchMaker, Recipe

DRIVER = ("mlflow", "matplotlib", "optuna", "scipy", "htr_ray.track", "htr_ray.report", "htr_ray.sweep.board")


def imported(module: str) -> set[str]:
    """All modules that a new process has after importing this one."""
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("htr_ray.stream.batch", ("torch", "pandas", "ray", *DRIVER)),
        ("htr_ray.stream.pipeline", ("torch", "ray.tune", *DRIVER)),
        ("htr_ray.train.launch", ("torch", "ray.tune", *DRIVER)),
        ("htr_ray.train.group", ("torch", "ray.tune", *DRIVER)),
        ("htr_ray.train.single", ("torch", "ray.tune", *DRIVER)),
        ("htr_ray.train.finetune", ("ray.tune", "ray.train", *DRIVER)),
        ("htr_ray.sweep.trainable", ("torch", *DRIVER)),
    ],
)
def test_what_a_process_does_not_need_is_not_imported(module: str, without: tuple[str, ...]) -> None:
    there = imported(module)
    assert module in there
    assert not there.intersection(without)


def test_a_stream_worker_makes_every_view_without_torch(sample_corpus: str, ray_local: None) -> None:
    import ray

    corpus = Corpus.open(sample_corpus)
    lines = corpus.read_row_group(corpus.files("train")[0], 0, ("id", "image", "text")).slice(0, 4).to_pydict()
    plain = Recipe(height=32, width_scale=1.0, max_width=512, seed=0)

    @ray.remote
    def make() -> tuple[list[int], bool]:
        views = [Recipe(32, 1.0, 512, 0, pretext=name, pretext_settings=PretextSettings()) for name in PRETEXTS]
        made = [BatchMaker(recipe)(lines, lap=0, epoch=0, total=4, last=True) for recipe in (plain, *views)]
        return [table.num_rows for table in made], "torch" in sys.modules

    assert ray.get(make.remote()) == ([1] * (1 + len(PRETEXTS)), False)


def test_a_woken_process_has_imported_the_stream_and_is_given_to_its_tasks(ray_local: None) -> None:
    import ray

    from htr_ray.train.wake import wake

    @ray.remote
    def ready() -> bool:
        return "htr_ray.stream.pipeline" in sys.modules

    wake(2, 1.0, ["SPREAD"])
    deadline = time.monotonic() + 120.0
    task: Any = ready
    while not any(ray.get([task.remote() for _ in range(2)])):
        assert time.monotonic() < deadline, "no process that was woken came back"
        time.sleep(0.2)
