"""Prefix beam search: the text that all its CTC paths together make likeliest (Graves 2012, section 7.5), with a
language model's word in it (Hannun et al., 2014, "First-Pass Large Vocabulary Continuous Speech Recognition").

All lines of a batch are searched side by side, frame by frame, with arrays of [lines, beam] or [lines, beam, classes
tried]: ten times as fast as one line after another with dictionaries of texts.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from htr_ray.model.language import BEAM_CHARACTERS, Fusion

BLANK = 0
FLOOR = 1e-4
"""Classes less likely than this in a frame are not tried at all."""
MARGIN = math.exp(-10.0)
"""Texts that are less likely than the best so far by this factor are given up."""
_NOBODY, _EMPTY, _STEP = np.uint64(0), np.uint64(1), np.uint64(6364136223846793005)
"""Names of texts: of none, of the empty one, and the factor (Knuth's) with which each character makes a new one."""


@dataclass
class _Texts:
    """The texts that are followed: arrays [lines, beam], from one frame to the next.

    A text is known by its ``name``, a hash of 64 bits; places that hold none have no likelihood. Likelihoods are of
    paths that end in a blank and of the others, the language model's word included, the best text's being 1.
    """

    name: np.ndarray
    last: np.ndarray
    blank: np.ndarray
    other: np.ndarray

    @classmethod
    def start(cls, lines: int, beam: int) -> _Texts:
        name, last = np.full((lines, beam), _NOBODY, np.uint64), np.zeros((lines, beam), np.int64)
        blank, other = np.zeros((lines, beam)), np.zeros((lines, beam))
        name[:, 0], blank[:, 0] = _EMPTY, 1.0
        return cls(name, last, blank, other)

    def drop(self) -> None:
        """Give up what is too far behind, and let the best have likelihood 1."""
        total = self.blank + self.other
        best = total.max(axis=1, keepdims=True)
        lost = total < best * MARGIN
        self.blank[lost] = self.other[lost] = 0.0
        self.name[lost] = _NOBODY
        self.blank /= best
        self.other /= best


def prefix_beam(log_probs: Tensor, frames: Tensor, beam: int, language: Fusion | None = None) -> list[list[int]]:
    """``log_probs`` float32 [lines, frames, classes], ``frames`` int64 [lines] -> the classes of the best text found
    of each line; ``beam`` texts at most are followed.
    """
    every, tried_in, chances_in = _by_frame(log_probs, frames)
    lines = len(log_probs)
    texts = _Texts.start(lines, beam)
    states = _States(language, lines, beam) if language else None
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    line = np.arange(lines)[:, None]
    for frame, tried, chances in zip(every, tried_in, chances_in, strict=True):
        both = texts.blank + texts.other
        # The same text again: a blank, or its last character goes on.
        blank = both * np.exp(frame[:, BLANK, None], dtype=np.float64)
        other = texts.other * np.exp(frame[line, texts.last], dtype=np.float64)
        count = int((chances > 0.0).sum(axis=1).max())
        if count == 0:
            texts.blank, texts.other = blank, other
            texts.drop()
            continue
        tried, chances = tried[:, None, :count], chances[:, None, :count]
        # The same character again is a new one only after a blank.
        longer = np.where(tried == texts.last[..., None], texts.blank[..., None], both[..., None]) * chances
        longer[longer < np.exp(frame.max(axis=1), dtype=np.float64)[:, None, None] * MARGIN] = 0.0
        if states is not None:
            states.ask(longer, tried[:, 0])
        names = texts.name[..., None] * _STEP + tried.astype(np.uint64)
        # A text that is followed already is reached in a second way.
        twice = np.nonzero((names[..., None] == texts.name[:, None, None]) & (longer > 0.0)[..., None])
        other[twice[0], twice[3]] += longer[twice[:3]]
        longer[twice[:3]] = 0.0
        total = np.concatenate([blank + other, longer.reshape(lines, -1)], axis=1)
        kept = np.argpartition(-total, beam - 1, axis=1)[:, :beam]
        grown = kept >= beam
        parent, number = np.divmod(np.where(grown, kept - beam, 0), count)
        parent = np.where(grown, parent, kept)
        added = np.where(grown, tried[line, 0, number], BLANK)
        steps.append((parent, added))
        if states is not None:
            states.follow(parent, added)
        texts = _Texts(
            np.where(grown, names[line, parent, number], texts.name[line, parent]),
            np.where(grown, added, texts.last[line, parent]),
            np.where(grown, 0.0, blank[line, parent]),
            np.where(grown, total[line, kept], other[line, parent]),
        )
        texts.drop()
    total = texts.blank + texts.other
    if states is not None:
        total *= states.end(total)
    return _written(total.argmax(axis=1), steps)


def _by_frame(log_probs: Tensor, frames: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log probabilities [frames, lines, classes]; classes worth a try, blank aside, and their probabilities, both
    [frames, lines, up to BEAM_CHARACTERS], the likeliest first; 0 for those below FLOOR.

    Beyond a line's end the blank is certain.
    """
    beyond = torch.arange(log_probs.shape[1], device=frames.device) >= frames[:, None]
    ended = torch.full_like(log_probs[0, 0], -math.inf)
    ended[BLANK] = 0.0
    every = torch.where(beyond[..., None], ended, log_probs).transpose(0, 1).contiguous()
    top, tried = every[..., 1:].topk(min(BEAM_CHARACTERS, every.shape[2] - 1), dim=2)
    chances = top.double().exp()
    chances[chances < FLOOR] = 0.0
    return every.cpu().numpy(), tried.cpu().numpy() + 1, chances.cpu().numpy()


def _written(place: np.ndarray, steps: list[tuple[np.ndarray, np.ndarray]]) -> list[list[int]]:
    """The texts that ended in ``place`` [lines], back through the ``(place before, class or BLANK)`` of each step."""
    line = np.arange(len(place))
    backwards = []
    for parent, added in reversed(steps):
        backwards.append(added[line, place])
        place = parent[line, place]
    if not backwards:
        return [[] for _ in line]
    return [row[row != BLANK].tolist() for row in np.stack(backwards[::-1], axis=1)]


class _States:
    """The language model's states of all texts that are followed: [lines][beam]."""

    def __init__(self, language: Fusion, lines: int, beam: int) -> None:
        self._language = language
        self._states: list[list[Hashable]] = [[language.start()] * beam for _ in range(lines)]

    def ask(self, longer: np.ndarray, tried: np.ndarray) -> None:
        """Let the language model have its word in the likelihoods ``longer`` [lines, beam, tried] of longer texts."""
        places = np.nonzero(longer)
        numbers = tried[places[0], places[2]].tolist()
        added = [
            self._language.step(self._states[line][parent], number)[0]
            for line, parent, number in zip(places[0].tolist(), places[1].tolist(), numbers, strict=True)
        ]
        longer[places] *= np.exp(added)

    def follow(self, parents: np.ndarray, added: np.ndarray) -> None:
        """Go on with the texts at the places ``parents`` [lines, beam], longer by ``added`` where it is no blank."""
        self._states = [
            [
                self._language.step(states[parent], number)[1] if number != BLANK else states[parent]
                for parent, number in zip(*grown, strict=True)
            ]
            for states, *grown in zip(self._states, parents.tolist(), added.tolist(), strict=True)
        ]

    def end(self, total: np.ndarray) -> np.ndarray:
        """What the language model says to the line's end after each text [lines, beam]; 1 where there is none."""
        return np.array(
            [
                [math.exp(self._language.end(state)) if likely else 1.0 for state, likely in zip(*row, strict=True)]
                for row in zip(self._states, total.tolist(), strict=True)
            ]
        )
