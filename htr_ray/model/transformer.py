"""Transformer decoder: one character at a time, attending to the frames (Vaswani et al., NeurIPS 2017)."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from htr_ray.config import TransformerSettings
from htr_ray.model.found import Found
from htr_ray.model.language import BEAM_CHARACTERS, Fusion

EDGE = 0
"""The class that is CTC's blank: here the start of a text on the way in, and its end on the way out."""
EXTRA_LENGTH = 8
"""Characters that a reading may be longer than its line has frames, before it is cut off."""


class TransformerDecoder(nn.Module):
    """Features, projected to ``dim`` and given positions, then ``layers`` pre-norm decoder layers."""

    def __init__(self, settings: TransformerSettings, dim: int, classes: int) -> None:
        """``dim``: width of the features; ``classes``: characters, and the blank (class 0)."""
        super().__init__()
        width = settings.dim
        self.label_smoothing = settings.label_smoothing
        self.memory = nn.Linear(dim, width)
        self.memory_norm = nn.LayerNorm(width)
        self.embedding = nn.Embedding(classes, width)
        self.dropout = nn.Dropout(settings.dropout)
        layer = nn.TransformerDecoderLayer(
            width,
            settings.heads,
            settings.feedforward,
            settings.dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerDecoder(layer, settings.layers, nn.LayerNorm(width))
        self.output = nn.Linear(width, classes)
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:  # copies of one layer would all start alike
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def logits(self, features: Tensor, frames: Tensor, targets: Tensor) -> Tensor:
        """Teacher forcing: ``features`` [B, T, dim], ``frames`` int64 [B], ``targets`` int64 [B, L]
        -> [B, L + 1, classes], the class expected before each target and after the last."""
        shifted = functional.pad(targets, (1, 0), value=EDGE)
        length = shifted.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=targets.device).triu(1)
        hidden = self.layers(
            self.dropout(self._embed(shifted, 0, length)),
            self._memory(features),
            tgt_mask=causal,
            tgt_is_causal=True,
            memory_key_padding_mask=_padding(features, frames),
        )
        logits: Tensor = self.output(hidden)
        return logits

    def loss(self, features: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Cross-entropy with label smoothing, the mean over a line's characters and its end.

        ``features`` [B, T, dim], ``frames`` int64 [B], ``targets`` int64 [B, L] padded with 0,
        ``lengths`` int64 [B] -> float32 [B].
        """
        logits = self.logits(features, frames, targets).float()
        expected = functional.pad(targets, (0, 1), value=EDGE)
        loss = functional.cross_entropy(
            logits.transpose(1, 2), expected, reduction="none", label_smoothing=self.label_smoothing
        )
        lengths = lengths.to(targets.device, non_blocking=True)
        counted = torch.arange(expected.shape[1], device=targets.device) <= lengths[:, None]
        return (loss * counted).sum(1) / (lengths + 1)

    @torch.no_grad()
    def read(self, features: Tensor, frames: Tensor, beam: int = 1, language: Fusion | None = None) -> list[Found]:
        """``features`` [B, T, dim], ``frames`` int64 [B] -> what is read of each line.

        Beam search over all lines at once, one character per step; beam 1 is greedy decoding.
        Hypotheses are compared by likelihood per character, the end counted as one (geometric mean);
        with a language model, by the weighted product of its likelihood and the decoder's ("shallow
        fusion": Gulcehre et al., 2015). Confidence and scores are the decoder's own alone. A line is
        done when ``beam`` hypotheses have ended, or at ``frames + EXTRA_LENGTH`` characters.
        """
        frames = frames.to(features.device)
        limits = frames + EXTRA_LENGTH
        best = [(-math.inf, Found([], 0.0, []))] * len(frames)
        model = _Language(language, len(frames), beam) if language else None
        state = _State(self, self._memory(features), _padding(features, frames))
        lines = torch.arange(len(frames), device=frames.device)  # those not done yet, as the state's rows
        texts = lines.new_zeros(len(lines), beam, 0)
        chances = features.new_zeros(len(lines), beam, 0, dtype=torch.float32)  # of each character of the texts
        scores = torch.full((len(lines), beam), -math.inf, device=features.device)
        scores[:, 0] = 0.0  # the beams have not parted yet
        ended = torch.zeros_like(lines)
        step = 0
        while len(lines):
            last = texts[:, :, -1] if step else lines.new_full((len(lines), beam), EDGE)
            hidden = state.step(self._embed(last, step, 1))
            log_probs = functional.log_softmax(self.output(hidden).float(), dim=2)
            at_limit = limits[lines] <= step
            log_probs[at_limit, :, 1:] = -math.inf
            gains = model.add(log_probs) if model else log_probs
            classes = log_probs.shape[2]
            # A beam can end in one way only, so that the best 2 * beam hold enough that go on.
            count = min(2 * beam, beam * classes)
            top, index = (scores[:, :, None] + gains).flatten(1).topk(count, dim=1)
            parents, characters = index // classes, index % classes
            ends = (characters == EDGE) & top.isfinite()
            ends[:, beam:] = False
            for row, rank in ends.nonzero().tolist():
                line, score = int(lines[row]), top[row, rank].item() / (step + 1)
                ended[line] += 1
                if score > best[line][0]:
                    parent = parents[row, rank]
                    own, end = chances[row, parent], log_probs[row, parent, EDGE]
                    confidence = math.exp((own.sum() + end).item() / (step + 1))
                    best[line] = score, Found(texts[row, parent].tolist(), confidence, own.exp().tolist())
            scores, order = top.masked_fill(characters == EDGE, -math.inf).topk(beam, dim=1)
            parents, characters = parents.gather(1, order), characters.gather(1, order)
            chance = log_probs.flatten(1).gather(1, parents * classes + characters)
            descent = parents[:, :, None].expand(-1, -1, step)
            texts = torch.cat([texts.gather(1, descent), characters[:, :, None]], dim=2)
            chances = torch.cat([chances.gather(1, descent), chance[:, :, None]], dim=2)
            rows = ((ended[lines] < beam) & ~at_limit).nonzero()[:, 0]
            state.keep(rows, parents[rows])
            if model:
                model.keep(rows, parents[rows], characters[rows])
            lines, texts, chances, scores = lines[rows], texts[rows], chances[rows], scores[rows]
            step += 1
        return [found for _, found in best]

    def _memory(self, features: Tensor) -> Tensor:
        memory = self.memory_norm(self.memory(features))
        return self.dropout(memory + positions(0, memory.shape[1], memory))

    def _embed(self, classes: Tensor, start: int, count: int) -> Tensor:
        """Classes [B, n] at positions ``start`` to ``start + count`` (n, or 1 for all) -> [B, n, width]."""
        embedded = self.embedding(classes) * math.sqrt(self.embedding.embedding_dim)
        return embedded + positions(start, count, embedded)


class _State:
    """What beam search remembers: keys and values of the frames and of the characters so far.

    Torch's decoder has no cache: it would project all frames and read the whole text again for
    every character. Here are the same weights in the same order; a test compares the two.
    """

    def __init__(self, decoder: TransformerDecoder, memory: Tensor, padding: Tensor) -> None:
        """``memory`` [B, T, width], ``padding`` bool [B, T]."""
        self.layers: Any = decoder.layers.layers
        self.norm: Any = decoder.layers.norm
        self.frames = [_heads(layer.multihead_attn, memory, 1, 3) for layer in self.layers]
        self.visible = ~padding[:, None, None, :]
        self.texts: list[list[Tensor]] = [[] for _ in self.layers]

    def step(self, x: Tensor) -> Tensor:
        """The next character's embedding [B, beam, width] -> the decoder's output [B, beam, width]."""
        lines, beam, width = x.shape
        for layer, frames, text in zip(self.layers, self.frames, self.texts, strict=True):
            y = layer.norm1(x).reshape(lines * beam, 1, width)
            query, *new = _heads(layer.self_attn, y, 0, 3)
            text[:] = [torch.cat([old, n], dim=2) for old, n in zip(text, new, strict=True)] if text else new
            y = functional.scaled_dot_product_attention(query, text[0], text[1])
            x = x + layer.self_attn.out_proj(y.transpose(1, 2).reshape(lines, beam, width))
            (query,) = _heads(layer.multihead_attn, layer.norm2(x), 0, 1)
            y = functional.scaled_dot_product_attention(query, frames[0], frames[1], self.visible)
            x = x + layer.multihead_attn.out_proj(y.transpose(1, 2).reshape(lines, beam, width))
            x = x + layer.linear2(layer.activation(layer.linear1(layer.norm3(x))))
        hidden: Tensor = self.norm(x)
        return hidden

    def keep(self, rows: Tensor, parents: Tensor) -> None:
        """Go on with the lines ``rows`` [n]; their beams descend from beams ``parents`` [n, beam]."""
        before, beam = self.visible.shape[0], parents.shape[1]
        if len(rows) < before:
            self.frames = [[part[rows] for part in parts] for parts in self.frames]
            self.visible = self.visible[rows]
        source = (rows[:, None] * beam + parents).flatten()
        if beam > 1 or len(rows) < before:
            self.texts = [[part[source] for part in parts] for parts in self.texts]


class _Language:
    """The language model's states of all hypotheses: [lines][beam]."""

    def __init__(self, language: Fusion, lines: int, beam: int) -> None:
        self.language = language
        self.states: list[list[Hashable]] = [[language.start()] * beam] * lines

    def add(self, log_probs: Tensor) -> Tensor:
        """The decoder's log probabilities [B, beam, classes] and the language model's; of the classes that are likely
        to the decoder, all others being impossible."""
        top, numbers = log_probs.topk(min(BEAM_CHARACTERS + 1, log_probs.shape[2]), dim=2)
        added = [
            [
                [self.language.step(state, number)[0] if number != EDGE else self.language.end(state) for number in row]
                for state, row in zip(states, rows, strict=True)
            ]
            for states, rows in zip(self.states, numbers.tolist(), strict=True)
        ]
        return torch.full_like(log_probs, -math.inf).scatter(2, numbers, top + top.new_tensor(added))

    def keep(self, rows: Tensor, parents: Tensor, characters: Tensor) -> None:
        """As ``_State.keep``, with the classes [n, beam] by which the beams have grown."""
        self.states = [
            [
                self.language.step(self.states[row][parent], number)[1] if number != EDGE else self.states[row][parent]
                for parent, number in zip(*grown, strict=True)
            ]
            for row, *grown in zip(rows.tolist(), parents.tolist(), characters.tolist(), strict=True)
        ]


def _heads(attention: nn.MultiheadAttention, x: Tensor, first: int, stop: int) -> list[Tensor]:
    """``x`` [B, n, width] -> projections ``first`` to ``stop`` of (query, key, value): [B, heads, n, d]."""
    width = attention.embed_dim
    part = slice(first * width, stop * width)
    projected = functional.linear(x, attention.in_proj_weight[part], attention.in_proj_bias[part])
    shape = (x.shape[0], x.shape[1], attention.num_heads, attention.head_dim)
    return [chunk.reshape(shape).transpose(1, 2) for chunk in projected.chunk(stop - first, dim=2)]


def positions(start: int, count: int, like: Tensor) -> Tensor:
    """Sinusoidal positions from ``start`` (Vaswani et al., section 3.5): [count, width], type of ``like``."""
    width = like.shape[-1]
    rate = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10000.0) / width))
    angle = torch.arange(start, start + count, device=like.device)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width].to(like.dtype)


def _padding(features: Tensor, frames: Tensor) -> Tensor:
    """True where a frame is padding: bool [B, T]."""
    frames = frames.to(features.device, non_blocking=True)
    return torch.arange(features.shape[1], device=features.device) >= frames[:, None]
