"""Importers: what turns other people's files into lines. One module and one line here per format."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from htr_ray.corpus.importers import alto, bentham, cvl, histdb, iam, page, pairs, parquet, rimes, table
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.schema import SetAside


class Importer(NamedTuple):
    """One input format."""

    units: Callable[[str, ImportOptions], Iterator[Unit | SetAside]]
    """``units(uri, options)`` cuts the input into units of work; what is seen to be useless is set aside."""
    layout: str
    """What the input looks like, with an example, for people."""


IMPORTERS: dict[str, Importer] = {
    "parquet": Importer(parquet.units, parquet.LAYOUT),
    "pairs": Importer(pairs.units, pairs.LAYOUT),
    "alto": Importer(alto.units, alto.LAYOUT),
    "page": Importer(page.units, page.LAYOUT),
    "table": Importer(table.units, table.LAYOUT),
    "iam": Importer(iam.units, iam.LAYOUT),
    "cvl": Importer(cvl.units, cvl.LAYOUT),
    "rimes": Importer(rimes.units, rimes.LAYOUT),
    "bentham": Importer(bentham.units, bentham.LAYOUT),
    "saint-gall": Importer(histdb.units_saint_gall, histdb.LAYOUT_SAINT_GALL),
    "washington": Importer(histdb.units_washington, histdb.LAYOUT_WASHINGTON),
}
__all__ = ["IMPORTERS", "ImportOptions", "Importer"]
