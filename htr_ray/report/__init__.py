"""The answer of a grid: tables, figures, significance, words; as a page, Markdown and CSV."""

from __future__ import annotations

from htr_ray.report.results import GridResults

FOLDER = "report"
PAGE = f"{FOLDER}/report.html"


def build(grid: GridResults) -> dict[str, bytes]:
    """The report of a grid: artifact path -> content.

    ``report/report.html`` (one self-contained page), ``report.md`` with ``figures/*.svg``, ``results.csv`` (a row per
    cell), ``trials.csv``, ``comparisons.csv`` and ``grid.yaml``; ``timeline.png`` if it is known when trials ran.
    Writers and example images come from the corpora where these can be read; the report says where not.
    """
    # Not above: tables of numbers need no plotting library, and sweep/results.py imports this package.
    from htr_ray.report.make import make

    return make(grid)
