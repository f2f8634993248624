"""Which lines keep their label when only a fraction does."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from htr_ray.errors import UserError


def label_subset(ids: Sequence[str], fraction: float, corpus_name: str, seed: int) -> set[str]:
    """Choose the labelled lines of a label fraction: ``fraction`` of ``ids``, at least one.

    The subset depends on the set of ids, the corpus's name and the seed alone, and is contained in that of
    every larger fraction: lines are ranked by a hash and the first ones taken. Raises UserError when
    ``fraction`` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"label_fractions: {fraction} is not in (0, 1]; write 0.05 for 5 %")
    unique = set(ids)
    if not unique:
        return set()
    count = max(1, int(fraction * len(unique) + 0.5))
    if count == len(unique):
        return unique
    return set(sorted(unique, key=lambda id_: (_rank(id_, corpus_name, seed), id_))[:count])


def _rank(id_: str, corpus_name: str, seed: int) -> bytes:
    key = "\0".join((str(seed), corpus_name, id_)).encode("utf-8", "surrogatepass")
    return blake2b(key, digest_size=16).digest()
