"""The Markdown twin, as a Markdown parser understands it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from markdown_it import MarkdownIt

from htr_ray.report.document import Bullets, Code, Document, Figure, Paragraph, Section, Table, Value
from htr_ray.report.markdown import escaped, markdown

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")


def rendered(text: str) -> html.HtmlElement:
    return html.fromstring(f"<div>{PARSER.render(text)}</div>")


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="&"), min_size=1).filter(str.strip)
)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    shown = rendered(f"x {escaped(text)} x").text_content()
    assert " ".join(shown.split()) == " ".join(f"x {text} x".split())


@pytest.mark.parametrize("text", ["# no heading", "- no item", "1. no item", "> no quote", "+ no item", "a | b", "*a*"])
def test_no_markup_at_the_start_of_a_line(text: str) -> None:
    shown = rendered(escaped(text))
    assert shown.text_content().strip() == text
    assert [element.tag for element in shown] == ["p"]


def test_blocks() -> None:
    table = Table(
        "t",
        "Errors | all",
        ["decoder", "none", "flip"],
        [[Value("ctc"), Value("10.0", "[9.0, 11.0]"), Value("8.0", "[7, 9]", strong=True, mark="▼", meaning="lower")]],
        legend="Bold: lowest.",
    )
    blocks = [
        Paragraph("Yes.", "Does it help?", ["one", "two"]),
        Bullets(["a * b", "c"]),
        table,
        Figure("curve", "A curve", "<svg></svg>"),
        Code("a: 1\n```\n", "yaml", "grid.yaml"),
    ]
    text = markdown(Document("Report of x_y", [Section("s", "Results", blocks)], "htr-ray 1"))
    shown = rendered(text)
    assert shown.findtext("h1") == "Report of x_y"
    assert shown.findtext("h2") == "Results"
    assert [li.text_content().strip() for li in shown.iter("li")] == ["one", "two", "a * b", "c"]
    assert [th.text_content() for th in shown.iter("th")] == ["decoder", "none", "flip"]
    cells = list(shown.iter("td"))
    assert [td.text_content() for td in cells] == ["ctc", "10.0 [9.0, 11.0]", "8.0▼ [7, 9]"]
    assert cells[2].findtext("strong") == "8.0"
    (image,) = shown.iter("img")
    assert image.attrib == {"src": "figures/curve.svg", "alt": "A curve"}
    (code,) = shown.iter("code")
    assert code.text == "a: 1\n```\n"
