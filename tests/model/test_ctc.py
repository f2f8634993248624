"""CTC: loss, lines that are too long, greedy and beam reading, against enumeration of all paths."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.frames import too_long_for_ctc
from htr_ray.model.ctc import CTCDecoder, character_nll, likelihoods
from htr_ray.model.language import Fusion
from htr_ray.model.ngrams import CharacterNgrams
from htr_ray.model.wordlist import WordList


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(c for c, _ in itertools.groupby(path) if c)


def all_texts(probabilities: np.ndarray) -> dict[tuple[int, ...], float]:
    """Text -> its likelihood, by going through every path."""
    total: dict[tuple[int, ...], float] = {}
    frames, classes = probabilities.shape
    for path in itertools.product(range(classes), repeat=frames):
        p = math.prod(probabilities[t, c] for t, c in enumerate(path))
        total[collapse(path)] = total.get(collapse(path), 0.0) + p
    return total


def decoder_of(log_probs: torch.Tensor) -> tuple[CTCDecoder, torch.Tensor]:
    """A decoder and features that make exactly these log probabilities [B, T, classes]."""
    decoder = CTCDecoder(log_probs.shape[2], log_probs.shape[2])
    with torch.no_grad():
        decoder.linear.weight.copy_(torch.eye(log_probs.shape[2]))
        decoder.linear.bias.zero_()
    return decoder, log_probs


def random_log_probs(seed: int, frames: int, classes: int, lines: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(lines, frames, classes, generator=generator), dim=2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 5), classes=st.integers(2, 4))
def test_wide_beam_finds_the_likeliest_text(seed: int, frames: int, classes: int) -> None:
    log_probs = random_log_probs(seed, frames, classes)
    expected = all_texts(log_probs[0].exp().double().numpy())
    decoder, features = decoder_of(log_probs)
    ((found, confidence, _),) = decoder.read(features, torch.tensor([frames]), beam=200)
    best = max(expected.values())
    assert expected[tuple(found)] == pytest.approx(best, rel=1e-3)
    assert confidence == pytest.approx(best ** (1 / max(1, len(found))), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 6), classes=st.integers(2, 4))
def test_greedy_is_the_best_path(seed: int, frames: int, classes: int) -> None:
    log_probs = random_log_probs(seed, frames, classes)
    decoder, features = decoder_of(log_probs)
    ((found, confidence, _),) = decoder.read(features, torch.tensor([frames]))
    assert tuple(found) == collapse(tuple(log_probs[0].argmax(1).tolist()))
    likelihood = all_texts(log_probs[0].exp().double().numpy())[tuple(found)]
    assert confidence == pytest.approx(likelihood ** (1 / max(1, len(found))), rel=1e-3)


@pytest.mark.parametrize("beam", [1, 4])
def test_reading_ends_at_the_lines_frames(beam: int) -> None:
    log_probs = random_log_probs(3, 12, 5, lines=3)
    decoder, features = decoder_of(log_probs)
    frames = torch.tensor([12, 5, 1])
    together = decoder.read(features, frames, beam)
    for i, n in enumerate(frames.tolist()):
        ((found, confidence, scores),) = decoder.read(features[i : i + 1, :n], torch.tensor([n]), beam)
        assert found == together[i].classes
        assert confidence == pytest.approx(together[i].confidence, rel=1e-5)
        assert scores == pytest.approx(together[i].scores, rel=1e-5)
        assert len(scores) == len(found)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(1, 5), classes=st.integers(2, 4), beam=st.sampled_from([1, 3]))
def test_scores_are_prefix_probabilities(seed: int, frames: int, classes: int, beam: int) -> None:
    log_probs = random_log_probs(seed, frames, classes)
    expected = all_texts(log_probs[0].exp().double().numpy())
    decoder, features = decoder_of(log_probs)
    ((found, confidence, scores),) = decoder.read(features, torch.tensor([frames]), beam)

    def begun(prefix: list[int]) -> float:
        return sum(p for text, p in expected.items() if text[: len(prefix)] == tuple(prefix))

    prefixes = [begun(found[:n]) for n in range(len(found) + 1)]
    assert prefixes[0] == pytest.approx(1.0, rel=1e-3)
    assert scores == pytest.approx([b / a for a, b in itertools.pairwise(prefixes)], rel=1e-3)
    end = expected[tuple(found)] / prefixes[-1]
    assert math.prod(scores) * end == pytest.approx(confidence ** max(1, len(found)), rel=1e-3)


def test_likelihoods_are_those_of_ctc() -> None:
    log_probs = random_log_probs(11, 30, 6, lines=4)
    frames, lengths = torch.tensor([30, 21, 9, 5]), torch.tensor([12, 5, 3, 0])
    targets = torch.randint(1, 6, (4, 12), generator=torch.Generator().manual_seed(0))
    targets[torch.arange(12) >= lengths[:, None]] = 0
    totals, scores = likelihoods(log_probs, frames, targets, lengths)
    assert scores.shape == (4, 12) and ((scores >= 0) & (scores <= 1)).all()
    assert scores.count_nonzero(dim=1).tolist() == lengths.tolist()
    nll = character_nll(log_probs, frames, targets, lengths) * lengths.clamp(min=1)
    torch.testing.assert_close(totals.float(), -nll, rtol=1e-4, atol=1e-4)


def test_a_doubtful_character_is_the_one_with_the_low_score() -> None:
    """Classes: blank, a, b, c; the line says "abc", and b may as well be a blank or not."""
    probabilities = torch.tensor([[0, 1, 0, 0], [0.3, 0, 0.7, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]) * 0.96 + 0.01
    decoder, features = decoder_of(probabilities.log()[None])
    ((found, _, scores),) = decoder.read(features, torch.tensor([4]))
    assert found == [1, 2, 3]
    assert scores[1] == pytest.approx(0.68, abs=0.05) and min(scores[0], scores[2]) > 0.9


LETTERS = Alphabet("abc")


def total(fusion: Fusion, text: tuple[int, ...]) -> float:
    """What the language model adds to a whole text."""
    state, added = fusion.start(), 0.0
    for number in text:
        gain, state = fusion.step(state, number)
        added += gain
    return added + fusion.end(state)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(1, 5),
    texts=st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4),
    weight=st.sampled_from([0.0, 0.5, 2.0]),
    bonus=st.sampled_from([0.0, 1.0]),
)
def test_search_with_a_language_model_against_all_texts(
    seed: int, frames: int, texts: list[str], weight: float, bonus: float
) -> None:
    log_probs = random_log_probs(seed, frames, 4)
    expected = all_texts(log_probs[0].exp().double().numpy())
    fusion = Fusion(CharacterNgrams.train(texts, LETTERS, 3, weight=weight, bonus=bonus), LETTERS)
    decoder, features = decoder_of(log_probs)
    ((found, confidence, _),) = decoder.read(features, torch.tensor([frames]), 200, fusion)
    scores = {text: math.log(p) + total(fusion, text) for text, p in expected.items() if p > 0}
    assert scores[tuple(found)] == pytest.approx(max(scores.values()), abs=1e-3)
    assert confidence == pytest.approx(expected[tuple(found)] ** (1 / max(1, len(found))), rel=1e-3)


@pytest.mark.parametrize("beam", [2, 10])
@pytest.mark.parametrize("bonus", [0.0, 1.0])
def test_a_weight_of_zero_is_no_language_model(beam: int, bonus: float) -> None:
    log_probs = random_log_probs(5, 40, 4, lines=6) / 2
    decoder, features = decoder_of(torch.log_softmax(log_probs, 2))
    frames = torch.tensor([40, 30, 20, 10, 5, 1])
    silent = Fusion(CharacterNgrams.train(["abc"], LETTERS, 3, weight=0.0, bonus=0.0), LETTERS)
    assert decoder.read(features, frames, beam, silent) == decoder.read(features, frames, beam)
    if bonus:
        silent.language.bonus = bonus
        longer = decoder.read(features, frames, beam, Fusion(silent.language, LETTERS))
        assert sum(len(f.classes) for f in longer) > sum(len(f.classes) for f in decoder.read(features, frames, beam))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, "abacab"),
        (CharacterNgrams.train(["acacab", "acab"], LETTERS, 4, weight=1.0, bonus=0.0), "acacab"),
        (WordList(["acacab"], penalty=3.0), "acacab"),
        (WordList(["abacab"], penalty=3.0), "abacab"),
    ],
)
def test_a_language_model_decides_what_may_be_read_either_way(model: Any, expected: str) -> None:
    """The second letter is b at 55 and c at 43 %; a clear letter stays, whatever the model says."""
    frames = [LETTERS.encode(c)[0] for c in "abacab"]
    probabilities = torch.full((2 * len(frames), 4), 0.005)
    probabilities[1::2, 0] = 0.985
    for i, number in enumerate(frames):
        probabilities[2 * i, number] = 0.985
    probabilities[2] = torch.tensor([0.01, 0.01, 0.55, 0.43])
    decoder, features = decoder_of(probabilities.log()[None])
    fusion = Fusion(model, LETTERS) if model else None
    ((found, _, _),) = decoder.read(features, torch.tensor([len(probabilities)]), 10, fusion)
    assert LETTERS.decode(found) == expected


def test_wider_beams_find_texts_at_least_as_likely() -> None:
    log_probs = random_log_probs(7, 40, 12, lines=8) / 2
    decoder, features = decoder_of(torch.log_softmax(log_probs, 2))
    frames = torch.full((8,), 40)

    def nll(beam: int) -> torch.Tensor:
        found = [torch.tensor(classes) for classes, *_ in decoder.read(features, frames, beam)]
        lengths = torch.tensor([len(classes) for classes in found])
        padded = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        with torch.no_grad():
            return character_nll(decoder.log_probs(features), frames, padded, lengths) * lengths

    greedy, wide = nll(1), nll(20)
    assert (wide <= greedy + 1e-4).all()
    assert (wide < greedy - 0.1).any()


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 8),
    texts=st.lists(st.lists(st.integers(1, 2), max_size=6), min_size=1, max_size=4),
)
def test_too_long_is_where_ctc_has_no_path(frames: int, texts: list[list[int]]) -> None:
    width = max(1, max(len(text) for text in texts))
    targets = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    log_probs = torch.full((frames, len(texts), 3), -math.log(3))
    reference = torch.nn.functional.ctc_loss(
        log_probs, targets, torch.full((len(texts),), frames), lengths, reduction="none"
    )
    repeats = np.array([sum(a == b for a, b in itertools.pairwise(text)) for text in texts])
    found = too_long_for_ctc(np.full(len(texts), frames), lengths.numpy(), repeats)
    assert found.tolist() == reference.isinf().tolist()


def test_loss_is_per_character_and_zero_without_gradient_where_too_long() -> None:
    torch.manual_seed(0)
    decoder = CTCDecoder(4, 3)
    features = torch.randn(3, 5, 4, requires_grad=True)
    frames = torch.tensor([5, 2, 4])
    targets, lengths = torch.tensor([[1, 2], [1, 1], [2, 0]]), torch.tensor([2, 2, 1])
    loss = decoder.loss(features, frames, targets, lengths)
    assert loss.shape == (3,) and loss.dtype == torch.float32
    probabilities = decoder.log_probs(features).exp().detach().double().numpy()
    assert loss[0].item() == pytest.approx(-math.log(all_texts(probabilities[0])[1, 2]) / 2, rel=1e-5)
    assert loss[1].item() == 0
    assert loss[2].item() == pytest.approx(-math.log(all_texts(probabilities[2, :4])[(2,)]), rel=1e-5)
    loss.sum().backward()
    assert features.grad is not None
    assert not features.grad[1].any()
    assert features.grad[0].any()
    assert not features.grad[2, 4:].any()
