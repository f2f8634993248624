"""Prefix beam search: the text that all its CTC paths together make likeliest (Graves 2012, section 7.5), with a
language model's word in it (Hannun et al., 2014, "First-Pass Large Vocabulary Continuous Speech Recognition")."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np

from htr_ray.model.language import BEAM_CHARACTERS, Fusion

BLANK = 0
FLOOR = math.log(1e-4)
"""Classes less likely than this in a frame are not tried at all."""
MARGIN = 10.0
"""Texts that are less likely by this (natural logarithm) than the best so far are given up."""
NEVER = -math.inf


class _Tree:
    """Texts as nodes ``(parent, class)``, so that a longer one costs no copy. Node 0 is the empty text."""

    def __init__(self, classes: int, language: Fusion | None) -> None:
        self.classes, self.language = classes, language
        self.parents, self.last = [-1], [BLANK]
        self.extra = [0.0]
        """What the language model adds."""
        self.states: list[Hashable] = [language.start() if language else None]
        self._children: dict[int, int] = {}

    def child(self, node: int, character: int) -> int:
        """The node of the text that is one class longer."""
        key = node * self.classes + character
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = len(self.parents)
            self.parents.append(node)
            self.last.append(character)
            if self.language is None:
                self.extra.append(0.0)
                self.states.append(None)
            else:
                added, state = self.language.step(self.states[node], character)
                self.extra.append(self.extra[node] + added)
                self.states.append(state)
        return found

    def end(self, node: int) -> float:
        return self.language.end(self.states[node]) if self.language else 0.0

    def text(self, node: int) -> list[int]:
        found: list[int] = []
        while node:
            found.append(self.last[node])
            node = self.parents[node]
        return found[::-1]


def prefix_beam(log_probs: np.ndarray, beam: int, language: Fusion | None = None) -> list[int]:
    """``log_probs`` float32 [frames, classes] -> the classes of the best text found.

    ``beam`` texts at most are followed. Each carries two log likelihoods: of its paths that end in a
    blank, and of the others.
    """
    tree = _Tree(log_probs.shape[1], language)
    last, extra = tree.last, tree.extra
    beams: dict[int, tuple[float, float]] = {0: (0.0, NEVER)}
    best = 0.0
    for row, tried in zip(log_probs.tolist(), _tried(log_probs), strict=True):
        least = best + max(row) - MARGIN
        grown = {}
        for node, (blank, other) in beams.items():  # the same text again: a blank, or its last character goes on
            both = _add(blank, other)
            grown[node] = both + row[BLANK], (other + row[last[node]] if node else NEVER)
        for node, (blank, other) in beams.items():
            both = _add(blank, other)
            for character in tried:
                # The same character again is a new one only after a blank.
                longer = (blank if character == last[node] else both) + row[character]
                if longer + extra[node] < least:
                    continue
                child = tree.child(node, character)
                b, o = grown.get(child, (NEVER, NEVER))
                grown[child] = b, _add(o, longer)
        ranked = sorted(((_add(b, o) + extra[node], node) for node, (b, o) in grown.items()), reverse=True)
        best = ranked[0][0]
        beams = {node: grown[node] for score, node in ranked[:beam] if score >= best - MARGIN}
    return tree.text(max(beams, key=lambda node: _add(*beams[node]) + extra[node] + tree.end(node)))


def _tried(log_probs: np.ndarray) -> list[list[int]]:
    """The classes worth a try in each frame, blank aside: at most BEAM_CHARACTERS, and none below FLOOR."""
    tried = []
    for row in log_probs:
        classes = np.flatnonzero(row[1:] >= FLOOR) + 1
        if len(classes) > BEAM_CHARACTERS:
            classes = classes[np.argsort(-row[classes])[:BEAM_CHARACTERS]]
        tried.append(classes.tolist())
    return tried


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))"""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
