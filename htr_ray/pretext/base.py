"""What every pretext task is: a view of a line, a head, a loss, and a preview for people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from htr_ray.config import PretextSettings
from htr_ray.pretext.guard import Cleaned, add_grain, clean, is_negative
from htr_ray.stream.augment import Grey

if TYPE_CHECKING:
    from torch import Tensor, nn

Target = npt.NDArray[np.int64]


class Pretext(ABC):
    """A self-supervised task on single lines (paper, section 3.2).

    A subclass names itself, sets ``classes`` and ``positions`` and writes ``make``, ``head``
    and ``caption``; guarding, polarity, loss and accuracy are shared.

    Views are made by the stream's CPU workers, which would start seconds later with torch: ``head`` and ``loss``
    import it when the trainer calls them.
    """

    name: ClassVar[str]
    classes: int
    """C: answers to choose from."""
    positions: int = 1
    """K: answers per line."""

    def __init__(self, settings: PretextSettings, height: int) -> None:
        self.settings = settings
        self.height = height

    @property
    def chance(self) -> float:
        """Accuracy of guessing, 0 to 1."""
        return 1 / self.classes

    def view(self, image: Grey, rng: np.random.Generator) -> tuple[Grey, Target]:
        """Make the task's view of a line, and its answer.

        ``image`` is uint8 ``[height, W]``, W >= 1, already augmented; light ink on dark paper
        is fine and stays so. Returns uint8 ``[height, W2]``, C-contiguous, and int64 ``[K]``.
        Depends on ``image`` and ``rng`` alone. Raises ValueError if the height is another.
        """
        if image.ndim != 2 or image.shape[0] != self.height or image.shape[1] < 1:
            raise ValueError(f"expected an image of shape [{self.height}, W], got {list(image.shape)}")
        negative = is_negative(image)
        view, target = self.make(clean(255 - image if negative else image), rng)
        view = add_grain(view, rng)
        return np.ascontiguousarray(255 - view if negative else view), target

    @abstractmethod
    def make(self, line: Cleaned, rng: np.random.Generator) -> tuple[Grey, Target]:
        """The view and answer for a cleaned line, dark ink on light paper."""

    @abstractmethod
    def head(self, dim: int) -> nn.Module:
        """A module (features ``[B, T, dim]``, frames ``[B]`` int64) -> logits ``[B, K, C]``."""

    @abstractmethod
    def caption(self, target: Target) -> str:
        """The answer in words."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each line, mean over its K answers: ``[B, K, C]``, ``[B, K]`` -> ``[B]``."""
        import torch.nn.functional as F

        return F.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none").mean(1)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Share of each line's K answers that are right: ``[B, K, C]``, ``[B, K]`` -> float ``[B]``."""
        return (logits.argmax(-1) == targets).float().mean(1)

    def preview(self, image: Grey, rng: np.random.Generator) -> list[tuple[Grey, str]]:
        """For people: the line, then its view with the answer."""
        view, target = self.view(image, rng)
        return [(image, "line"), (view, f"{self.name}: {self.caption(target)}")]
