"""The guard: what it removes, what it must keep, and that both ends are treated alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from htr_ray.pretext.adapt import fixed
from htr_ray.pretext.guard import add_grain, clean, frame, ink_columns, is_negative, trimmed, with_margins


def paper(width: int = 400, height: int = 48, grey: int = 220) -> np.ndarray:
    return np.full((height, width), grey, np.uint8)


def with_strokes(image: np.ndarray, left: int, right: int) -> np.ndarray:
    for x in range(left, right, 8):
        cv2.line(image, (x, 14), (x, 34), 60, 2)
    return image


def test_illumination_is_flattened() -> None:
    lit = (with_strokes(paper(), 20, 380) * np.linspace(1, 0.6, 400)[None]).astype(np.uint8)
    cleaned = clean(lit)
    blank_rows = cleaned.image[:8]
    assert (blank_rows == cleaned.paper).all()
    depth = cleaned.paper - cleaned.image[20:30].astype(int)
    assert abs(depth[:, :200].max() - depth[:, 200:].max()) <= 8


def test_fading_ink_is_evened_out_but_blank_paper_is_not_stretched() -> None:
    image = paper(600)
    for x in range(10, 590, 8):
        cv2.line(image, (x, 14), (x, 34), 60 + x // 8, 2)
    depth = (lambda c: c.paper - c.image.astype(int))(clean(image))
    assert depth[:, :100].max() / depth[:, 500:].max() < 1.15
    assert (220 - image[:, :100].min()) / (220 - image[:, 500:].min()) > 1.5


@pytest.mark.parametrize("slope", [0.0, 0.03, -0.03])
def test_rulings_go_and_letters_stay(slope: float) -> None:
    image = with_strokes(paper(), 30, 370)
    writing = clean(image).ink.sum()
    rise = int(slope * 400)
    climbing = cv2.warpAffine(image, np.array([[1, 0, 0], [slope, 1, -slope * 200]]), (400, 48), borderValue=220.0)
    cv2.line(climbing, (0, 38 - rise // 2), (400, 38 + rise // 2), 170, 1)
    cleaned = clean(np.asarray(climbing, np.uint8))
    assert abs(int(cleaned.ink.sum()) - int(writing)) < 0.15 * writing
    assert (cleaned.image[37:] < cleaned.paper - 20).mean() < 0.01


def test_dense_letters_are_no_ruling() -> None:
    # Minims, as in "minimum": their rows are dark for much longer than a line is high.
    image = paper()
    for x in range(10, 390, 6):
        cv2.line(image, (x, 14), (x, 34), 60, 2)
    assert (clean(image).ink[16:33, 12:388].mean(0) > 0.9).mean() > 0.3


def test_a_climbing_line_is_levelled() -> None:
    image = paper(500)
    for x in range(10, 490, 10):
        cv2.circle(image, (x, 10 + x // 18), 3, 50, -1)
    rows = np.flatnonzero(clean(image).ink.any(1))
    assert rows[-1] - rows[0] < 16  # 36 before


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_dark_borders_go(side: str) -> None:
    image = with_strokes(paper(), 60, 340)
    edge = {"left": np.s_[:, :3], "right": np.s_[:, -3:], "top": np.s_[:3], "bottom": np.s_[-3:]}[side]
    image[edge] = 90
    cleaned = clean(image)
    assert (cleaned.image[edge] == cleaned.paper).all()
    assert 58 <= ink_columns(cleaned.ink)[0] <= 62


def test_specks_and_rulings_are_no_writing() -> None:
    image = with_strokes(paper(), 100, 300)
    image[5, 20] = image[40, 390] = 0
    columns = ink_columns(clean(image).ink)
    assert columns[0] >= 96 and columns[-1] <= 304


def test_nearly_blank_lines_count_as_a_whole() -> None:
    image = paper()
    image[20, 50] = 100
    assert len(ink_columns(clean(image).ink)) == 400


@settings(deadline=None, max_examples=50)
@given(st.tuples(st.integers(16, 70), st.integers(1, 300)).flatmap(lambda s: arrays.arrays(np.uint8, s)))
def test_clean_survives_anything(image: np.ndarray) -> None:
    cleaned = clean(image)
    assert cleaned.image.shape == cleaned.ink.shape == image.shape
    assert cleaned.image.dtype == cleaned.ink.dtype == np.uint8
    assert cleaned.image.max() <= cleaned.paper or cleaned.paper == 0
    assert set(np.unique(cleaned.ink)) <= {0, 1}


def test_negatives_are_told_from_grey_paper() -> None:
    dark = with_strokes(paper(grey=100), 10, 390)
    assert not is_negative(dark)
    assert is_negative(255 - with_strokes(paper(), 10, 390))


def test_margins_and_cuts_have_one_law_at_both_ends() -> None:
    rng = np.random.default_rng(0)
    columns = np.arange(100, 301)
    spans = [trimmed(columns, 48, rng) for _ in range(4000)]
    wide = [with_margins(span, 0.25, 48, rng) for span in spans]
    for pairs in (
        [(s.left - 100, 301 - s.right) for s in spans],
        [(s.left - w.left, w.right - s.right) for s, w in zip(spans, wide, strict=True)],
    ):
        left, right = np.array(pairs).T
        assert min(left.min(), right.min()) >= 0
        for share in (0.1, 0.5, 0.9):
            assert abs(np.quantile(left, share) - np.quantile(right, share)) < 0.06 * left.max()


@pytest.mark.parametrize("adaptation", ["window", "resize"])
@pytest.mark.parametrize(("left", "right"), [(5, 60), (5, 200), (150, 390)])
def test_writing_stands_as_often_left_as_right_and_high_as_low(adaptation, left: int, right: int) -> None:
    line = clean(with_strokes(paper(), left, right))
    rng = np.random.default_rng(1)
    x, y = [], []
    for _ in range(1500):
        rows, columns = np.nonzero(fixed(line, 96, adaptation, rng) < 150)
        x.append(columns.mean())
        y.append(rows.mean())
    assert abs(np.mean(x) - 47.5) < 1.5
    assert abs(np.mean(y) - 23.5) < 1.0
    assert np.std(y) > 1


def test_strokes_keep_their_ink_when_a_long_line_is_squeezed() -> None:
    line = clean(with_strokes(paper(1500), 5, 1495))
    view = fixed(line, 96, "resize", np.random.default_rng(0))
    share = (line.paper - line.image.astype(int))[:, 5:1495].mean()
    assert 0.6 < (line.paper - view.astype(int)).mean() / share < 1.3


def test_the_jpeg_grid_meets_no_fixed_phase() -> None:
    # A wall of 8-pixel blocks, the whole height: its borders must fall on every phase.
    blocks = np.kron(np.random.default_rng(0).integers(60, 200, (6, 60)), np.ones((8, 8))).astype(np.uint8)
    line, rng = clean(blocks), np.random.default_rng(0)
    steps = np.zeros((2, 8))
    for _ in range(400):
        view = fixed(line, 96, "window", rng).astype(int)
        across, down = np.abs(np.diff(view, axis=1)).mean(0), np.abs(np.diff(view, axis=0)).mean(1)
        steps += [[across[k::8].mean() for k in range(8)], [down[k:40:8].mean() for k in range(8)]]
    assert steps[0].max() / steps[0].min() < 1.35
    assert steps[1].max() / steps[1].min() < 2.5  # writing is placed about the middle
    raw = np.abs(np.diff(blocks.astype(int), axis=1)).mean(0)
    assert raw[7::8].mean() > 20 * max(raw[3::8].mean(), 1)


def test_the_frame_has_one_law_for_all_sides() -> None:
    rng = np.random.default_rng(0)
    sides = []
    for _ in range(3000):
        view = frame(np.zeros((48, 48), np.uint8), 255, 0.12, rng)
        rows, columns = np.flatnonzero(~view.all(1)), np.flatnonzero(~view.all(0))
        sides.append((rows[0], 47 - rows[-1], columns[0], 47 - columns[-1]))
    means = np.mean(sides, axis=0)
    assert np.ptp(means) < 0.25 and means.min() > 1


def test_grain_is_even_and_keeps_the_level() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((48, 96), 200, np.uint8)
    views = np.stack([add_grain(flat, rng) for _ in range(300)]).astype(float)
    assert abs(views.mean() - 200) < 1 and views.std() > 1
    assert np.ptp(views.mean(0)) < 2
    white, black = np.full((48, 96), 255, np.uint8), np.zeros((48, 96), np.uint8)
    assert min(add_grain(white, rng).min() for _ in range(50)) > 230
    assert max(add_grain(black, rng).max() for _ in range(50)) < 25
