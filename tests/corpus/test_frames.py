"""The frames that a report counts with are those that the network makes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import ModelSettings
from htr_ray.corpus.frames import frames
from htr_ray.model.resnet import frames_of
from htr_ray.stream.scale import scaled_width

sizes = st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 300)), min_size=1, max_size=8)


@given(sizes, st.integers(16, 128), st.floats(0.3, 3.0), st.integers(32, 2048))
def test_as_stream_and_encoder(sizes: list[tuple[int, int]], height: int, width_scale: float, max_width: int) -> None:
    settings = ModelSettings(height=height, width_scale=width_scale, max_width=max_width)
    widths, heights = np.array(sizes, np.int32).T
    expected = [frames_of(scaled_width(w, h, height, width_scale, max_width)) for w, h in sizes]
    assert frames(widths, heights, settings).tolist() == expected
