"""How the page writes text."""

from __future__ import annotations

from lxml import html

from htr_ray.report.document import Code, Document, Paragraph, Section
from htr_ray.report.page import page


def test_no_line_ends_before_a_percent_sign_but_code_is_copied_as_it_is() -> None:
    code = "note: 5 % of <all> & more\n"
    shown = Document("t", [Section("s", "S", [Paragraph("a CER of 5 %"), Code(code, "yaml", "grid.yaml")])], "x")
    found = html.fromstring(page(shown))
    assert [p.text for p in found.iter("p")][0] == "a CER of 5\u00a0%"
    assert [block.text for block in found.iter("code")] == [code]
