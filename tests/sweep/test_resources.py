"""What a trial takes from the cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import GridSettings, load
from htr_ray.errors import UserError
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.resources import at_a_time, check, need
from htr_ray.sweep.trainable import placement
from htr_ray.train.nodes import Node, fits, matches


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
    assert (wanted.workers, wanted.worker_cpus, wanted.stream_workers, wanted.cpus) == (4, 2, 12, 14)
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
        check(large, [Node(8)])
    text = str(caught.value)
    assert text.startswith("finetune: one trial needs 12 CPUs and 0 GPUs, the cluster has 8 and 0")
    assert "3 worker(s) x (2 CPU + 2 stream worker(s) x 1 CPU)" in text
    assert "finetune.workers" in text and "max_concurrent" in text
    check(large, [Node(12)])


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="pretrain: one trial needs 2 CPUs and 4 GPUs, the cluster has 8 and 2"):
        check(list(trials("pretrain.gpus_per_worker=4").values()), [Node(8, 2)])


def test_a_worker_that_no_single_node_holds_is_refused() -> None:
    wide = list(trials("finetune.cpus_per_worker=6").values())
    with pytest.raises(UserError) as caught:
        check(wide, [Node(4), Node(4)])
    text = str(caught.value)
    assert "finetune: one trial needs 7 CPUs and 0 GPUs, the cluster has 8 and 0" in text
    assert "A worker must fit on one node, and so must a stream worker; the nodes are 2 x 4 CPU and 0 GPU." in text
    check(wide, [Node(6), Node(1)])


def test_a_card_and_the_cpus_beside_it_are_on_one_node() -> None:
    apart = list(trials("pretexts=[none]", "finetune.gpus_per_worker=1", "finetune.cpus_per_worker=2").values())
    with pytest.raises(UserError, match="1 x 8 CPU and 0 GPU, 1 x 1 CPU and 1 GPU"):
        check(apart, [Node(8), Node(1, 1)])
    check(apart, [Node(1), Node(2, 1)])  # the stream may be elsewhere


def test_two_halves_of_a_card_are_on_one_card() -> None:
    assert Node(8, 2).holds(1, 0.4) == 4  # not 5
    assert Node(8, 1).holds(1, 0.1) == 8 and Node(80, 1).holds(1, 0.1) == 10


def test_labels_that_no_node_has_are_refused_with_those_that_there_are() -> None:
    spot = list(trials("finetune.node_labels={ray.io/market-type: spot}").values())
    cluster = [Node(4, labels={"ray.io/market-type": "on-demand", "ray.io/node-id": "f00"}), Node(4)]
    with pytest.raises(UserError) as caught:
        check(spot, cluster)
    assert str(caught.value).startswith(
        "finetune.node_labels: no node has ray.io/market-type=spot; "
        "the cluster has ray.io/market-type=on-demand (1 node(s))."
    )
    check(spot, [*cluster, Node(2, labels={"ray.io/market-type": "spot"})])
    with pytest.raises(
        UserError, match=r"with ray.io/market-type=spot.* 2 x 4 CPU and 0 GPU \(other labels\), 1 x 0.5"
    ):
        check(spot, [*cluster, Node(0.5, labels={"ray.io/market-type": "spot"})])


@pytest.mark.parametrize(
    ("selector", "matching"),
    [("a", {"a"}), ("!a", {"b", None}), ("in(a,b)", {"a", "b"}), ("!in(a,b)", {None})],
)
def test_selectors_mean_what_they_mean_to_ray(selector: str, matching: set[str | None]) -> None:
    found = {value for value in ("a", "b", None) if matches({"k": value} if value else {}, {"k": selector})}
    assert found == matching


def test_a_trial_with_a_minimum_is_counted_by_it() -> None:
    wanted = need(trials("finetune.workers=8", "finetune.min_workers=2")["finetune"], cluster_gpus=0)
    assert (wanted.workers, wanted.cpus) == (8, 4)
    check(list(trials("finetune.workers=8", "finetune.min_workers=2").values()), [Node(4)])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), min_size=1, max_size=3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_fitting_is_exact(
    sizes: list[tuple[int, int, bool]], workers: int, cpus: int, gpus: int, streams: int, stream_cpus: int
) -> None:
    """Against every way to put the processes on the nodes."""
    nodes = [Node(c, g, {"k": "v"} if labelled else {}) for c, g, labelled in sizes]

    def possible() -> bool:
        for places in itertools.product(range(len(nodes)), repeat=workers + streams):
            left = [[node.cpus, node.gpus] for node in nodes]
            for number, place in enumerate(places):
                training = number < workers
                left[place][0] -= cpus if training else stream_cpus
                left[place][1] -= gpus if training else 0
            fit = all(c >= 0 and g >= 0 for c, g in left)
            if fit and all(nodes[place].labels for place in places[:workers]):
                return True
        return False

    asked = {"workers": workers, "cpus": cpus, "gpus": gpus, "streams": streams, "stream_cpus": stream_cpus}
    assert fits(nodes, **asked, selector={"k": "v"}) == possible()


@pytest.mark.parametrize(("cpus", "gpus", "count"), [(8, 0, 4), (1, 0, 1), (64, 1, 4), (4, 8, 2)])
def test_at_a_time(cpus: float, gpus: float, count: int) -> None:
    assert at_a_time(need(trials()["finetune"], gpus), cpus, gpus) == count


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.sampled_from([0.0, 1.0, 8.0]))
def test_the_placement_group_reserves_what_was_counted(
    workers: int, streams: int, each: float, cluster_gpus: float
) -> None:
    trial = trials(f"finetune.workers={workers}", f"stream.workers={streams}", f"stream.cpus_per_worker={each}")
    wanted = need(trial["finetune"], cluster_gpus)
    group = placement(wanted).bundles
    if workers == 1:
        assert sum(bundle["CPU"] for bundle in group) == pytest.approx(wanted.cpus)
        assert sum(bundle.get("GPU", 0) for bundle in group) == wanted.gpus
        assert len(group) == 1 + streams
    else:  # the worker group reserves for itself
        assert group == [{"memory": 2**29}]  # not the least part of a CPU


def test_sizes_of_the_default_grid_fit_two_cores(grid: Callable[..., GridSettings]) -> None:
    check(expand(grid()), [Node(4)])  # connect.py counts each core twice
