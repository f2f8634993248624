"""Texts written into ALTO and PAGE: the importers read them back, and nothing else of the file changes."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from htr_ray.corpus.importers import alto, page
from htr_ray.corpus.importers.layout import LayoutError
from htr_ray.corpus.importers.pages import Kind
from htr_ray.transcribe.page_xml import Written, write_texts

PARSE = {"alto": alto.parse, "page": page.parse}
# Texts that a line of writing may be, and that both importers give back as they are.
LINES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text and not text.endswith("\u00ad")
)


def _real(handwriting: Path) -> list[tuple[Kind, Path]]:
    pages = handwriting / "pages"
    return [("alto", path) for path in sorted(pages.glob("alto_*/**/*.xml"))] + [
        ("page", path) for path in sorted(pages.glob("page*/**/*.xml"))
    ]


def test_real_pages(handwriting: Path) -> None:
    files = _real(handwriting)
    assert len(files) == 9
    for kind, path in files:
        data = path.read_bytes()
        before = PARSE[kind](data)
        written = {i: Written(f'„{i}" <ſ> & \u05e9', 0.5) for i in range(len(before.lines))}
        out = write_texts(kind, data, written)
        after = PARSE[kind](out)
        assert [line.text for line in after.lines] == [written[i].text for i in range(len(before.lines))]
        assert _canonical(kind, out) == _canonical(kind, data), path
        assert _bytes(kind, out) == _bytes(kind, data), path
        if kind == "page":
            assert out.count(b'<TextEquiv conf="0.5000">') == len(before.lines)
        # With the old texts again, the file is the old one but for the confidence.
        again = write_texts(kind, out, {i: Written(line.text or "", 0.5) for i, line in enumerate(before.lines)})
        assert [line.text for line in PARSE[kind](again).lines] == [line.text for line in before.lines]
        for one, other in zip(before.lines, after.lines, strict=True):
            assert one.id == other.id and one.box == other.box
            assert (one.baseline is None) == (other.baseline is None)


def _canonical(kind: Kind, data: bytes) -> bytes:
    """Canonical XML without what may change."""
    root = etree.fromstring(data)
    for string in root.iter("{*}String"):
        for name in ("CONTENT", "WC"):
            string.attrib.pop(name, None)
    for equiv in root.iter("{*}TextEquiv"):
        equiv.attrib.pop("conf", None)
        for unicode in equiv.iter("{*}Unicode"):
            unicode.text = ""
    return etree.tostring(root.getroottree(), method="c14n", with_comments=True)


def _bytes(kind: Kind, data: bytes) -> bytes:
    """The file without what may change."""
    if kind == "alto":
        return re.sub(rb' WC="[^"]*"', b"", re.sub(rb'CONTENT="[^"]*"', b"", data))
    return re.sub(rb' conf="[^"]*"', b"", re.sub(rb"<Unicode>[^<]*</Unicode>|<Unicode ?/>", b"", data))


# --- ALTO ---------------------------------------------------------------------------------------------------

ALTO = (
    '<?xml version="1.0"?>\n<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Layout><Page WIDTH="9" HEIGHT="9">'
    "<PrintSpace><TextBlock>{}</TextBlock></PrintSpace></Page></Layout></alto>"
)
BOX = 'HPOS="1" VPOS="2" WIDTH="3.5" HEIGHT="4"'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # one String: only its text and confidence; what an older reading said of itself goes
        (
            f'<TextLine {BOX}><String ID="s" STYLEREFS="f" HPOS="7" CONTENT="old" WC="0.1" CC="9 9 9"'
            ' SUBS_TYPE="HypPart1" SUBS_CONTENT="older"><Shape/><Glyph/><ALTERNATIVE>o</ALTERNATIVE></String>'
            "</TextLine>",
            f'<TextLine {BOX}><String ID="s" STYLEREFS="f" HPOS="7" CONTENT="new" WC="0.5000"><Shape/></String>'
            "</TextLine>",
        ),
        # words: one String for the line, where the line is
        (
            f'<TextLine {BOX}>\n <Shape/>\n <String ID="s" HPOS="7" VPOS="7" WIDTH="1" HEIGHT="1" CONTENT="o"/>\n'
            ' <SP/>\n <String CONTENT="ld"/><HYP CONTENT="-"/>\n</TextLine>',
            f'<TextLine {BOX}>\n <Shape/>\n <String ID="s" HPOS="1" VPOS="2" WIDTH="3.5" HEIGHT="4" CONTENT="new"'
            ' WC="0.5000"/>\n</TextLine>',
        ),
        # none
        (
            f"<TextLine {BOX}>\n  <Shape/>\n</TextLine>",
            f'<TextLine {BOX}>\n  <Shape/>\n  <String CONTENT="new" WC="0.5000" {BOX}/>\n</TextLine>',
        ),
        (
            f"<TextLine {BOX} />",
            f'<TextLine {BOX}><String CONTENT="new" WC="0.5000" {BOX}/></TextLine>',
        ),
        # a line of which only the polygon is known
        (
            '<TextLine><Shape><Polygon POINTS="1,2 4,2 4,6"/></Shape></TextLine>',
            '<TextLine><Shape><Polygon POINTS="1,2 4,2 4,6"/></Shape>'
            '<String CONTENT="new" WC="0.5000" HPOS="1" VPOS="2" WIDTH="3" HEIGHT="4"/></TextLine>',
        ),
    ],
)
def test_alto_lines(line: str, expected: str) -> None:
    out = write_texts("alto", ALTO.format(line).encode(), {0: Written("new", 0.5)})
    assert out.decode() == ALTO.format(expected)


# --- PAGE ---------------------------------------------------------------------------------------------------

PAGE = (
    '<p:PcGts xmlns:p="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"><p:Page imageWidth="9"'
    ' imageHeight="9"><p:TextRegion id="r">{}</p:TextRegion></p:Page></p:PcGts>'
)


def _equiv(text: str, given: str = "") -> str:
    return f"<p:TextEquiv{given}><p:Unicode>{text}</p:Unicode></p:TextEquiv>"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"<p:TextLine><p:Coords/>{_equiv('old')}</p:TextLine>", "<p:TextLine><p:Coords/>{}</p:TextLine>"),
        # the main one of several, and only that
        (
            "<p:TextLine>" + _equiv("b", ' index="1"') + " " + _equiv("a", ' index="0" conf="0.1"') + "</p:TextLine>",
            "<p:TextLine> " + _equiv("new", ' index="0" conf="0.5000"') + "</p:TextLine>",
        ),
        # words keep their outlines and lose their texts; what the schema wants behind the text stays behind it
        (
            f"<p:TextLine><p:Coords/><p:Word id='w'><p:Coords/><p:Glyph>{_equiv('o')}</p:Glyph>{_equiv('old')}"
            "</p:Word><p:TextStyle/></p:TextLine>",
            "<p:TextLine><p:Coords/><p:Word id='w'><p:Coords/><p:Glyph></p:Glyph></p:Word>{}<p:TextStyle/>"
            "</p:TextLine>",
        ),
        ("<p:TextLine/>", "<p:TextLine>{}</p:TextLine>"),
        (
            "<p:TextLine>\n <p:Coords/>\n <p:TextEquiv/>\n</p:TextLine>",
            "<p:TextLine>\n <p:Coords/>\n {}\n</p:TextLine>",
        ),
        (
            "<p:TextLine><p:TextEquiv><p:PlainText>o</p:PlainText><p:Unicode/></p:TextEquiv></p:TextLine>",
            '<p:TextLine><p:TextEquiv conf="0.5000"><p:PlainText>new</p:PlainText><p:Unicode>new</p:Unicode>'
            "</p:TextEquiv></p:TextLine>",
        ),
    ],
)
def test_page_lines(line: str, expected: str) -> None:
    out = write_texts("page", PAGE.format(line).encode(), {0: Written("new", 0.5)})
    assert out.decode() == PAGE.format(expected.format(_equiv("new", ' conf="0.5000"')))


def test_the_text_of_a_region_is_that_of_its_lines() -> None:
    lines = [f"<p:TextLine>{_equiv(text)}</p:TextLine>" for text in ("a", "b", "c")]
    data = PAGE.format("".join(lines) + _equiv("a\nb\nc", ' conf="1"')).encode()
    out = write_texts("page", data, {0: Written("A", 1), 2: Written("C", 1)})
    new = [_equiv("A", ' conf="1.0000"'), _equiv("b"), _equiv("C", ' conf="1.0000"')]
    expected = "".join(f"<p:TextLine>{text}</p:TextLine>" for text in new) + _equiv("A\nb\nC")
    assert out.decode() == PAGE.format(expected)


def test_lines_that_have_a_text_may_keep_it() -> None:
    for kind, template, old in (
        ("alto", ALTO, '<String CONTENT="old"/>'),
        ("page", PAGE, _equiv("old")),
    ):
        prefix = "p:" if kind == "page" else ""
        lines = f"<{prefix}TextLine>{old}</{prefix}TextLine><{prefix}TextLine/>"
        texts = {0: Written("new", 1), 1: Written("new", 1)}
        kept = write_texts(kind, template.format(lines).encode(), texts, "keep")
        assert [line.text for line in PARSE[kind](kept).lines] == ["old", "new"]
        replaced = write_texts(kind, template.format(lines).encode(), texts)
        assert [line.text for line in PARSE[kind](replaced).lines] == ["new", "new"]


# --- any text, any damage -----------------------------------------------------------------------------------


@given(LINES, st.floats(0, 1))
def test_any_line_of_text_is_read_back(text: str, confidence: float) -> None:
    for kind, template, line in (("alto", ALTO, "<TextLine/>"), ("page", PAGE, "<p:TextLine/>")):
        out = write_texts(kind, template.format(line).encode(), {0: Written(text, confidence)})
        assert PARSE[kind](out).lines[0].text == text
        assert write_texts(kind, out, {0: Written(text, confidence)}) == out


@pytest.mark.parametrize("kind", ["alto", "page"])
def test_damaged_files_are_refused_or_written(kind: Kind, handwriting: Path) -> None:
    data = sorted((path for one, path in _real(handwriting) if one == kind), key=lambda path: path.stat().st_size)[1]
    sound = data.read_bytes()
    outcomes = {"written": 0, "refused": 0}
    for seed in range(120):
        damaged = _damaged(sound, random.Random(seed))
        try:
            before = PARSE[kind](damaged)
            out = write_texts(kind, damaged, {i: Written("new", 1) for i in range(len(before.lines))})
        except LayoutError as error:
            assert len(error.args) == 2
            outcomes["refused"] += 1
            continue
        assert [line.text for line in PARSE[kind](out).lines] == ["new"] * len(before.lines)
        outcomes["written"] += 1
    assert min(outcomes.values()) > 10, outcomes


def _damaged(xml: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        start = chance.randrange(len(xml))
        return xml[:start] + bytes(chance.randrange(256) for _ in range(2)) + xml[start + chance.choice([0, 2, 50]) :]
    root = etree.fromstring(xml)
    for _ in range(3):
        element = chance.choice(list(root.iter("{*}TextLine", "{*}String", "{*}TextEquiv", "{*}Unicode", "{*}Shape")))
        parent = element.getparent()
        match chance.randrange(4):
            case 0:
                parent.remove(element)
            case 1:
                parent.append(etree.fromstring(etree.tostring(element)))
            case 2:
                # Lines inside of lines, and texts inside of texts.
                chance.choice(list(root.iter("{*}TextLine"))).append(etree.fromstring(etree.tostring(element)))
            case _:
                element.attrib.clear()
    return etree.tostring(root)
