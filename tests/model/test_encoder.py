"""ResNet, BiLSTM and the encoder made of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import lines, small_settings
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from htr_ray.config import ModelSettings
from htr_ray.model.encoder import Encoder, normalise
from htr_ray.model.lstm import BiLSTM
from htr_ray.model.resnet import _halve


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(small_settings())
    # As after some training: statistics and biases that are not zero, so that padding would show.
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
                module.bias.normal_(std=0.1)
    return encoder.eval()


@settings(max_examples=30, deadline=None)
@given(height=st.integers(16, 70), widths=st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_shapes_at_any_size(encoder: Encoder, height: int, widths: list[int]) -> None:
    images, width = lines(widths, height)
    with torch.no_grad():
        features, frames = encoder(images, width)
    assert features.shape == (len(widths), encoder.frames_of(max(widths)), encoder.dim)
    assert frames.dtype == torch.int64
    assert frames.tolist() == [encoder.frames_of(w) for w in widths]
    assert features.isfinite().all()
    for row, n in zip(features, frames.tolist(), strict=True):
        assert row[:n].abs().sum() > 0
        assert not row[n:].any()


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 120), min_size=2, max_size=4))
def test_a_line_is_read_alike_in_any_company(encoder: Encoder, widths: list[int]) -> None:
    images, width = lines(widths)
    with torch.no_grad():
        together, frames = encoder(images, width)
        for i, w in enumerate(widths):
            alone, _ = encoder(images[i : i + 1, :, :, :w], width[i : i + 1])
            torch.testing.assert_close(
                alone[0], together[i, : frames[i]], atol=2e-5 * float(together.abs().max()), rtol=1e-4
            )


def test_what_lies_beyond_the_width_is_not_seen(encoder: Encoder) -> None:
    images, width = lines([90, 53])
    scribbled = images.clone()
    scribbled[1, :, :, 53:] = 0
    with torch.no_grad():
        torch.testing.assert_close(encoder(images, width)[0], encoder(scribbled, width)[0])


def test_gradient_stops_at_the_width() -> None:
    torch.manual_seed(0)
    encoder = Encoder(small_settings()).eval()  # float64, so that finite differences are exact enough
    encoder.double()
    images = torch.rand(2, 1, 16, 30, dtype=torch.float64, requires_grad=True)
    widths = torch.tensor([30, 17])
    weights = torch.randn(2, encoder.frames_of(30), encoder.dim, dtype=torch.float64)
    (encoder(images, widths)[0] * weights).sum().backward()
    assert images.grad is not None
    assert not images.grad[1, :, :, 17:].any()
    assert images.grad[1, :, :, :17].abs().sum() > 0
    for place in ((0, 0, 5, 29), (1, 0, 7, 16), (1, 0, 3, 2)):
        with torch.no_grad():
            step = torch.zeros_like(images)
            step[place] = 1e-6
            up, down = ((encoder(images + d, widths)[0] * weights).sum() for d in (step, -step))
        assert images.grad[place].item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-3, abs=1e-6)


def test_normalise() -> None:
    images = torch.tensor([0, 255, 254, 51], dtype=torch.uint8)
    torch.testing.assert_close(normalise(images, torch.float32), torch.tensor([1.0, 0.0, 1 / 255, 0.8]))
    with torch.autocast("cpu", torch.bfloat16):
        assert normalise(images, torch.float32).dtype == torch.bfloat16


def test_float_images_are_left_alone(encoder: Encoder) -> None:
    images, width = lines([40, 30])
    floats = (255 - images.float()) / 255
    before = floats.clone()
    with torch.no_grad():
        torch.testing.assert_close(encoder(floats, width)[0], encoder(images, width)[0])
    assert torch.equal(floats, before)


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 20),
    height=st.integers(2, 9),
    width=st.integers(2, 40),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    layout=st.sampled_from([torch.channels_last, torch.contiguous_format]),
)
def test_halving_without_a_gradient_is_torchs_pooling(
    batch: int, channels: int, height: int, width: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    maps = torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    maps = maps.to(memory_format=layout)
    expected = nn.functional.max_pool2d(maps, 2)
    for forward in (torch.no_grad, torch.inference_mode):
        with forward():
            assert torch.equal(_halve(maps), expected)
    learned = maps.clone().requires_grad_()
    _halve(learned).sum().backward()
    assert learned.grad is not None and learned.grad.float().sum() == expected.numel()


def test_the_layout_of_the_feature_maps_survives_halving() -> None:
    maps = torch.randn(2, 12, 8, 30).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert _halve(maps).is_contiguous(memory_format=torch.channels_last)


def test_no_lstm_layers() -> None:
    encoder = Encoder(small_settings(lstm_layers=0))
    features, _ = encoder(*lines([40]))
    assert encoder.dim == features.shape[2] == 32


def test_bilstm_equals_torchs_on_packed_sequences() -> None:
    torch.manual_seed(0)
    own, reference = BiLSTM(6, 5, 2, skip=False), nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)
    for layer in range(2):
        for suffix, side in (("", own.forwards[layer]), ("_reverse", own.backwards[layer])):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(side, f"{name}_l0").data.copy_(getattr(reference, f"{name}_l{layer}{suffix}").data)
    x, frames = torch.randn(4, 9, 6), torch.tensor([3, 9, 1, 7])
    packed = pack_padded_sequence(x, frames, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    torch.testing.assert_close(own(x, frames), expected)


def test_a_skip_adds_the_input_of_each_layer() -> None:
    torch.manual_seed(0)
    plain, skipping = BiLSTM(6, 3, 1, skip=False), BiLSTM(6, 3, 1)
    skipping.load_state_dict(plain.state_dict())
    x, frames = torch.randn(2, 5, 6), torch.tensor([5, 5])
    torch.testing.assert_close(skipping(x, frames), x + plain(x, frames))


def test_memory_format_is_channels_last() -> None:
    weight = Encoder(ModelSettings(channels=32)).resnet.stage1[0].first.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
