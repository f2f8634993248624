"""Pooling over valid frames: against a slow and plain count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.pretext.heads import GridHead, LineHead, PieceHead, pool_segments


def plain(features: np.ndarray, frames: int, segments: int, fine: int = 840) -> np.ndarray:
    """Repeat every frame ``fine`` times, then cut: exact for up to 8 segments."""
    return features[:frames].repeat(fine, axis=0).reshape(segments, -1, features.shape[1]).mean(1)


@settings(deadline=None, max_examples=60)
@given(frames=st.integers(1, 20), padding=st.integers(0, 5), segments=st.integers(1, 8))
def test_segments_are_means_of_equal_stretches(frames: int, padding: int, segments: int) -> None:
    features = np.random.default_rng(0).standard_normal((frames + padding, 3)).astype(np.float32)
    pooled = pool_segments(torch.from_numpy(features)[None], torch.tensor([frames]), segments)
    np.testing.assert_allclose(pooled[0], plain(features, frames, segments), atol=1e-4)


def test_one_segment_is_the_mean_and_lines_do_not_mix() -> None:
    features, frames = torch.randn(3, 9, 4), torch.tensor([9, 5, 1])
    pooled = pool_segments(features, frames, 1)
    for i, n in enumerate(frames.tolist()):
        torch.testing.assert_close(pooled[i, 0], features[i, :n].mean(0))


def test_long_lines_in_bfloat16_keep_their_borders() -> None:
    features = torch.zeros(1, 700, 1)
    features[0, 300:301] = 1  # a bfloat16 counter could not tell 300 from 301
    pooled = pool_segments(features.bfloat16(), torch.tensor([700]), 700 // 7)
    assert pooled.dtype == torch.bfloat16
    assert pooled[0].argmax() == 300 // 7


@pytest.mark.parametrize("head", [LineHead(6, 4), GridHead(6, 5, 24), PieceHead(6, 5)])
def test_lines_without_frames_do_not_break_a_batch(head: torch.nn.Module) -> None:
    assert torch.isfinite(head(torch.randn(2, 4, 6), torch.tensor([0, 4]))).all()


def test_the_grid_head_sees_order_and_the_line_head_does_not() -> None:
    torch.manual_seed(0)
    features, frames = torch.randn(1, 10, 6), torch.tensor([10])
    reverse = features.flip(1)
    grid, line = GridHead(6, 5, 24), LineHead(6, 4)
    assert not torch.allclose(grid(features, frames), grid(reverse, frames), atol=1e-3)
    torch.testing.assert_close(line(features, frames), line(reverse, frames))
