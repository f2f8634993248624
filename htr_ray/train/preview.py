"""What a pretext task made of some held-out lines, and what the model answered: for people to look at."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch

from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.pretext.base import Pretext
from htr_ray.stream.batch import BatchMaker, Recipe, unpack
from htr_ray.stream.scale import scale_line
from htr_ray.train.fit import to_tensors

LINES = 10


@torch.no_grad()
def preview(
    corpus: Corpus, recipe: Recipe, module: Any, pretext: Pretext, device: torch.device
) -> list[dict[str, Any]]:
    """The first ten readable lines of ``val``: ``line`` and ``view`` (PNG in base64), ``answer``, ``guess``, ``right``.

    ``recipe`` is that of validation (its views are always the same); ``module`` gives ``logits(batch)``;
    ``right`` is the share of a line's answers that the model found, 0 to 1. Empty where ``val`` is.
    """
    files = corpus.files("val")
    if not files:
        return []
    lines = corpus.read_row_group(files[0], 0, ("id", "image", "text")).slice(0, LINES).to_pydict()
    batch = unpack(BatchMaker(recipe)(lines, lap=0, epoch=0, total=len(lines["id"]), last=True))
    module.eval()
    tensors = to_tensors(batch, device)
    logits = module.logits(tensors).float()
    right = pretext.correct(logits, tensors["targets"]).tolist()
    guesses = logits.argmax(-1).cpu().numpy()
    shown = []
    for row in np.flatnonzero(batch.weights):
        whole = scale_line(decode_grey(lines["image"][row]), recipe.height, recipe.width_scale, recipe.max_width)
        shown.append(
            {
                "line": base64.b64encode(encode_png(whole)).decode(),
                "view": base64.b64encode(encode_png(batch.images[row, 0, :, : batch.widths[row]])).decode(),
                "answer": pretext.caption(batch.targets[row]),
                "guess": pretext.caption(guesses[row]),
                "right": right[row],
            }
        )
    return shown
