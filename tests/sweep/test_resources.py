"""What a trial takes from the cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import GridSettings, load
from htr_ray.errors import UserError
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.resources import at_a_time, check, need
from htr_ray.sweep.trainable import bundles


def trials(*overrides: str) -> dict[str, Trial]:
    """One trial of each stage."""
    settings = load(GridSettings, overrides=["pretexts=[flip]", *overrides], environment={})
    return {trial.stage: trial for trial in expand(settings)}


def test_workers_and_their_streams_add_up() -> None:
    wanted = need(
        trials("pretrain.workers=4", "pretrain.cpus_per_worker=2", "stream.workers=3", "stream.cpus_per_worker=0.5")[
            "pretrain"
        ],
        cluster_gpus=0,
    )
    assert (wanted.train_cpus, wanted.stream_workers, wanted.stream_cpus, wanted.cpus) == (8, 12, 6, 14)
    assert wanted.gpus == 0


@pytest.mark.parametrize(
    ("stage", "override", "cluster_gpus", "gpus"),
    [
        ("pretrain", "seeds=[0]", 0, 0),
        ("pretrain", "seeds=[0]", 8, 1),
        ("finetune", "seeds=[0]", 8, 0.25),
        ("finetune", "finetune.gpus_per_worker=0", 8, 0),
        ("finetune", "finetune.gpus_per_worker=2", 8, 2),
        # NCCL needs a card for each rank.
        ("finetune", "finetune.workers=2", 8, 2),
    ],
)
def test_gpus(stage: str, override: str, cluster_gpus: float, gpus: float) -> None:
    assert need(trials(override)[stage], cluster_gpus).gpus == gpus


def test_what_never_fits_is_refused_with_the_arithmetic() -> None:
    large = list(trials("finetune.workers=3", "finetune.cpus_per_worker=2", "stream.workers=2").values())
    with pytest.raises(UserError) as caught:
        check(large, 8, 0)
    text = str(caught.value)
    assert text.startswith("finetune: one trial needs 12 CPUs and 0 GPUs, the cluster has 8 and 0")
    assert "3 worker(s) x (2 CPU + 2 stream worker(s) x 1 CPU)" in text
    assert "finetune.workers" in text and "max_concurrent" in text
    check(large, 12, 0)


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="pretrain: one trial needs 2 CPUs and 4 GPUs, the cluster has 8 and 2"):
        check(list(trials("pretrain.gpus_per_worker=4").values()), 8, 2)


@pytest.mark.parametrize(("cpus", "gpus", "count"), [(8, 0, 4), (1, 0, 1), (64, 1, 4), (4, 8, 2)])
def test_at_a_time(cpus: float, gpus: float, count: int) -> None:
    assert at_a_time(need(trials()["finetune"], gpus), cpus, gpus) == count


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.sampled_from([0.0, 1.0, 8.0]))
def test_the_placement_group_reserves_what_was_counted(
    workers: int, streams: int, each: float, cluster_gpus: float
) -> None:
    trial = trials(f"finetune.workers={workers}", f"stream.workers={streams}", f"stream.cpus_per_worker={each}")
    wanted = need(trial["finetune"], cluster_gpus)
    group = bundles(wanted)
    if workers == 1:
        assert sum(bundle["CPU"] for bundle in group) == pytest.approx(wanted.cpus)
        assert sum(bundle.get("GPU", 0) for bundle in group) == wanted.gpus
        assert len(group) == 1 + streams
    else:  # the worker group reserves for itself
        assert sum(bundle["CPU"] for bundle in group) < 0.01


def test_sizes_of_the_default_grid_fit_two_cores(grid: Callable[..., GridSettings]) -> None:
    check(expand(grid()), 4, 0)  # connect.py counts each core twice
