"""Augmentation: identity when off, reproducible, readable, and never a broken image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from htr_ray.config import AugmentSettings, Family
from htr_ray.stream.augment import augment, background

FAMILIES = ("geometric", "colour", "blur", "noise", "morphological")
OFF = Family(probability=0.0, strength=1.0)


def only(family: str, strength: float = 1.0, probability: float = 1.0) -> AugmentSettings:
    chosen = {name: OFF for name in FAMILIES}
    chosen[family] = Family(probability=probability, strength=strength)
    return AugmentSettings(**chosen)


def everything(strength: float, probability: float = 1.0) -> AugmentSettings:
    return AugmentSettings(**{name: Family(probability=probability, strength=strength) for name in FAMILIES})


def word(width: int = 300, height: int = 48) -> np.ndarray:
    image = np.full((height, width), 215, np.uint8)
    for x in range(20, width - 20, 12):
        cv2.line(image, (x, height // 4), (x + 3, height * 3 // 4), 60, 2)
    return image


shapes = st.tuples(st.integers(16, 64), st.integers(1, 200))
images = shapes.flatmap(lambda shape: arrays.arrays(np.uint8, shape))


@settings(deadline=None, max_examples=50)
@given(image=images, seed=st.integers(0, 1000), strength=st.floats(0, 3), probability=st.floats(0, 1))
def test_no_strength_or_no_probability_is_identity(image, seed, strength, probability) -> None:
    for choice in (everything(0.0, probability), everything(strength, 0.0)):
        assert np.array_equal(augment(image, choice, np.random.default_rng(seed)), image)


@settings(deadline=None, max_examples=80)
@given(image=images, seed=st.integers(0, 1000), strength=st.sampled_from([0.01, 1.0, 3.0]))
def test_any_image_stays_an_image(image: np.ndarray, seed: int, strength: float) -> None:
    before = image.copy()
    varied = augment(image, everything(strength), np.random.default_rng(seed))
    assert varied.dtype == np.uint8 and varied.flags.c_contiguous
    assert varied.shape[0] == image.shape[0] and varied.shape[1] >= 1
    # Slant adds up to 0.6 heights, stretching a third.
    assert varied.shape[1] <= 1.36 * image.shape[1] + 0.6 * image.shape[0] + 1
    assert np.array_equal(image, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_does_something_new_each_time(family: str) -> None:
    rng, image = np.random.default_rng(0), word()
    seen = [augment(image, only(family), rng) for _ in range(20)]
    assert all(view.shape != image.shape or not np.array_equal(view, image) for view in seen)
    assert len({view.tobytes() for view in seen}) >= 15  # two slight blurs may round to the same


@pytest.mark.parametrize("family", FAMILIES)
def test_views_come_from_the_generator_alone(family: str) -> None:
    image = word()
    first = augment(image, only(family), np.random.default_rng(3))
    np.random.seed(0)
    cv2.setRNGSeed(99)
    assert np.array_equal(first, augment(image, only(family), np.random.default_rng(3)))


@pytest.mark.parametrize("family", FAMILIES)
def test_probability_is_how_often(family: str) -> None:
    rng, image = np.random.default_rng(0), word(100)
    choice = only(family, probability=0.3)
    views = [augment(image, choice, rng) for _ in range(600)]
    changed = np.mean([v.shape != image.shape or not np.array_equal(v, image) for v in views])
    assert 0.23 < changed < 0.37


@pytest.mark.parametrize("family", ["blur", "noise", "morphological"])
def test_more_strength_changes_more(family: str) -> None:
    image = word()
    change = [
        np.mean(
            [
                np.abs(augment(image, only(family, s), np.random.default_rng(seed)).astype(int) - image).mean()
                for seed in range(40)
            ]
        )
        for s in (0.1, 1.0, 3.0)
    ]
    assert change[0] < 0.5 * change[1] and change[1] < change[2]


@pytest.mark.parametrize("strength", [1.0, 2.0, 3.0])
def test_ink_survives_and_is_not_pushed_out(strength: float) -> None:
    rng, image = np.random.default_rng(0), word()

    def ink(view: np.ndarray) -> float:
        return float(np.abs(view.astype(int) - background(view)).sum())

    for _ in range(300):
        kept = ink(augment(image, only("geometric", strength), rng)) / ink(image)
        assert 0.4 < kept < 2.0


@pytest.mark.parametrize("strength", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("paper", "ink"), [(255, 20), (255, 200), (215, 60), (150, 90)])
def test_ink_stays_visible_under_light_and_thinning(strength: float, paper: int, ink: int) -> None:
    image = np.full((48, 200), paper, np.uint8)
    for x in range(20, 180, 12):
        cv2.line(image, (x, 12), (x, 36), ink, 2)
    rng = np.random.default_rng(0)
    for family in ("colour", "morphological", "blur"):
        for _ in range(60):
            view = augment(image, only(family, strength), rng).astype(int)
            assert np.abs(view - background(view.astype(np.uint8))).max() > 0.15 * (paper - ink)


def test_inversion_is_rare_and_there() -> None:
    rng, image = np.random.default_rng(0), word(60)
    dark = np.mean([background(augment(image, only("colour"), rng)) < 100 for _ in range(1500)])
    assert 0.04 < dark < 0.11


def test_fill_is_paper() -> None:
    rng = np.random.default_rng(0)
    image = np.full((48, 200), 215, np.uint8)
    image[20:30, 90:110] = 40
    for _ in range(100):
        assert augment(image, only("geometric", 3.0), rng)[:, :10].min() == 215


@given(paper=st.integers(0, 255), ink=st.integers(0, 255), share=st.floats(0, 0.45))
def test_background_is_what_most_of_the_line_is(paper: int, ink: int, share: float) -> None:
    image = np.full((48, 100), paper, np.uint8)
    image[:, : int(share * 100)] = ink
    assert background(image) == paper


def test_real_lines_stay_lines(handwriting) -> None:
    import pyarrow.parquet as pq

    group = pq.ParquetFile(handwriting / "lines" / "testaments.parquet").read_row_group(0, ["image"])
    rng = np.random.default_rng(0)
    for row in range(30):
        image = cv2.imdecode(np.frombuffer(group["image"][row].as_py()["bytes"], np.uint8), 0)
        assert image is not None
        view = augment(np.asarray(image, np.uint8), AugmentSettings(), rng)
        assert view.shape[0] == image.shape[0] and view.std() > 0.25 * image.std()


def test_a_ramp_varies_lines_the_more_the_oftener_they_were_seen() -> None:
    image, ramped = word(), everything(1.0).model_copy(update={"ramp": 4})

    def varied(seen: int | None) -> int:
        return sum(
            not np.array_equal(augment(image, ramped, np.random.default_rng(seed), seen), image) for seed in range(60)
        )

    assert varied(0) == 0
    assert 0 < varied(1) < 60
    assert varied(4) == varied(9) == varied(None) == 60


@settings(deadline=None, max_examples=30)
@given(image=images, seed=st.integers(0, 1000), seen=st.integers(3, 50))
def test_after_its_ramp_augmentation_is_what_it_is_without(image: np.ndarray, seed: int, seen: int) -> None:
    plain = everything(1.0, 0.5)
    ramped = plain.model_copy(update={"ramp": 3})
    expected = augment(image, plain, np.random.default_rng(seed))
    assert np.array_equal(augment(image, ramped, np.random.default_rng(seed), seen), expected)
