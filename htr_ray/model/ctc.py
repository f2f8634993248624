"""CTC decoder: a linear layer over the frames (Graves et al., ICML 2006); class 0 is the blank."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from htr_ray.model.found import Found
from htr_ray.model.language import Fusion
from htr_ray.model.prefix_beam import BLANK, prefix_beam

_SCALED_FRAMES = 8
"""After so many frames the likelihoods of paths are scaled: 8 of them may be as unlikely as e^-80 each."""
_LEAST = np.finfo(np.float64).tiny


class CTCDecoder(nn.Module):
    """Every frame names a character or the blank; repetitions and blanks are then removed."""

    def __init__(self, dim: int, classes: int) -> None:
        """``dim``: width of the features; ``classes``: characters and the blank."""
        super().__init__()
        self.linear = nn.Linear(dim, classes)

    def log_probs(self, features: Tensor) -> Tensor:
        """[B, T, dim] -> float32 [B, T, classes], whatever autocast says: CTC multiplies T of them."""
        return functional.log_softmax(self.linear(features).float(), dim=2)

    def loss(self, features: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Negative log likelihood per character.

        ``features`` [B, T, dim], ``frames`` int64 [B], ``targets`` int64 [B, L] padded with 0,
        ``lengths`` int64 [B] -> float32 [B]. Zero, and without gradient, for lines that have
        too few frames (``corpus.frames.too_long_for_ctc``).
        """
        return character_nll(self.log_probs(features), frames, targets, lengths)

    @torch.no_grad()
    def read(self, features: Tensor, frames: Tensor, beam: int = 1, language: Fusion | None = None) -> list[Found]:
        """``features`` [B, T, dim], ``frames`` int64 [B] -> what is read of each line.

        Beam 1 without a language model takes the best path; all else is a prefix beam search. The
        confidence is the likelihood of what was read, over all its alignments, the scores are its
        factors (see ``likelihoods``): the recognizer's own, and the same measures with any search.
        """
        log_probs, frames = self.log_probs(features), frames.to(features.device)
        if beam == 1 and language is None:
            found = _best_paths(log_probs, frames)
        else:
            found = prefix_beam(log_probs, frames, beam, language)
        lengths = torch.tensor([len(classes) for classes in found])
        targets = torch.tensor(list(itertools.zip_longest(*found, fillvalue=0)), dtype=torch.int64).t()
        if not lengths.any():
            targets = targets.new_zeros(len(found), 1)
        totals, scores = likelihoods(log_probs, frames, targets.to(log_probs.device), lengths)
        confidence = (totals / lengths.clamp(min=1)).exp().tolist()
        return [
            Found(classes, c, row[: len(classes)])
            for classes, c, row in zip(found, confidence, scores.tolist(), strict=True)
        ]


def likelihoods(log_probs: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """How likely texts are, as wholes and character by character, over all their alignments.

    ``log_probs`` [B, T, classes], ``frames`` int64 [B], ``targets`` int64 [B, L >= 1] padded with 0,
    ``lengths`` int64 [B]; all texts must fit into their frames. Returns log likelihoods float64 [B]
    and scores float64 [B, L], 0 beyond ``lengths``, on the CPU.

    A score is the probability of a character given those before it: of all texts that begin with
    the characters up to it, among all that begin with those before it (prefix probabilities: Graves
    2012, section 7.5). Their product, times the probability that nothing follows, is the likelihood.
    A doubtful character has a low score, and so has the one after a character that may be missing.
    """
    # By frame, character and line. Of a frame beyond the line's end only the blank is left, and it is certain.
    beyond = (torch.arange(log_probs.shape[1], device=frames.device) >= frames[:, None])[..., None]
    picked = log_probs.gather(2, targets[:, None].expand(-1, log_probs.shape[1], -1)).double().exp_()
    characters = picked.masked_fill_(beyond, 0.0).permute(1, 2, 0).contiguous().cpu().numpy()
    blanks = log_probs[..., BLANK].double().exp_().masked_fill_(beyond[..., 0], 1.0).t().contiguous().cpu().numpy()
    texts, sizes = targets.t().cpu().numpy(), lengths.cpu().numpy()
    length, lines = texts.shape
    parted = np.ones((length, lines))
    parted[1:] = texts[1:] != texts[:-1]
    # Of the paths so far that have written the first 0, 1, ... L characters: those that end in a blank, the others.
    # Probabilities and no logarithms, which would take most of the time; scaled now and then lest they vanish.
    blank = np.zeros((length + 1, lines))
    blank[0] = 1.0
    other, both, starts = np.zeros_like(blank), blank.copy(), np.empty((length, lines))
    scale, scales, begun = np.zeros(lines), [], []
    for t, (p_blank, p_characters) in enumerate(zip(blanks, characters, strict=True)):
        if t % _SCALED_FRAMES == 0:
            top = np.maximum(both.max(axis=0), _LEAST)
            for paths in (blank, other, both):
                paths /= top
            scale = scale + np.log(top)
            scales.append(scale)
            begun.append(np.zeros_like(starts))
        np.multiply(other[:-1], parted, out=starts)
        starts += blank[:-1]
        starts *= p_characters
        begun[-1] += starts
        other[1:] *= p_characters
        other[1:] += starts
        np.multiply(both, p_blank, out=blank)
        np.add(blank, other, out=both)
    with np.errstate(divide="ignore", invalid="ignore"):  # what cannot be has the logarithm -inf
        totals = np.log(both[sizes, np.arange(lines)]) + scale
        log_begun = np.logaddexp.reduce(np.log(np.stack(begun)) + np.stack(scales)[:, None], axis=0)
        scores = np.exp(np.diff(log_begun, axis=0, prepend=0.0)).clip(max=1.0)
    scores[np.arange(length)[:, None] >= sizes] = 0.0
    return torch.from_numpy(totals), torch.from_numpy(np.ascontiguousarray(scores.T))


def character_nll(log_probs: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
    """CTC's negative log likelihood over the target's length (1 for an empty target): float32 [B].

    ``frames`` and ``lengths`` are best on the CPU, where torch's CTC needs their values.
    """
    loss = functional.ctc_loss(
        log_probs.transpose(0, 1), targets, frames, lengths, BLANK, reduction="none", zero_infinity=True
    )
    return loss / lengths.clamp(min=1).to(loss.device, non_blocking=True)


def _best_paths(log_probs: Tensor, frames: Tensor) -> list[list[int]]:
    best = log_probs.argmax(2)
    best[torch.arange(best.shape[1], device=best.device) >= frames[:, None]] = BLANK
    starts = best != BLANK
    starts[:, 1:] &= best[:, 1:] != best[:, :-1]
    rows, kept = best.cpu().numpy(), starts.cpu().numpy()
    return [row[keep].tolist() for row, keep in zip(rows, kept, strict=True)]
