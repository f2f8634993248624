"""The beam search over all lines at once, against one that follows the texts of a line in a dictionary."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.language import BEAM_CHARACTERS, Fusion
from htr_ray.model.ngrams import CharacterNgrams
from htr_ray.model.prefix_beam import FLOOR, MARGIN, prefix_beam

LETTERS = Alphabet("abcdefghijklmnopqrst")
Text = tuple[int, ...]


def plain_search(probabilities: list[list[float]], beam: int, language: Fusion | None) -> list[int]:
    """The search as it is told in textbooks, with the same limits: [frames][classes] -> classes."""

    def word(text: Text) -> float:
        state, added = language.start() if language else None, 0.0
        for number in text if language else ():
            gain, state = language.step(state, number)
            added += gain
        return math.exp(added)

    beams: dict[Text, tuple[float, float]] = {(): (1.0, 0.0)}
    best = 1.0
    for row in probabilities:
        order = sorted(range(1, len(row)), key=lambda c: -row[c])[:BEAM_CHARACTERS]
        grown = {
            text: ((blank + other) * row[0], other * row[text[-1]] if text else 0.0)
            for text, (blank, other) in beams.items()
        }
        for text, (blank, other) in beams.items():
            for character in (c for c in order if row[c] >= FLOOR):
                again = bool(text) and character == text[-1]
                longer = (blank if again else blank + other) * row[character]
                if longer * word(text) >= best * max(row) * MARGIN:
                    b, o = grown.get((*text, character), (0.0, 0.0))
                    grown[(*text, character)] = b, o + longer
        scores = {text: sum(both) * word(text) for text, both in grown.items()}
        best = max(scores.values())
        kept = sorted(grown, key=lambda text: -scores[text])[:beam]
        beams = {text: grown[text] for text in kept if scores[text] >= best * MARGIN}

    def whole(text: Text) -> float:
        state = language.start() if language else None
        for number in text if language else ():
            _, state = language.step(state, number)
        return sum(beams[text]) * word(text) * (math.exp(language.end(state)) if language else 1.0)

    return list(max(beams, key=whole))


def log_probs_of(seed: int, sharpness: float, lines: int = 4, frames: int = 25) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(lines, frames, len(LETTERS), generator=generator)
    logits[..., 0] += sharpness  # blanks are what most frames are
    return torch.log_softmax(logits, dim=2)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.5, 2.0, 6.0, 20.0]),
    beam=st.sampled_from([1, 2, 5, 10]),
    spoken=st.booleans(),
)
def test_finds_what_a_search_line_by_line_finds(seed: int, sharpness: float, beam: int, spoken: bool) -> None:
    log_probs = log_probs_of(seed, sharpness)
    frames = torch.tensor([25, 25, 17, 1])
    language = None
    if spoken:
        language = Fusion(CharacterNgrams.train(["abcd", "aabb cc", "tsrq"], LETTERS, 3, weight=0.7), LETTERS)
    found = prefix_beam(log_probs, frames, beam, language)
    for row, count, text in zip(log_probs.double().exp().tolist(), frames.tolist(), found, strict=True):
        assert text == plain_search(row[:count], beam, language)


@pytest.mark.parametrize("beam", [1, 4])
def test_long_lines(beam: int) -> None:
    """Of a thousand frames, whose likelihoods as plain numbers would vanish; and nothing but blanks."""
    log_probs = torch.full((2, 1000, 4), -20.0)
    log_probs[..., 0] = 0.0
    log_probs[1, ::2] = torch.tensor([1e-5, 1 - 3e-5, 1e-5, 1e-5]).log()
    found = prefix_beam(log_probs, torch.tensor([1000, 1000]), beam)
    assert found[0] == [] and found[1] == [1] * 500
