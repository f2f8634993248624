"""Language models as the searches see them."""

from __future__ import annotations

import pytest
import torch
from model_helpers import batch, lines, small_recognizer

from htr_ray.config import DecoderName
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.language import BEAM, Fusion
from htr_ray.model.ngrams import CharacterNgrams
from htr_ray.model.recognizer import Recognizer

ALPHABET = Alphabet("abcdefgh")
BOTH = pytest.mark.parametrize("decoder", ["ctc", "transformer"])


def test_fusion_weighs_and_rewards() -> None:
    model = CharacterNgrams.train(["abba"], ALPHABET, 2, weight=0.5, bonus=0.25)
    fusion = Fusion(model, ALPHABET)
    log_prob, state = model.step(model.start(), "a")
    assert fusion.step(fusion.start(), 1) == (0.5 * log_prob + 0.25, state)
    assert fusion.end(state) == 0.5 * model.end(state)


@BOTH
def test_direction_must_fit(decoder: DecoderName) -> None:
    backwards = CharacterNgrams.train(["שלום (אב)"], Alphabet("שלוםאב ()", "rtl"), 1)
    with pytest.raises(UserError, match="made for rtl texts, but the recognizer reads ltr"):
        small_recognizer(decoder).read(*lines([40]), language=backwards)


def undecided(decoder: DecoderName) -> Recognizer:
    """A recognizer that is not sure of anything, where an untrained one happens to be."""
    recognizer = small_recognizer(decoder).eval()
    layer = recognizer.decoder.linear if decoder == "ctc" else recognizer.decoder.output
    with torch.no_grad():
        layer.weight *= 0.02
    return recognizer


@BOTH
def test_recognizer_listens_and_judges_for_itself(decoder: DecoderName) -> None:
    """Confidence is the recognizer's own, as its loss would have it; a silent model is none."""
    recognizer = undecided(decoder)
    images = lines([90, 60, 75])
    plain = recognizer.read(*images, beam=10)
    loud = CharacterNgrams.train(["gfedcb"] * 9, ALPHABET, 2, weight=3.0, bonus=5.0)
    readings = recognizer.read(*images, language=loud)
    assert all(
        "gfed" in loud_.text and "gfed" not in silent.text for loud_, silent in zip(readings, plain, strict=True)
    )
    data = batch([90, 60, 75], [reading.text for reading in readings])
    with torch.no_grad():
        expected = recognizer.loss({**data, "images": images[0], "widths": images[1]}).neg().exp()
    assert [reading.confidence for reading in readings] == pytest.approx(expected.tolist(), rel=1e-3)
    assert all(len(reading.scores) == len(reading.text) for reading in readings)
    silent = CharacterNgrams.train(["hhhh"] * 9, ALPHABET, 2, weight=0.0, bonus=0.0)
    assert recognizer.read(*images, beam=10, language=silent) == plain


def test_beam_is_wide_enough_to_listen() -> None:
    recognizer = small_recognizer("ctc")
    images = lines([90, 60, 75])
    model = CharacterNgrams.train(["gfedcb"] * 9, ALPHABET, 2)
    assert recognizer.settings.beam == 1
    assert recognizer.read(*images, language=model) == recognizer.read(*images, beam=BEAM, language=model)


@BOTH
def test_right_to_left_reading_is_that_of_the_mirrored_line(decoder: DecoderName) -> None:
    """The same classes and the same n-grams, once as a right-to-left text and once as it stands on the line."""
    recognizer = undecided(decoder)
    images = lines([90, 60, 75])
    letters = "אבגדהוזח"
    recognizer.alphabet = Alphabet(letters, "rtl")
    model = CharacterNgrams.train(["אבגדהוז"] * 9, recognizer.alphabet, 2, weight=3.0, bonus=5.0)
    readings = recognizer.read(*images, language=model)
    assert all("אבגד" in reading.text for reading in readings)
    recognizer.alphabet = Alphabet(letters)
    mirror = CharacterNgrams.train(["זוהדגבא"] * 9, recognizer.alphabet, 2, weight=3.0, bonus=5.0)
    visual = recognizer.read(*images, language=mirror)
    assert [(r.text, r.scores) for r in readings] == [(r.text[::-1], r.scores[::-1]) for r in visual]
