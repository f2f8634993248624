"""The transformer decoder: its cached search against the plain network."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.config import TransformerSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.language import Fusion
from htr_ray.model.ngrams import CharacterNgrams
from htr_ray.model.transformer import EXTRA_LENGTH, TransformerDecoder

SETTINGS = TransformerSettings(dim=16, layers=2, heads=4, feedforward=32, dropout=0.1, label_smoothing=0.1)
CLASSES, DIM = 5, 6


def make(seed: int = 0, end_bias: float = 0.0) -> TransformerDecoder:
    torch.manual_seed(seed)
    decoder = TransformerDecoder(SETTINGS, DIM, CLASSES).eval()
    with torch.no_grad():
        decoder.output.weight *= 4  # decided, as after training
        decoder.output.bias[0] += end_bias
    return decoder


def inputs(seed: int, frames: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(frames), max(frames), DIM, generator=generator), torch.tensor(frames)


def score(decoder: TransformerDecoder, features: torch.Tensor, text: list[int]) -> tuple[float, torch.Tensor]:
    """Mean log probability of ``text`` and its end, and the log probabilities, by teacher forcing."""
    targets = torch.tensor([text], dtype=torch.int64).view(1, -1)
    with torch.no_grad():
        logits = decoder.logits(features, torch.tensor([features.shape[1]]), targets)
    log_probs = torch.log_softmax(logits[0], dim=1)
    return sum(log_probs[i, c].item() for i, c in enumerate([*text, 0])) / (len(text) + 1), log_probs


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    bias=st.floats(-2, 2),
)
def test_greedy_takes_the_likeliest_class(seed: int, frames: list[int], bias: float) -> None:
    decoder = make(seed, bias)
    features, counts = inputs(seed, frames)
    for row, n, (found, confidence, scores) in zip(features, frames, decoder.read(features, counts), strict=True):
        mean, log_probs = score(decoder, row[None, :n], found)
        assert scores == pytest.approx([log_probs[i, c].exp().item() for i, c in enumerate(found)], rel=1e-3)
        assert confidence == pytest.approx(math.exp(mean), rel=1e-3)
        # Ties within rounding may fall either way.
        for i, character in enumerate(found):
            assert log_probs[i, character] >= log_probs[i].max() - 1e-4
        if len(found) < n + EXTRA_LENGTH:
            assert log_probs[len(found), 0] >= log_probs[len(found)].max() - 1e-4
        assert len(found) <= n + EXTRA_LENGTH


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), beam=st.integers(2, 6), bias=st.floats(-1, 2))
def test_beam_gives_the_text_the_confidence_it_has(seed: int, beam: int, bias: float) -> None:
    decoder = make(seed, bias)
    frames = [7, 2, 5]
    features, counts = inputs(seed, frames)
    together = decoder.read(features, counts, beam)
    for row, n, (found, confidence, scores) in zip(features, frames, together, strict=True):
        mean, log_probs = score(decoder, row[None, :n], found)
        assert confidence == pytest.approx(math.exp(mean), rel=1e-3)
        assert scores == pytest.approx([log_probs[i, c].exp().item() for i, c in enumerate(found)], rel=1e-3)
        ((_, alone_confidence, _),) = decoder.read(row[None, :n], torch.tensor([n]), beam)
        assert alone_confidence == pytest.approx(confidence, rel=1e-3)


def test_beam_finds_likelier_texts_than_greedy() -> None:
    decoder = make(1)
    features, counts = inputs(1, [6] * 30)
    greedy, wide = ([c for _, c, _ in decoder.read(features, counts, beam)] for beam in (1, 8))
    assert sum(wide) > sum(greedy)
    assert sum(w >= g - 1e-6 for w, g in zip(wide, greedy, strict=True)) >= 27


def test_beam_against_enumeration() -> None:
    """With every hypothesis kept, the search is exact among the texts that end early."""
    decoder = make(4, end_bias=3.0)
    features, counts = inputs(4, [1])
    texts = [list(t) for length in range(3) for t in itertools.product(range(1, CLASSES), repeat=length)]
    best = max(texts, key=lambda text: score(decoder, features, text)[0])
    ((found, _, _),) = decoder.read(features, counts, beam=64)
    assert score(decoder, features, found)[0] >= score(decoder, features, best)[0] - 1e-5


LETTERS = Alphabet("abcd")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    texts=st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=4),
    weight=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_search_with_a_language_model_against_enumeration(seed: int, texts: list[str], weight: float) -> None:
    """No text of up to two letters is better than what is found, and its score is what it should be."""
    decoder = make(seed, end_bias=3.0)
    features, counts = inputs(seed, [1])
    fusion = Fusion(CharacterNgrams.train(texts, LETTERS, 3, weight=weight, bonus=0.0), LETTERS)

    def fused(text: list[int]) -> float:
        state, added = fusion.start(), 0.0
        for number in text:
            gain, state = fusion.step(state, number)
            added += gain
        return score(decoder, features, text)[0] + (added + fusion.end(state)) / (len(text) + 1)

    ((found, confidence, _),) = decoder.read(features, counts, 64, fusion)
    short = [list(t) for length in range(3) for t in itertools.product(range(1, CLASSES), repeat=length)]
    assert fused(found) >= max(fused(text) for text in short) - 1e-4
    assert confidence == pytest.approx(math.exp(score(decoder, features, found)[0]), rel=1e-3)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_weight_of_zero_is_no_language_model(beam: int) -> None:
    decoder = make(2, end_bias=1.0)
    features, counts = inputs(2, [7, 2, 5, 1])
    silent = Fusion(CharacterNgrams.train(["abcd"], LETTERS, 3, weight=0.0, bonus=0.0), LETTERS)
    assert decoder.read(features, counts, beam, silent) == decoder.read(features, counts, beam)


def test_a_loud_language_model_is_heard() -> None:
    """With lines of unlike length, so that states must follow their lines."""
    decoder = make(3, end_bias=1.0)
    frames = [7, 2, 5, 1]
    features, counts = inputs(3, frames)
    fusion = Fusion(CharacterNgrams.train(["abc"] * 9, LETTERS, 4, weight=20.0), LETTERS)
    together = decoder.read(features, counts, 8, fusion)
    assert [LETTERS.decode(found.classes) for found in together] == ["abc"] * 4
    fusion = Fusion(CharacterNgrams.train(["abc", "cab", "dd"] * 9, LETTERS, 4, weight=1.0), LETTERS)
    together = decoder.read(features, counts, 4, fusion)
    for row, n, found in zip(features, frames, together, strict=True):
        ((classes, confidence, _),) = decoder.read(row[None, :n], torch.tensor([n]), 4, fusion)
        assert classes == found.classes and confidence == pytest.approx(found.confidence, rel=1e-3)


def test_loss_ignores_what_lies_beyond_frames_and_lengths() -> None:
    decoder = make()
    features, counts = inputs(2, [6, 3])
    targets, lengths = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])
    loss = decoder.loss(features, counts, targets, lengths)
    assert loss.shape == (2,) and loss.dtype == torch.float32
    alone = decoder.loss(features[1:, :3], counts[1:], targets[1:, :1], lengths[1:])
    torch.testing.assert_close(alone[0], loss[1])


def test_loss_is_the_mean_over_characters_and_end() -> None:
    decoder = make()
    decoder.label_smoothing = 0.0
    features, counts = inputs(5, [4])
    loss = decoder.loss(features, counts, torch.tensor([[2, 1]]), torch.tensor([2]))
    assert loss.item() == pytest.approx(-score(decoder, features, [2, 1])[0], rel=1e-5)


def test_no_character_sees_those_after_it() -> None:
    decoder = make()
    features, counts = inputs(6, [5])
    one = decoder.logits(features, counts, torch.tensor([[1, 2, 3, 4]]))
    other = decoder.logits(features, counts, torch.tensor([[1, 2, 4, 1]]))
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.allclose(one[:, 3:], other[:, 3:])
