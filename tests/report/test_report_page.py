"""The page in a real browser: Chromium, wide and narrow, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grid_on_disk import write_grid

from htr_ray.report import PAGE, build
from htr_ray.sweep.results import load_grid

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--disable-quic --no-first-run"
)
WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora, two protocols, two decoders, five pretexts, two seeds; some trials without a result."""
    folder = tmp_path_factory.mktemp("grid")
    place = write_grid(
        folder,
        "pretexts=[none,flip,sorting,rotation,jigsaw]",
        "decoders=[ctc,transformer]",
        "protocols=[semi_supervised,frozen]",
        "seeds=[0,1]",
        corpora=("wills", "a_corpus_with_a_rather_long_name"),
        lines=24,
        skip=lambda trial: "rotation/seed1" in trial.key or "frozen/transformer/1/jigsaw" in trial.key,
    )
    failed = {"finetune/wills/frozen/transformer/1/jigsaw/seed0": "<b>out of memory</b> & more " + "very" * 60}
    target = folder / "report.html"
    target.write_bytes(build(load_grid(place, failed=failed))[PAGE])
    return target


class Seen:
    """What the browser complained about or asked for while a page was open."""

    def __init__(self, page: Any) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_whole_and_fits(browser: Any, report: Path, width: int, scheme: str, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(page)
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page itself scrolls sideways"
    # Nothing sticks out but what lies in a box that scrolls.
    outside = page.evaluate(
        """width => [...document.querySelectorAll('main *')]
            .filter(e => !e.closest('.scroll, pre, svg, .unseen') && e.getBoundingClientRect().right > width + 1)
            .map(e => e.outerHTML.slice(0, 120))""",
        width,
    )
    assert outside == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    sizes = page.evaluate(
        "[...document.querySelectorAll('td, th, p, li')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 13
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.close()


def test_wide_tables_scroll_in_their_own_box(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.goto(report.as_uri())
    boxes = page.evaluate(
        """[...document.querySelectorAll('.scroll')].filter(box => box.offsetParent)
            .map(box => [box.scrollWidth > box.clientWidth, getComputedStyle(box).overflowX, box.tabIndex])"""
    )
    assert any(wide for wide, _, _ in boxes)
    assert all(overflow == "auto" and tab == 0 for _, overflow, tab in boxes)
    page.close()


def test_links_lead_somewhere_and_ids_are_unique(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    links = page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert len(links) > 8
    for link in links:
        assert link.startswith("#") and page.query_selector(f"[id='{link[1:]}']"), link
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    page.click("nav a:has-text('Cost')")
    assert page.evaluate("document.getElementById('cost').getBoundingClientRect().top") < 900
    referred = page.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')].map(e => e.getAttribute('aria-labelledby'))"
    )
    assert set(referred) <= set(ids)
    page.close()


def test_the_page_can_be_heard(browser: Any, report: Path) -> None:
    """Headings in order, every table with a caption and scopes, every picture with words, one language."""
    page = browser.new_page()
    page.goto(report.as_uri())
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)")
    assert page.evaluate("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert page.evaluate("[...document.querySelectorAll('tr')].every(tr => tr.querySelector('th'))")
    assert page.evaluate("[...document.images].every(image => image.alt)")
    assert page.evaluate("[...document.querySelectorAll('figure svg')].every(s => s.getAttribute('aria-label'))")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title() == "Report of the grid demo"
    # A mark is said in words too.
    marks = page.evaluate("[...document.querySelectorAll('.mark')].map(m => m.nextElementSibling.textContent)")
    assert marks and all("significantly" in words for words in marks)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_background(browser: Any, report: Path, scheme: str) -> None:
    """WCAG AA: 4.5 to 1, for what is text in the page's own colours."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(report.as_uri())
    lowest = page.evaluate(
        """() => {
          const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
          const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
            return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b) };
          const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!/, 0\\)$/.test(c)) return c } return 'rgb(255, 255, 255)' };
          const texts = document.querySelectorAll('p, li, td, th, h2, .detail, .muted, .mark, a, summary, code');
          return Math.min(...[...texts]
            .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
              return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) })) }"""
    )
    assert lowest >= 4.5
    page.close()


def test_texts_of_data_are_no_markup(browser: Any, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    assert "<b>out of memory</b> & more" in page.text_content("#unfinished")
    assert "drawn <by> a test & more" in page.inner_text("#data-wills")
    page.close()


def test_the_page_prints(browser: Any, report: Path, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.close()
