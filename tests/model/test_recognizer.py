"""Recognizers as wholes: learning, reading, freezing, bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_helpers import ALPHABET, batch, lines, small_recognizer
from torch import nn

from htr_ray.config import DecoderName
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.files import load_recognizer, save_recognizer

BOTH = pytest.mark.parametrize("decoder", ["ctc", "transformer"])


@BOTH
@pytest.mark.parametrize("bfloat16", [False, True])
def test_loss_and_gradients(decoder: DecoderName, bfloat16: bool) -> None:
    recognizer = small_recognizer(decoder)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = recognizer(batch([90, 60, 75], ["abc", "a", "hhh"]))
    assert loss.shape == (3,) and loss.dtype == torch.float32 and loss.isfinite().all()
    loss.mean().backward()
    for name, parameter in recognizer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(p.dtype == torch.float32 for p in recognizer.parameters())


@BOTH
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_reading_leaves_no_trace(decoder: DecoderName, beam: int, bfloat16: bool) -> None:
    recognizer = small_recognizer(decoder, beam=beam).train()
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        readings = recognizer.read(*lines([90, 60, 3]))
    assert len(readings) == 3
    for text, confidence, scores in readings:
        assert not ALPHABET.covers(text) and 0 <= confidence <= 1
        assert len(scores) == len(text) and all(0 <= score <= 1 for score in scores)
    assert recognizer.training and recognizer.encoder.training
    assert all(torch.equal(before[key], value) for key, value in recognizer.state_dict().items())


@BOTH
def test_learns_by_heart_and_reads_back(decoder: DecoderName) -> None:
    recognizer = small_recognizer(decoder, dropout=0.0, lstm_layers=1)
    texts = ["abca", "cde", "fgh", "hag"]
    data = batch([16 * len(text) + 10 for text in texts], texts)
    for image, text in zip(data["images"], texts, strict=True):
        image[:] = 255
        for i, character in enumerate(text):  # a letter is a bar at its own height
            row = 4 * "abcdefgh".index(character)
            image[0, row : row + 4, 16 * i + 4 : 16 * i + 16] = 20
    optimizer = torch.optim.AdamW(recognizer.parameters(), lr=3e-3)
    recognizer.train()
    for _ in range(600):
        optimizer.zero_grad()
        loss = recognizer(data).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(recognizer.parameters(), 5.0)
        optimizer.step()
        if loss.item() < 0.05:
            break
    for beam in (1, 3):
        recognizer.settings = recognizer.settings.model_copy(update={"beam": beam})
        readings = recognizer.read(data["images"], data["widths"])
        assert [reading.text for reading in readings] == texts
        assert all(min(reading.confidence, *reading.scores) > 0.5 for reading in readings)


@pytest.mark.parametrize("beam", [1, 3])
def test_right_to_left_reading_is_the_visual_one_turned_round(beam: int) -> None:
    """The decoder sees the same classes; only what they mean as a text differs."""
    recognizer = small_recognizer("ctc", beam=beam)
    images = lines([90, 60, 30])
    recognizer.alphabet = Alphabet("אבגדהוזח")
    visual = recognizer.read(*images)
    recognizer.alphabet = Alphabet("אבגדהוזח", "rtl")
    readings = recognizer.read(*images)
    assert any(len(set(reading.text)) > 1 for reading in readings)
    assert [reading.text for reading in readings] == [reading.text[::-1] for reading in visual]
    assert [reading.confidence for reading in readings] == [reading.confidence for reading in visual]
    assert [reading.scores for reading in readings] == [reading.scores[::-1] for reading in visual]


@BOTH
def test_frozen_encoder_does_not_change(decoder: DecoderName) -> None:
    recognizer = small_recognizer(decoder)
    recognizer.freeze_encoder()
    recognizer.train()
    assert recognizer.training and recognizer.decoder.training
    assert not any(module.training for module in recognizer.encoder.modules())
    before = {key: value.clone() for key, value in recognizer.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in recognizer.parameters() if p.requires_grad], lr=1e-2)
    recognizer(batch([90, 60], ["abc", "a"])).mean().backward()
    optimizer.step()
    recognizer.read(*lines([40]))
    recognizer.train()
    after = recognizer.state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder"}
    assert not any(module.training for module in recognizer.encoder.modules())


def test_a_ctc_head_beside_the_transformer_teaches_the_encoder_and_is_not_kept(tmp_path: Path) -> None:
    recognizer = small_recognizer("transformer", dropout=0.0).eval()
    data = batch([90, 60, 75], ["abc", "a", "hhh"])
    alone = recognizer(data)
    plain = set(recognizer.state_dict())
    recognizer.add_auxiliary(0.25)
    assert recognizer.auxiliary is not None
    features, frames = recognizer.encoder(data["images"], data["widths"])
    beside = recognizer.auxiliary.loss(features, frames, data["targets"], data["lengths"])
    torch.testing.assert_close(recognizer(data), 0.75 * alone + 0.25 * beside)
    recognizer(data).mean().backward()
    assert all(parameter.grad is not None for parameter in recognizer.parameters())
    save_recognizer(tmp_path, recognizer)
    kept = load_recognizer(tmp_path)
    assert set(kept.state_dict()) == plain
    assert kept.read(*lines([90, 60])) == recognizer.read(*lines([90, 60]))
