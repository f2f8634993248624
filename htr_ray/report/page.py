"""The report as one HTML page that needs nothing else: style and figures are in it, and no script."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from htr_ray.report.document import Document, Fragment
from htr_ray.report.sheet import LEGEND, STYLE

TEMPLATE = "page.html.j2"


def _unbroken(value: Any) -> Any:
    """Keeps a number and its percent sign on one line; leaves markup alone, and code (escaped by the template)."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("htr_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )
    return environment.get_template(TEMPLATE)


def page(document: Document) -> str:
    """Render ``document`` as HTML."""
    lines = any(isinstance(block, Fragment) for section in document.sections for block in section.blocks)
    return _template().render(
        document=document,
        # From this package, not from data: not to be escaped.
        lines_style=STYLE if lines else "",
        lines_legend=LEGEND if lines else "",
    )
