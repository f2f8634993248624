"""Lines at the network's height."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.stream.scale import MIN_WIDTH, scale_line, scaled_width


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 200),
    st.integers(1, 900),
    st.sampled_from([16, 32, 48, 64]),
    st.floats(0.5, 2.0),
    st.integers(32, 512),
)
def test_width_is_foretold(rows: int, columns: int, height: int, width_scale: float, max_width: int) -> None:
    """The plan sorts by widths of images that it never opened."""
    line = scale_line(np.full((rows, columns), 200, np.uint8), height, width_scale, max_width)
    assert line.shape == (height, scaled_width(columns, rows, height, width_scale, max_width))
    assert line.dtype == np.uint8 and line.flags.c_contiguous
    assert MIN_WIDTH <= line.shape[1] <= max_width
    assert (line == 200).all()


def test_aspect_ratio_is_kept() -> None:
    assert scaled_width(600, 100, 32) == 192
    assert scaled_width(600, 100, 32, width_scale=1.5) == 288
    assert scaled_width(60000, 100, 32, max_width=1024) == 1024
    assert scaled_width(5, 100, 32) == MIN_WIDTH
    assert scaled_width(10, 0, 32) == 320  # a height of 0 in a damaged index must not divide


def test_same_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 90), dtype=np.uint8)
    assert np.array_equal(scale_line(image, 32), image)
    assert scale_line(image[:, ::2][:, :40], 32).flags.c_contiguous


def test_thin_strokes_survive_shrinking() -> None:
    """Picking every sixth pixel would lose five of six hairlines; averaging keeps them all."""
    image = np.full((192, 600), 255, np.uint8)
    strokes = np.arange(10, 600, 37)
    image[:, strokes] = 0
    line = scale_line(image, 32)
    assert (line[16, strokes * 100 // 600] < 230).all()
