"""Importers: what turns other people's files into lines. One module and one line here per format."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from htr_ray.corpus.importers import pairs, parquet
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.schema import Line, SetAside


class Importer(NamedTuple):
    """One input format."""

    read: Callable[[str, ImportOptions], Iterator[Line | SetAside]]
    """``read(uri, options)`` yields every line found, or why it was set aside."""
    layout: str
    """What the input looks like, with an example, for people."""


IMPORTERS: dict[str, Importer] = {
    "parquet": Importer(parquet.read, parquet.LAYOUT),
    "pairs": Importer(pairs.read, pairs.LAYOUT),
}
__all__ = ["IMPORTERS", "ImportOptions", "Importer"]
