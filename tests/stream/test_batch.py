"""A batch from encoded lines to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.config import AugmentSettings, PretextSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.images import encode_png
from htr_ray.stream.batch import PAPER, WIDTH_STEP, Batch, BatchMaker, Recipe, padded_width, unpack
from htr_ray.stream.scale import scale_line

ALPHABET = Alphabet("abcd ")
PLAIN = Recipe(height=32, width_scale=1.0, max_width=512, seed=5, alphabet=ALPHABET)


def image(width: int, seed: int = 0, height: int = 32) -> np.ndarray:
    """Strokes on paper, uint8 ``[height, width]``."""
    rng = np.random.default_rng([seed, width])
    picture = np.full((height, width), 230, np.uint8)
    for x in rng.integers(0, width, max(1, width // 12)):
        picture[6:26, x : x + 2] = 20
    return picture


def lines(widths: list[int], texts: list[str | None] | None = None) -> dict[str, list[Any]]:
    return {
        "id": [f"line-{number}" for number in range(len(widths))],
        "image": [encode_png(image(width, number)) for number, width in enumerate(widths)],
        "text": texts or ["abc"] * len(widths),
    }


def made(recipe: Recipe, content: dict[str, list[Any]], lap: int = 0) -> Batch:
    return unpack(BatchMaker(recipe)(content, lap=lap, epoch=2, total=99, last=True))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(16, 300), st.one_of(st.none(), st.text("abcd ", max_size=12))), min_size=1, max_size=6
    )
)
def test_round_trip(items: list[tuple[int, str | None]]) -> None:
    widths, texts = [w for w, _ in items], [t for _, t in items]
    content = lines(widths, list(texts))
    batch = made(PLAIN, content)
    count = len(items)
    assert batch.images.shape[:3] == (count, 1, 32) and batch.images.dtype == np.uint8
    assert batch.images.shape[3] == padded_width(max(widths))
    assert batch.widths.tolist() == widths and batch.widths.dtype == np.int32
    assert batch.ids == content["id"] and batch.texts == [text or "" for text in texts]
    assert (batch.total, batch.epoch, batch.last, batch.unreadable) == (99, 2, True, [])
    assert batch.weights.tolist() == [1.0] * count and batch.weights.dtype == np.float32
    assert batch.targets.dtype == batch.lengths.dtype == np.int64
    for number, (width, text) in enumerate(items):
        pixels = batch.images[number, 0]
        assert np.array_equal(pixels[:, :width], image(width, number))
        assert (pixels[:, width:] == PAPER).all()
        assert batch.lengths[number] == len(text or "")
        target = batch.targets[number]
        assert ALPHABET.decode(target[: len(text or "")].tolist()) == (text or "")
        assert not target[len(text or "") :].any()


def test_unreadable_line_is_named_and_harms_no_other() -> None:
    content = lines([40, 60, 80])
    good = made(PLAIN, content)
    content["image"][1] = content["image"][1][:40]
    batch = made(PLAIN, content)
    assert batch.weights.tolist() == [1.0, 0.0, 1.0]
    assert len(batch.unreadable) == 1 and batch.unreadable[0].startswith("line-1: ")
    for number in (0, 2):
        assert np.array_equal(batch.images[number], good.images[number])
        assert np.array_equal(batch.targets[number], good.targets[number])
    assert (batch.images[1] == PAPER).all() and batch.lengths[1] == 0
    assert batch.ids == content["id"], "every worker keeps the same number of lines"


def test_whole_batch_unreadable() -> None:
    content = lines([40, 60])
    content["image"] = [b"", b"not a picture"]
    batch = made(PLAIN, content)
    assert batch.weights.tolist() == [0.0, 0.0] and len(batch.unreadable) == 2
    assert batch.targets.shape == (2, 1)


def test_foreign_character_is_named() -> None:
    batch = made(PLAIN, lines([40, 60], ["ab", "aß"]))
    assert batch.weights.tolist() == [1.0, 0.0]
    assert "U+00DF" in batch.unreadable[0]


@pytest.mark.parametrize("pretext", ["rotation", "flip", "jigsaw", "sorting"])
def test_views_repeat_with_seed_and_lap(pretext: str) -> None:
    recipe = Recipe(
        height=32,
        width_scale=1.0,
        max_width=512,
        seed=5,
        augment=AugmentSettings(),  # type: ignore[call-arg]
        pretext=pretext,
        pretext_settings=PretextSettings(),  # type: ignore[call-arg]
    )
    content = lines([200 + 10 * n for n in range(8)])
    first, again, later = made(recipe, content), made(recipe, content), made(recipe, content, lap=1)
    assert np.array_equal(first.images, again.images) and np.array_equal(first.targets, again.targets)
    assert first.images.shape != later.images.shape or not np.array_equal(first.images, later.images)
    # Nor does a line's view depend on the company that it comes in.
    alone = made(recipe, {name: column[3:4] for name, column in content.items()})
    width = int(alone.widths[0])
    assert first.widths[3] == width
    assert np.array_equal(alone.images[0, 0, :, :width], first.images[3, 0, :, :width])
    assert np.array_equal(alone.targets[0], first.targets[3])
    content["image"][0] = b"broken"
    broken = made(recipe, content)
    assert broken.weights.tolist() == [0.0] + [1.0] * 7
    assert broken.targets.shape == first.targets.shape
    assert np.array_equal(broken.targets[1:], first.targets[1:])


def test_augmentation_repeats_with_seed_and_lap() -> None:
    recipe = Recipe(height=32, width_scale=1.0, max_width=512, seed=5, augment=AugmentSettings(), alphabet=ALPHABET)  # type: ignore[call-arg]
    other_seed = Recipe(**{**vars(recipe), "seed": 6})
    content = lines([100] * 6)
    first = made(recipe, content)
    assert np.array_equal(first.images, made(recipe, content).images)
    for other in (made(recipe, content, lap=1), made(other_seed, content)):
        assert other.images.shape != first.images.shape or not np.array_equal(other.images, first.images)


def test_the_first_pass_of_a_ramp_shows_a_recognizer_the_lines_as_they_are_and_a_pretext_task_does_without() -> None:
    ramped = AugmentSettings(ramp=3)  # type: ignore[call-arg]
    content = lines([100] * 6)
    recipe = Recipe(**{**vars(PLAIN), "augment": ramped})
    assert np.array_equal(made(recipe, content).images, made(PLAIN, content).images)
    assert made(recipe, content, lap=3).images.tobytes() != made(PLAIN, content, lap=3).images.tobytes()
    asked = {"pretext": "sorting", "pretext_settings": PretextSettings()}  # type: ignore[call-arg]
    full = Recipe(**{**vars(PLAIN), "augment": AugmentSettings(), **asked})  # type: ignore[call-arg]
    assert np.array_equal(made(Recipe(**{**vars(recipe), **asked}), content).images, made(full, content).images)


def test_lines_are_scaled_and_bounded() -> None:
    recipe = Recipe(height=32, width_scale=1.0, max_width=128, seed=0, augment=AugmentSettings())  # type: ignore[call-arg]
    tall = image(300, height=64)
    content = {"id": ["a", "b"], "image": [encode_png(tall), encode_png(image(2000))], "text": [None, None]}
    plain = made(Recipe(height=32, width_scale=1.0, max_width=512, seed=0), content)
    assert plain.widths.tolist() == [150, 512]
    assert np.array_equal(plain.images[0, 0, :, :150], scale_line(tall, 32))
    for lap in range(8):
        assert made(recipe, content, lap).widths.max() <= 128, "augmentation may stretch a line, but not beyond this"


def test_augmentation_takes_nothing_off_a_line_that_is_as_wide_as_may_be() -> None:
    """Its text stays whole, so its picture must: the last stroke is seen, however it was stretched."""
    geometric = {"probability": 1.0, "strength": 1.5}
    others = {name: {"probability": 0.0} for name in ("colour", "blur", "noise", "morphological")}
    recipe = Recipe(
        height=32, width_scale=1.0, max_width=256, seed=0, augment=AugmentSettings(geometric=geometric, **others)
    )  # type: ignore[arg-type]
    picture = np.full((32, 256), 230, np.uint8)
    picture[4:28, 246:250] = 0
    content = {"id": ["a"], "image": [encode_png(picture)], "text": [None]}
    for lap in range(60):
        batch = made(recipe, content, lap)
        assert batch.widths[0] <= 256
        assert batch.images[0, 0].min() < 115, lap


def test_batches_have_few_distinct_widths() -> None:
    widths = [padded_width(width) for width in range(1, 2049)]
    assert all(padded - width >= 0 for width, padded in enumerate(widths, start=1))
    assert all(padded <= max(WIDTH_STEP, 1.0625 * width + 16) for width, padded in enumerate(widths, start=1))
    assert widths == sorted(widths) and all(width % WIDTH_STEP == 0 for width in widths)
    assert len(set(widths)) <= 64
    # A batch that is padded already is not padded again.
    assert all(padded_width(width) == width for width in set(widths))
