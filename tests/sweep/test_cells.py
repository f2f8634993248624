"""The grid's expansion into trials."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import GridSettings
from htr_ray.corpus.read import corpus_name
from htr_ray.errors import UserError
from htr_ray.sweep.cells import expand
from htr_ray.sweep.recipe import recipe_of

Make = Callable[..., GridSettings]


def some(values: list[object]) -> st.SearchStrategy:
    return st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True)


GRIDS = st.builds(
    GridSettings,
    corpora=some(["s3://b/one", "/data/two", "three/"]),
    pretexts=some(["none", "rotation", "flip", "jigsaw", "sorting"]),
    decoders=some(["ctc", "transformer"]),
    label_fractions=some([0.01, 0.05, 0.1, 0.333, 1.0]),
    protocols=some(["semi_supervised", "frozen"]),
    seeds=some([0, 1, 2, 17]),
)


@given(GRIDS)
def test_every_cell_once_and_every_encoder_once(settings: GridSettings) -> None:
    trials = expand(settings)
    keys = [trial.key for trial in trials]
    assert len(set(keys)) == len(keys)
    assert len({trial.job.folder for trial in trials}) == len(keys)
    cells = len(settings.decoders) * len(settings.label_fractions) * len(settings.protocols)
    repeats = len(settings.corpora) * len(settings.seeds)
    encoders = [trial for trial in trials if trial.stage == "pretrain"]
    assert len(encoders) == repeats * len(set(settings.pretexts) - {"none"})
    assert len(trials) - len(encoders) == repeats * len(settings.pretexts) * cells
    assert len({(t.corpus, t.pretext, t.job.seed) for t in encoders}) == len(encoders)


@given(GRIDS)
def test_a_cell_waits_for_the_encoder_that_it_reads(settings: GridSettings) -> None:
    encoders = {trial.key: trial for trial in expand(settings) if trial.stage == "pretrain"}
    for trial in expand(settings):
        if trial.stage == "pretrain" or trial.pretext == "none":
            assert trial.waits_for is None and trial.job.encoder is None
            continue
        first = encoders[str(trial.waits_for)]
        assert trial.job.encoder == f"{first.job.folder}/model"
        assert (first.corpus, first.pretext, first.job.seed) == (trial.corpus, trial.pretext, trial.job.seed)
        assert first.job.corpus == trial.job.corpus


@given(GRIDS, st.randoms(use_true_random=False))
def test_keys_do_not_depend_on_the_order_of_the_axes(settings: GridSettings, random: object) -> None:
    axes = ("corpora", "pretexts", "decoders", "label_fractions", "protocols", "seeds")
    mixed = settings.model_copy(
        update={axis: random.sample(getattr(settings, axis), len(getattr(settings, axis))) for axis in axes}  # type: ignore[attr-defined]
    )
    assert {t.key: t.job for t in expand(mixed)} == {t.key: t.job for t in expand(settings)}


@given(GRIDS)
def test_long_work_comes_first(settings: GridSettings) -> None:
    trials = expand(settings)
    stages = [trial.stage for trial in trials]
    assert stages == sorted(stages, reverse=True)  # "pretrain" before "finetune"
    fractions = [trial.job.label_fraction or 0 for trial in trials if trial.stage == "finetune"]
    assert fractions == sorted(fractions, reverse=True)


def test_keys_are_what_they_were_when_results_were_stored(grid: Make) -> None:
    settings = grid(
        "corpora=[s3://b/dhsd/]", "pretexts=[flip]", "decoders=[ctc]", "label_fractions=[0.05]", "seeds=[3]"
    )
    assert [trial.key for trial in expand(settings)] == [
        "pretrain/dhsd/flip/seed3",
        "finetune/dhsd/semi_supervised/ctc/0.05/flip/seed3",
    ]
    assert expand(settings)[1].tags == {
        "stage": "finetune",
        "corpus": "dhsd",
        "pretext": "flip",
        "seed": "3",
        "decoder": "ctc",
        "label_fraction": "0.05",
        "protocol": "semi_supervised",
    }


def test_two_corpora_of_the_same_name_are_refused(grid: Make) -> None:
    with pytest.raises(UserError, match=r"corpora: two URIs end in the same name \(dhsd, dhsd\).*rename one"):
        expand(grid("corpora=[s3://a/dhsd, s3://b/dhsd/]"))


def test_corpus_name() -> None:
    assert corpus_name("s3://bucket/corpora/dhsd/") == "dhsd"
    assert corpus_name("dhsd") == "dhsd"
    assert corpus_name("s3://bucket/dhsd?region=eu-north-1") == "dhsd"
    assert corpus_name("/corpora/who?") == "who?"


def test_what_decides_a_search_is_part_of_the_recipe(grid: Make) -> None:
    """Or a wider grid would mix cells that took the settings of different winners."""
    space = "search.finetune={finetune.learning_rate: [0.001, 0.002]}"
    for scope, refused in (("cell", False), ("stage", True)):
        before, after = (
            recipe_of(grid(space, f"search.scope={scope}", f"label_fractions={axis}"))
            for axis in ("[0.1]", "[0.1,1.0]")
        )
        assert (before != after) == refused
    assert recipe_of(grid("search.choices=3")) == recipe_of(grid())  # nothing is searched
    # The choices are the smallest seed's.
    first, more, other = (recipe_of(grid(space, f"seeds={seeds}")) for seeds in ("[1,2]", "[3,2,1]", "[0,1,2]"))
    assert first == more != other


def test_the_recipe_is_what_changes_results_and_nothing_else(grid: Make) -> None:
    before = recipe_of(grid("preset=tiny"))
    same = recipe_of(
        grid(
            *("preset=tiny", "seeds=[4]", "storage=s3://b/x", "finetune.workers=3", "stream.workers=2"),
            *("pretexts=[flip]", "max_concurrent=3", "finetune.checkpoint_minutes=9", "name=other"),
            "finetune.node_labels={ray.io/market-type: spot}",
        )
    )
    assert same == before
    other = recipe_of(grid("preset=tiny", "finetune.learning_rate=0.5", "augment.blur.strength=2"))
    assert {key for key in before if before[key] != other[key]} == {"finetune.learning_rate", "augment.blur.strength"}
