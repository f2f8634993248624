"""What a person is told before a grid starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from grid_on_disk import write_corpus

from htr_ray.config import GridSettings, load
from htr_ray.sweep.cells import expand
from htr_ray.sweep.plan import notes, planned


def settings_of(corpus: str, *overrides: str) -> GridSettings:
    wanted = [f"corpora=[{corpus}]", "pretexts=[flip]", "decoders=[ctc]", "label_fractions=[1.0]", *overrides]
    return load(GridSettings, overrides=wanted, environment={})


@pytest.mark.parametrize(("gpus", "guessed"), [("0.5", True), ("0", False)])
def test_what_is_to_run_on_gpus_that_are_yet_to_come_is_not_timed_on_this_cpu(
    tmp_path: Path, gpus: str, guessed: bool
) -> None:
    corpus = write_corpus(str(tmp_path / "wills"), "wills", lines=6, writers=2)
    settings = settings_of(corpus, f"pretrain.gpus_per_worker={gpus}", f"finetune.gpus_per_worker={gpus}")
    plans = planned(expand(settings), 0.0, settings.search)
    assert len(plans) == 2 and {plan.guessed for plan in plans.values()} == {guessed}


@pytest.mark.parametrize(
    ("name", "preset", "told"), [("wills", "tiny", 1), ("wills", "small", 0), ("sample", "tiny", 0)]
)
def test_the_preset_of_the_demo_is_told_from_those_for_handwriting(
    tmp_path: Path, name: str, preset: str, told: int
) -> None:
    corpus = write_corpus(str(tmp_path / name), name, lines=6, writers=2)
    settings = settings_of(corpus, f"preset={preset}")
    assert sum("preset=small" in note for note in notes(settings, expand(settings))) == told
