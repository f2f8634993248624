"""The HTML sheet: complete, self-contained, escaped, bounded in size, and fit for a browser."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import lxml.html
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.report.sheet import LEGEND, STYLE, confusion_table, reading_rows, reading_sheet

CHROMIUM = Path("/usr/bin/chromium")
# What Chromium does by itself in the background is no business of a test.
ARGUMENTS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"


def line(name: str, truth: str, reading: str, confidence: float = 0.5) -> dict[str, Any]:
    return {"id": name, "truth": truth, "reading": reading, "confidence": confidence, "edits": 0}


def picture(width: int = 200, height: int = 50) -> bytes:
    return encode_png(np.full((height, width), 100, np.uint8))


def noise(seed: int, width: int, height: int) -> bytes:
    """The image that compresses worst."""
    return encode_png(np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))


def parse(page: str) -> Any:
    return lxml.html.document_fromstring(page)


def rows(page: str) -> list[tuple[str, str]]:
    """Truth and reading as text, of all lines."""
    texts = [cell.text_content() for cell in parse(page).iter("dd")]
    return list(zip(texts[::2], texts[1::2], strict=True))


def decoded(page: str) -> list[np.ndarray]:
    sources = [image.get("src") for image in parse(page).iter("img")]
    return [decode_grey(base64.b64decode(source.split("base64,")[1])) for source in sources]


# Letters alone: wrong blanks are shown as another character.
letters = st.text(alphabet="ab<>&\"'éב", max_size=8)


@given(st.lists(st.tuples(letters, letters), max_size=5))
def test_both_texts_stand_in_the_page_to_be_copied(pairs: list[tuple[str, str]]) -> None:
    page = reading_rows([line(str(i), truth, reading) for i, (truth, reading) in enumerate(pairs)], {})
    expected = [(truth, reading or "(nothing)") for truth, reading in pairs]
    assert (rows(f"<body>{page}</body>") if pairs else []) == expected


def test_each_error_has_an_element_of_its_own() -> None:
    page = parse(reading_rows([line("a", "Straße am", "Strrasse m")], {}))
    truth, reading = page.iter("dd")
    assert [e.text for e in truth.iter("mark")] == ["ß"] and [e.text for e in reading.iter("mark")] != []
    assert "".join(e.text for e in truth.iter("del")) == "a"
    assert not list(truth.iter("ins")) and not list(reading.iter("del"))
    # rr and one s of ss for ß
    assert len("".join(e.text for e in reading.iter("ins"))) == 2
    # a gap for each letter of the other side, so that letters stand below each other
    assert sum(len(e.get("data-gap")) for e in truth.iter("i")) == 2
    assert sum(len(e.get("data-gap")) for e in reading.iter("i")) == 1


def test_blanks_and_shapeless_characters_are_seen_where_they_are_wrong() -> None:
    page = reading_rows([line("a", "zu ihm da", "zuihm\u00a0da")], {})
    assert rows(page) == [("zu␣ihm␣da", "zuihmU+00A0da")]


def test_right_to_left_runs_so_and_has_no_gaps_to_disturb_it() -> None:
    page = parse(reading_rows([line("a", "שלום", "שלם"), line("b", "abc", "ac")], {}))
    assert [e.get("dir") for e in page.iter("dl")] == ["rtl", "ltr"]
    assert len(list(page.iter("i"))) == 1


def test_a_mark_is_never_torn_from_its_letter() -> None:
    page = parse(reading_rows([line("a", "re\u0301", "re")], {}))
    assert [e.text for e in page.iter("mark")] == ["e\u0301", "e"]


def test_html_in_names_and_texts_is_text() -> None:
    evil = "<script>alert(1)</script>"
    page = reading_sheet([line(evil, evil, evil + "x")], {evil: picture()}, evil)
    assert not list(parse(page).iter("script")) and "<script>" not in page
    assert parse(page).findtext(".//title") == evil
    assert rows(page) == [(evil, evil + "x")]


def test_the_page_needs_nothing_else() -> None:
    lines = [line(f"l{i}", "abcdef", "abcdef"[i % 6 :]) for i in range(100)]
    page = reading_sheet(lines, {found["id"]: picture() for found in lines}, "t", lines=30)
    document = parse(page)
    assert len(list(document.iter("img"))) == 30
    links = [e.get(name) for e in document.iter() for name in ("src", "href") if e.get(name)]
    assert len(links) == 30 and all(link.startswith("data:image/") for link in links)
    assert (
        not list(document.iter("link", "script", "iframe", "object")) and "url(" not in page and "@import" not in page
    )
    assert [e.text.split()[0] for e in document.iter("h2")] == ["Worst", "Best", "A", "Most"]


def test_figures_are_those_of_all_lines() -> None:
    lines = [line("a", "ab cd", "ab cx"), *(line(f"l{i}", "ab", "ab") for i in range(10))]
    text = parse(reading_sheet(lines, {}, "t", lines=3)).text_content()
    assert "CER 4.00 %, WER 8.33 % over 11 test" in text and "3 of them are shown" in text


def test_images_keep_their_shape_and_content() -> None:
    page = reading_rows([line("a", "a", "a"), line("b", "b", "b")], {"a": picture(800, 176), "b": picture(60, 20)})
    assert [image.shape for image in decoded(page)] == [(88, 400), (20, 60)]
    assert all(abs(image.astype(int) - 100).max() <= 2 for image in decoded(page))


@pytest.mark.parametrize(("images", "reason"), [({}, "no image at hand"), ({"a": b"junk"}, "not an image")])
def test_a_line_without_image_says_so(images: dict[str, bytes], reason: str) -> None:
    page = parse(reading_sheet([line("a", "x", "y")], images, "t"))
    assert f"({reason})" in page.text_content() and not list(page.iter("img"))


def test_a_sheet_of_long_lines_stays_below_three_megabytes() -> None:
    lines = [line(f"l{i}", "long " * 100, "lonk " * 100) for i in range(60)]
    page = reading_sheet(lines, {f"l{i}": noise(i, 3000, 150) for i in range(60)}, "t")
    assert len(page.encode()) < 3_000_000
    assert len(list(parse(page).iter("img"))) == 60


def test_what_does_not_fit_is_left_out_and_said() -> None:
    lines = [line(f"l{i}", "a", "b") for i in range(1500)]
    image = noise(0, 200, 32)
    page = reading_sheet(lines, {f"l{i}": image for i in range(1500)}, "t", lines=1500)
    shown = len(list(parse(page).iter("img")))
    assert 0 < shown < 1500
    assert page.count("image left out, the page would be too large") == 1500 - shown


def test_no_lines_at_all() -> None:
    assert "There are no test lines" in reading_sheet([], {}, "t")
    assert reading_rows([], {}) == ""
    assert confusion_table([]).splitlines() == ["expected\tread\tcount\tshare\texamples"]


def test_confusions_as_a_table() -> None:
    lines = [line("a", "nun  x", "mum x"), line("b\tc", "n", "m"), line("d", "q", "\t")]
    table = list(csv.DictReader(io.StringIO(confusion_table(lines)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(row["expected"], row["read"], row["count"]) for row in table] == [
        ("n", "m", "3"),
        ("␣", "∅", "1"),
        ("q", "U+0009", "1"),
    ]
    assert table[0]["examples"] == "a b c" and sum(float(row["share"]) for row in table) == pytest.approx(100)


def test_real_lines(handwriting: Path) -> None:
    part = next(pq.ParquetFile(handwriting / "lines" / "testaments.parquet").iter_batches(60)).to_pylist()
    images = {f"l{i}": row["image"]["bytes"] for i, row in enumerate(part)}
    lines = [line(f"l{i}", row["text"], row["text"][1:]) for i, row in enumerate(part)]
    page = reading_sheet(lines, images, "testaments")
    assert len(decoded(page)) == 60 and len(page.encode()) < 3_000_000
    # As wide as high as the original, to a pixel.
    for image, name in zip(decoded(page), [e.get("alt").split()[-1] for e in parse(page).iter("img")], strict=True):
        height, width = decode_grey(images[name]).shape
        assert image.shape[1] == pytest.approx(width * image.shape[0] / height, abs=width / height + 1)


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}")
def test_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    lines = [
        line("a" * 90, "Straße " * 60, "Strasse" * 60),
        line("h", "שלום 1914", "שלם 1974"),
        line("gap", "abcdef", "af"),
        line("empty", "abc", ""),
    ]
    file = tmp_path / "sheet.html"
    file.write_text(reading_sheet(lines, {"h": picture(2500, 60)}, "A title with <html>"), encoding="utf-8")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS.split())
        for width in (400, 1600):
            page = browser.new_page(viewport={"width": width, "height": 800})
            told: list[str] = []
            page.on("console", lambda message, told=told: told.append(message.text))
            page.on("pageerror", lambda error, told=told: told.append(str(error)))
            page.on("requestfailed", lambda request, told=told: told.append(request.url))
            page.goto(file.as_uri())
            assert told == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            # The last letter of truth and reading stand below each other, gaps or not.
            rights = page.evaluate("""[...document.querySelectorAll("dd")]
              .filter(cell => /^ab?c?d?e?f$/.test(cell.textContent))
              .map(cell => {
                const range = document.createRange()
                range.selectNodeContents(cell)
                return range.getBoundingClientRect().right
              })""")
            truth, reading = rights
            assert truth == pytest.approx(reading, abs=0.5)
        browser.close()


def test_the_legend_uses_the_marks_it_explains() -> None:
    for sign in ("mark", "del", "ins"):
        assert f"<{sign}>" in LEGEND and f".rd {sign}{{" in STYLE
    for decoration in ("underline 2px", "line-through", "wavy"):
        assert decoration in STYLE
