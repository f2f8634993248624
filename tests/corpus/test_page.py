"""Importer ``page``: every version of the format, which text counts, and damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_trees import FUZZ, HEIGHT, TEXTS, WIDTH, check_accounts, check_damaged, damage, draw_page, read, write_image

from htr_ray.corpus.importers import page
from htr_ray.corpus.importers.layout import LayoutError
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.pages import PageUnit
from htr_ray.corpus.schema import Imported, SetAside
from htr_ray.errors import UserError

_BASE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/"
_DATES = [
    "2009-03-16",
    "2010-01-12",
    "2010-03-19",
    "2013-07-15",
    "2016-07-15",
    "2017-07-15",
    "2018-07-15",
    "2019-07-15",
]


def _coords(row: int = 0) -> str:
    top, bottom = 60 * row + 25, 60 * row + 70
    return f'<Coords points="35,{top} 235,{top} 235,{bottom} 35,{bottom}"/>'


def _text(text: str, index: int | None = None) -> str:
    told = "" if index is None else f' index="{index}"'
    return f"<TextEquiv{told}><Unicode>{text}</Unicode></TextEquiv>"


def _line(row: int = 0, inside: str | None = None) -> str:
    height = 60 * (row + 1)
    inside = _text(TEXTS[row % 3]) if inside is None else inside
    return f'<TextLine id="l{row}">{_coords(row)}<Baseline points="40,{height} 230,{height}"/>{inside}</TextLine>'


def _page(*lines: str, image: str = "p.png", namespace: str | None = _BASE + _DATES[-1]) -> bytes:
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<PcGts{xmlns}><Metadata><Creator>t</Creator></Metadata>'
        f'<Page imageFilename="{image}" imageWidth="{WIDTH}" imageHeight="{HEIGHT}">'
        f'<TextRegion id="r">{"".join(lines)}</TextRegion></Page></PcGts>'
    ).encode()


def _one(root: Path, data: bytes) -> Path:
    write_image(root / "p.png")
    (root / "p.xml").write_bytes(data)
    return root


@pytest.mark.parametrize("namespace", [None, *(_BASE + date for date in _DATES)])
def test_versions(namespace: str | None) -> None:
    layout = page.parse(_page(_line(0), _line(1), namespace=namespace))
    assert [(line.id, line.text) for line in layout.lines] == [("l0", TEXTS[0]), ("l1", TEXTS[1])]
    assert (layout.image, layout.width, layout.height) == ("p.png", WIDTH, HEIGHT)
    first = layout.lines[0]
    assert first.baseline is not None and first.baseline.tolist() == [[40, 60], [230, 60]]
    assert first.polygon is not None and first.polygon.tolist() == [[35, 25], [235, 25], [235, 70], [35, 70]]


def test_points_as_elements() -> None:
    """Until 2010."""
    inside = '<Coords><Point x="1" y="2"/><Point y="4" x="3"/><Point x="5" y="7"/></Coords>'
    (line,) = page.parse(_page(f"<TextLine>{inside}</TextLine>")).lines
    assert line.polygon is not None and line.polygon.tolist() == [[1, 2], [3, 4], [5, 7]] and line.id == "line-1"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (_text("only"), "only"),
        (_text("second", 1) + _text("main", 0), "main"),
        (_text("guess", 3) + _text("main", 1), "main"),
        (_text("plain") + _text("other", 1), "plain"),
        (_text(" white \n"), "white"),
        ("<TextEquiv><PlainText>p</PlainText><Unicode>u</Unicode></TextEquiv>", "u"),
        (_text("a &amp; ⁊ ꝓ"), "a & ⁊ ꝓ"),
        (f"<Word>{_text('two')}</Word><Word>{_text('words')}</Word>", "two words"),
        (f"<Word>{_text('two')}</Word><Word>{_text('words')}</Word>{_text('line')}", "line"),
        (f"<Word>{_text('two')}</Word><Word>{_text('words')}</Word>{_text('')}", "two words"),
        (f"<Word>{_text('no', 2)}{_text('yes', 1)}<Glyph>{_text('y')}</Glyph></Word><Word/>", "yes"),
        ("<TextEquiv/>", None),
        (_text(""), None),
        ("", None),
    ],
)
def test_which_text_counts(inside: str, text: str | None) -> None:
    (line,) = page.parse(_page(_line(inside=inside))).lines
    assert line.text == text


def test_lines_of_tables_and_nested_regions() -> None:
    nested = f"</TextRegion><TableRegion><TextRegion>{_line(1)}<TextRegion>{_line(2)}</TextRegion></TextRegion>"
    data = _page(_line(0), nested + "</TableRegion><TextRegion>")
    assert [(line.id, line.region) for line in page.parse(data).lines] == [("l0", 0), ("l1", 1), ("l2", 2)]


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"<PcGts><Page></PcGts>", "broken XML", "line 1, column 22: Opening and ending tag mismatch"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><PcGts/>", "broken XML", "entities"),
        (b"<alto/>", "not PAGE XML", "<alto>"),
    ],
)
def test_not_page(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(LayoutError) as caught:
        page.parse(data)
    assert caught.value.args[0] == reason and detail in caught.value.args[1]


def test_geometry_that_is_missing_or_wrong(tmp_path: Path) -> None:
    """Baselines alone do, and words' boxes; nothing at all, or a place off the page, does not."""
    word = f'<Word><Coords points="40,145 220,145 220,190 40,190"/>{_text("word")}</Word>'
    lines = [
        f'<TextLine id="a"><Baseline points="40,60 230,60"/>{_text("a")}</TextLine>',
        f'<TextLine id="b"><Coords points="1,2"/>{word}</TextLine>',
        f'<TextLine id="c">{_text("c")}</TextLine>',
        f'<TextLine id="d"><Coords points="900,900 950,900 950,950"/>{_text("d")}</TextLine>',
        f'<TextLine id="e"><Coords points="NaN,1 3,3 4,9"/>{_text("e")}</TextLine>',
        _line(1, _text("")),
    ]
    found, aside = read(page.units, _one(tmp_path, _page(*lines)))
    assert {id_: line.text for id_, line in found.items()} == {"p/a": "a", "p/b": "word"}
    assert {id_: item.reason for id_, item in aside.items()} == {
        **dict.fromkeys(("p/c", "p/d", "p/e"), "no geometry"),
        "p/l1": "empty text",
    }


def test_the_layout_of_transkribus(tmp_path: Path) -> None:
    for document in ("anna", "bert"):
        write_image(tmp_path / document / "0001.png")
        (tmp_path / document / "page").mkdir()
        (tmp_path / document / "page" / "0001.xml").write_bytes(_page(_line(), image="0001.png"))
        (tmp_path / document / "mets.xml").write_bytes(b"<mets/>")
    lines, aside = read(page.units, tmp_path)
    assert {(id_, line.page, line.writer) for id_, line in lines.items()} == {
        ("anna/page/0001/l0", "anna/page/0001", "anna"),
        ("bert/page/0001/l0", "bert/page/0001", "bert"),
    }
    assert {item.reason for item in aside.values()} == {"not PAGE XML"} and len(aside) == 2
    lines, _ = read(page.units, tmp_path / "anna" / "page")
    assert {(id_, line.writer) for id_, line in lines.items()} == {("0001/l0", None)}


def test_no_page_file(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"<alto/>")
    with pytest.raises(UserError, match="none of 1 XML files is PAGE .*; try --format alto"):
        read(page.units, tmp_path)


def test_units_with_a_split(tmp_path: Path) -> None:
    """As other importers make them."""
    _one(tmp_path, _page(_line()))
    unit = PageUnit(str(tmp_path / "p.xml"), str(tmp_path / "p.png"), "page", "n", "w", "test", ImportOptions())
    (item,) = unit.lines()
    assert isinstance(item, Imported) and item.split == "test"
    assert (item.line.id, item.line.page, item.line.writer, item.line.text) == ("n/l0", "n", "w", TEXTS[0])
    missing = PageUnit(unit.xml, None, "page", "n", None, None, ImportOptions())
    (aside,) = missing.lines()
    assert isinstance(aside, SetAside) and (aside.id, aside.reason) == ("n", "page image missing")


# --- damaged and real files -------------------------------------------------------------------------------

_WORDS = f"<Word id='w'>{_coords(2)}{_text('one')}</Word><Word>{_coords(2)}{_text('two')}</Word>"
_SOUND = _page(_line(0), _line(1, _text("other", 1) + _text(TEXTS[1], 0)), _line(2, _WORDS))


def test_damaged_files(tmp_path: Path) -> None:
    """Nothing but lines and reasons, and every line of the file among them."""
    _one(tmp_path, _SOUND)
    write_image(tmp_path / "sound.png")
    (tmp_path / "sound.xml").write_bytes(_page(_line(), image="sound.png"))
    check_damaged(page.units, tmp_path, _SOUND)


def test_damaged_real_files(tmp_path: Path, handwriting: Path) -> None:
    source = (handwriting / "pages" / "page2019_iforal" / "foral_de_abrantes_1217" / "1.xml").read_bytes()
    options: dict[str, Any] = {"writer": None, "split": None, "options": ImportOptions(height=16)}
    image, broken = write_image(tmp_path / "p.png", draw_page()[:, :180]), tmp_path / "p.xml"
    for seed in range(max(FUZZ // 50, 1)):
        data = damage(source, seed)
        broken.write_bytes(data)
        check_accounts(list(PageUnit(str(broken), str(image), "page", "p", **options).lines()), data)


def test_real_pages(handwriting: Path) -> None:
    lines, aside = read(page.units, handwriting / "pages" / "page2019_iforal")
    assert len(lines) == 219 and not aside
    assert {line.writer for line in lines.values()} == {"foral_de_abrantes_1217", "foral_de_castreicao_1217"}
    assert {line.page for line in lines.values()} == {"foral_de_abrantes_1217/1", "foral_de_castreicao_1217/2"}
    assert all(line.text and 25 <= line.height <= 110 for line in lines.values())
