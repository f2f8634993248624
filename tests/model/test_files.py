"""Models on disk: what is saved comes back, and what cannot be loaded says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from model_helpers import ALPHABET, batch, lines, small_recognizer, small_settings
from safetensors.torch import load_file, save_file

from htr_ray.config import DecoderName
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.encoder import Encoder
from htr_ray.model.files import (
    DESCRIPTION,
    FORMAT,
    WEIGHTS,
    load_encoder,
    load_recognizer,
    read_description,
    save_encoder,
    save_recognizer,
)
from htr_ray.model.recognizer import Recognizer


@pytest.mark.parametrize("decoder", ["ctc", "transformer"])
def test_recognizer_round_trip(decoder: DecoderName, tmp_path: Path) -> None:
    recognizer = small_recognizer(decoder, beam=2).train()
    recognizer(batch([60, 50], ["ab", "c"]))  # moves the batch statistics, which must be saved too
    save_recognizer(tmp_path / "new" / "folder", recognizer, {"epoch": 3, "note": "Straße"})
    loaded = load_recognizer(tmp_path / "new" / "folder")
    assert (loaded.settings, loaded.decoder_name, loaded.alphabet) == (recognizer.settings, decoder, ALPHABET)
    assert not loaded.training
    assert loaded.read(*lines([70, 40])) == recognizer.read(*lines([70, 40]))
    assert read_description(tmp_path / "new" / "folder")["extra"] == {"epoch": 3, "note": "Straße"}
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {WEIGHTS, DESCRIPTION}


def test_direction_is_kept(tmp_path: Path) -> None:
    """An older htr-ray must refuse right-to-left recognizers, and only those."""
    for direction, version in (("ltr", 1), ("rtl", FORMAT)):
        alphabet = Alphabet("abאב", direction)  # type: ignore[arg-type]
        save_recognizer(tmp_path, Recognizer(small_settings(), "ctc", alphabet))
        assert load_recognizer(tmp_path).alphabet == alphabet
        assert read_description(tmp_path)["format"] == version
    save_encoder(tmp_path, Encoder(small_settings()))
    assert read_description(tmp_path)["format"] == 1


def test_files_from_before_there_was_a_direction(tmp_path: Path) -> None:
    save_recognizer(tmp_path, small_recognizer("ctc"))
    description = read_description(tmp_path)
    del description["direction"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    assert load_recognizer(tmp_path).alphabet == ALPHABET and ALPHABET.direction == "ltr"


def test_encoder_round_trip_and_out_of_a_recognizer(tmp_path: Path) -> None:
    recognizer = small_recognizer("ctc")
    save_encoder(tmp_path / "encoder", recognizer.encoder)
    save_recognizer(tmp_path / "recognizer", recognizer)
    for folder in ("encoder", "recognizer"):
        torch.manual_seed(5)
        into = Encoder(small_settings(height=48, dropout=0.5))  # neither shapes the encoder's weights
        for loaded in (load_encoder(tmp_path / folder), load_encoder(tmp_path / folder, into)):
            own = recognizer.encoder.state_dict()
            assert all(torch.equal(own[key], value) for key, value in loaded.state_dict().items())
        assert into.training


@pytest.mark.parametrize(
    ("name", "value"), [("channels", 64), ("lstm_hidden", 8), ("lstm_layers", 1), ("lstm_skip", False)]
)
def test_encoder_that_does_not_fit_names_the_setting(tmp_path: Path, name: str, value: int) -> None:
    save_encoder(tmp_path, Encoder(small_settings(**{name: value})))
    into = Encoder(small_settings())
    before = {key: tensor.clone() for key, tensor in into.state_dict().items()}
    with pytest.raises(UserError, match=rf"model\.{name}={value}"):
        load_encoder(tmp_path, into)
    assert all(torch.equal(before[key], tensor) for key, tensor in into.state_dict().items())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.json: no such file"):
        load_recognizer(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"model\.json: no such file"):
        load_encoder(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    def edit(**changes: object) -> None:
        save_recognizer(tmp_path, small_recognizer("ctc"))
        path = tmp_path / DESCRIPTION
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load_recognizer(tmp_path)
        assert str(tmp_path) in str(caught.value)

    edit(format=99)
    refused("format 99")
    edit(kind="picture")
    refused("kind")
    edit(model={"channels": "many"})
    refused(r"model\.channels")
    edit(model={"colour": 1})
    refused(r"model\.colour")
    edit(model=None)
    refused("model")
    edit(decoder="oracle")
    refused("decoder")
    edit(alphabet=["a", "b"])
    refused(r"decoder\.linear\.\w+ has shape \[9")
    edit(alphabet=None)
    refused("alphabet")
    edit(direction="up")
    refused("field 'direction' is 'up'")
    edit()
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    del description["alphabet"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    refused("alphabet")
    (tmp_path / DESCRIPTION).write_text('{"format": 1,')
    refused("not valid JSON")
    edit()
    weights = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    refused("damaged")
    (tmp_path / WEIGHTS).unlink()
    refused(r"model\.safetensors: no such file")


def test_missing_and_unknown_weights_are_named(tmp_path: Path) -> None:
    save_recognizer(tmp_path, small_recognizer("ctc"))
    weights = load_file(tmp_path / WEIGHTS)
    bias = weights.pop("decoder.linear.bias")
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match=r"decoder\.linear\.bias is missing"):
        load_recognizer(tmp_path)
    save_file({**weights, "decoder.linear.bias": bias, "extra": bias.clone()}, tmp_path / WEIGHTS)
    with pytest.raises(UserError, match="extra is unknown"):
        load_recognizer(tmp_path)


def test_an_encoder_is_no_recognizer(tmp_path: Path) -> None:
    save_encoder(tmp_path, small_recognizer("ctc").encoder)
    with pytest.raises(UserError, match="not a recognizer"):
        load_recognizer(tmp_path)
