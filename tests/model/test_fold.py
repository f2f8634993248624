"""Folded recognizers read what they read before, and cannot be mistaken for what a file holds."""

from __future__ import annotations

import copy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from model_helpers import batch, lines, small_recognizer
from torch import nn

from htr_ray.config import DecoderName
from htr_ray.corpus.images import decode_grey
from htr_ray.model.files import load_recognizer, save_encoder, save_recognizer
from htr_ray.model.fold import fold, is_folded
from htr_ray.model.recognizer import Recognizer
from htr_ray.stream.scale import pack, scale_line

WIDTHS = [90, 60, 3, 75]


def alike(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to the rounding of float32: features are of the size of the largest one."""
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5 * expected.abs().max().item())


def moved(decoder: DecoderName, seed: int = 0) -> Recognizer:
    """A recognizer whose normalisations have statistics, factors and offsets of their own; in eval mode."""
    recognizer = small_recognizer(decoder, dropout=0.0)
    generator = torch.Generator().manual_seed(seed)
    for part in recognizer.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
            part.bias.data.normal_(0.0, 0.3, generator=generator)
    recognizer.train()
    for step in range(3):
        recognizer(batch([90, 60, 75], ["abc", "a", "hhh"], seed=step))
    if decoder == "transformer":
        recognizer.decoder.output.bias.data[0] = -3.0  # one that is not trained ends at once
    return recognizer.eval()


@pytest.mark.parametrize("decoder", ["ctc", "transformer"])
@pytest.mark.parametrize("beam", [1, 3])
def test_readings_are_those_of_before(decoder: DecoderName, beam: int) -> None:
    recognizer = moved(decoder)
    folded = fold(copy.deepcopy(recognizer))
    images, widths = lines(WIDTHS)
    alike(folded.encoder(images, widths)[0], recognizer.encoder(images, widths)[0])
    before, after = (one.read(images, widths, beam) for one in (recognizer, folded))
    assert [reading.text for reading in after] == [reading.text for reading in before]
    assert any(reading.text for reading in after)
    for mine, other in zip(after, before, strict=True):
        assert mine.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert mine.scores == pytest.approx(other.scores, abs=1e-4)


def test_no_normalisation_is_left_and_the_layout_of_the_weights_is() -> None:
    recognizer = moved("ctc")
    folded = fold(copy.deepcopy(recognizer))
    assert any(isinstance(part, nn.BatchNorm2d) for part in recognizer.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    for part in folded.modules():
        if isinstance(part, nn.Conv2d):
            assert part.bias is not None and part.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_line_is_read_alike_in_any_company() -> None:
    folded = fold(moved("ctc"))
    images, widths = lines(WIDTHS)
    together, frames = folded.encoder(images, widths)
    for number, width in enumerate(WIDTHS):
        alone, _ = folded.encoder(images[number : number + 1, :, :, :width], widths[number : number + 1])
        alike(together[number, : frames[number]], alone[0])


def test_files_hold_what_is_not_folded(tmp_path: Path) -> None:
    recognizer = moved("ctc")
    save_recognizer(tmp_path / "saved", recognizer)
    folded = load_recognizer(tmp_path / "saved", folded=True)
    assert is_folded(folded) and not is_folded(load_recognizer(tmp_path / "saved"))
    for save, module in ((save_recognizer, folded), (save_encoder, folded.encoder)):
        with pytest.raises(ValueError, match="folded model cannot be saved"):
            save(tmp_path / "again", module)  # type: ignore[operator]
    assert not (tmp_path / "again").exists()


def test_real_handwriting_is_read_alike(handwriting: Path) -> None:
    """At the lines' own widths, by a decoder that writes many letters."""
    recognizer = moved("ctc")
    with torch.no_grad():
        recognizer.decoder.linear.weight *= 20
        recognizer.decoder.linear.bias[0] = -2
    folded = fold(copy.deepcopy(recognizer))
    rows = pq.read_table(handwriting / "lines" / "dhsd.parquet").slice(0, 64).to_pylist()
    images = [scale_line(decode_grey(row["image"]["bytes"]), 32, 1.0, 512) for row in rows]
    widths = torch.tensor([image.shape[1] for image in images])
    packed = torch.from_numpy(pack(images, int(widths.max())))
    before, after = (one.read(packed, widths, 1) for one in (recognizer, folded))
    assert [reading.text for reading in after] == [reading.text for reading in before]
    assert sum(len(reading.text) for reading in after) > len(after)
    for mine, other in zip(after, before, strict=True):
        assert mine.scores == pytest.approx(other.scores, abs=1e-3)
