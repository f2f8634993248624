"""Recognizer: encoder + decoder + alphabet, from image to text."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from htr_ray.config import DecoderName, ModelSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.ctc import CTCDecoder
from htr_ray.model.encoder import Encoder
from htr_ray.model.found import Found
from htr_ray.model.language import BEAM, Fusion, LanguageModel
from htr_ray.model.transformer import TransformerDecoder


class Reading(NamedTuple):
    """What a recognizer makes of a line."""

    text: str
    confidence: float
    """Likelihood of the text per character (geometric mean), 0 to 1, as the model judges itself."""
    scores: list[float]
    """Of each character of ``text``, its probability given those before it (on the line, from left to right)."""


def make_decoder(settings: ModelSettings, decoder: DecoderName, dim: int, classes: int) -> nn.Module:
    """The decoder of that name for features ``dim`` wide and ``classes`` characters, blank included."""
    if decoder == "ctc":
        return CTCDecoder(dim, classes)
    return TransformerDecoder(settings.transformer, dim, classes)


class Recognizer(nn.Module):
    """Image -> text. ``forward`` is the loss, since that is what DDP wraps."""

    def __init__(self, settings: ModelSettings, decoder: DecoderName, alphabet: Alphabet) -> None:
        super().__init__()
        self.settings, self.decoder_name, self.alphabet = settings, decoder, alphabet
        self.encoder = Encoder(settings)
        self.dropout = nn.Dropout(settings.dropout)
        self.decoder: Any = make_decoder(settings, decoder, self.encoder.dim, len(alphabet))
        self.frozen = False
        self.auxiliary: CTCDecoder | None = None
        self._auxiliary_share = 0.0

    def add_auxiliary(self, share: float) -> None:
        """Put a CTC head beside a transformer decoder while training, with ``share`` (0 to 1) of the loss.

        CTC finds out where the characters stand, which attention takes long to (Kim, Hori, Watanabe:
        "Joint CTC-attention based end-to-end speech recognition", ICASSP 2017). Reading does without
        it, and saved recognizers do not have it.
        """
        self.auxiliary = CTCDecoder(self.encoder.dim, len(self.alphabet))
        self._auxiliary_share = share

    def freeze_encoder(self) -> None:
        """Protocol ``frozen``: the encoder gets no gradient, and its batch statistics stay as they are."""
        self.frozen = True
        self.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Recognizer:
        """As in torch, but a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.loss(batch)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Loss of each line: float32 [B].

        ``batch``: images uint8 [B, 1, H, W] and targets int64 [B, L] padded with 0 on the recognizer's device; widths
        int [B] and lengths int64 [B] on the CPU, where their values are asked for.
        """
        features, frames = self.encoder(batch["images"], batch["widths"])
        features = self.dropout(features)
        loss: Tensor = self.decoder.loss(features, frames, batch["targets"], batch["lengths"])
        if self.auxiliary is not None:
            beside = self.auxiliary.loss(features, frames, batch["targets"], batch["lengths"])
            loss = torch.lerp(loss, beside, self._auxiliary_share)
        return loss

    def read(
        self,
        images: Tensor,
        widths: Tensor,
        beam: int | None = None,
        language: LanguageModel | None = None,
    ) -> list[Reading]:
        """Read lines: images uint8 [B, 1, H, W], widths int [B]; always in eval mode, without gradients.

        ``beam`` is the width of the beam search, 1 for greedy; None takes it from the settings, where
        it is at least BEAM with a language model. ``language`` has a say in what is read, and none in
        confidence and scores. Raises UserError when it is made for the other direction of writing.
        """
        if beam is None:
            beam = self.settings.beam if language is None else max(self.settings.beam, BEAM)
        fusion = None if language is None else Fusion(language, self.alphabet)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                features, frames = self.encoder(images, widths)
                found = self.decoder.read(features, frames, beam, fusion)
        finally:
            self.train(training)
        return [self._reading(line) for line in found]

    def _reading(self, found: Found) -> Reading:
        scores = [found.scores[i] for i in self.alphabet.order(found.classes)]
        return Reading(self.alphabet.decode(found.classes), found.confidence, scores)
