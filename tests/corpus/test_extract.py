"""Lines cut out of drawn pages: straight, turned, bent, at the edge, with every kind of outline."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.corpus.extract import Margins, NoGeometry, Outline, Page

# A line on a page of its own, centred, so that it can be turned: baseline, and what is around the letters.
SIDE = 700
CENTRE = (SIDE / 2, SIDE / 2)
BASELINE = np.array([[150.0, 360.0], [550.0, 360.0]])
POLYGON = np.array([[140.0, 310.0], [560.0, 310.0], [560.0, 380.0], [140.0, 380.0]])
PAPER = 200


@pytest.fixture(scope="module")
def upright() -> np.ndarray:
    """``uint8 [700, 700]``: one line in the middle."""
    page = np.full((SIDE, SIDE), PAPER, np.uint8)
    cv2.putText(page, "habeatis bonum", (150, 360), cv2.FONT_HERSHEY_SCRIPT_COMPLEX, 1.45, 30, 2, cv2.LINE_AA)
    return page


def _turned(page: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Page, polygon and baseline, turned clockwise."""
    matrix = cv2.getRotationMatrix2D(CENTRE, -degrees, 1.0)
    turned = cv2.warpAffine(page, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderValue=PAPER)
    polygon, baseline = (points @ matrix[:, :2].T + matrix[:, 2] for points in (POLYGON, BASELINE))
    return turned, polygon, baseline


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two images of nearly the same size, at the best shift."""
    height, width = (min(sides) - 8 for sides in zip(one.shape, other.shape, strict=True))
    middle = one[4 : 4 + height, 4 : 4 + width]
    return float(cv2.matchTemplate(other, middle, cv2.TM_CCOEFF_NORMED).max())


@pytest.mark.parametrize("degrees", [0, 5, -5, 20, -45, 60, 90, -90, 135, 180])
def test_a_turned_line_is_cut_as_if_it_were_straight(upright: np.ndarray, degrees: float) -> None:
    straight = Page(upright).cut(Outline(polygon=POLYGON, baseline=BASELINE))
    page, polygon, baseline = _turned(upright, degrees)
    line = Page(page).cut(Outline(polygon=polygon, baseline=baseline))
    assert np.abs(np.subtract(line.shape, straight.shape)).max() <= 2
    assert _likeness(straight, line) > 0.95


def test_a_box_around_a_slope_halves_letters_a_baseline_does_not(upright: np.ndarray) -> None:
    """Why lines are straightened: at the same height the letters of the plain crop are half as large."""
    page, polygon, baseline = _turned(upright, 10)
    box = (*polygon.min(0), *polygon.max(0))
    plain = Page(page).cut(Outline(box=box))
    straight = Page(page).cut(Outline(polygon=polygon, baseline=baseline))
    assert straight.shape[0] < 0.65 * plain.shape[0]


@pytest.mark.parametrize("amplitude", [8, 25])
def test_a_bent_line_is_straightened(upright: np.ndarray, amplitude: float) -> None:
    x, y = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))
    wave = (amplitude * np.sin(np.arange(SIDE) / 110)).astype(np.float32)
    page = cv2.remap(upright, x, y - wave[None], cv2.INTER_LINEAR, borderValue=PAPER)
    columns = np.linspace(140, 560, 30)
    offset = np.interp(columns, np.arange(SIDE), wave)
    baseline = np.stack([columns, 360 + offset], axis=1)
    edges = [np.stack([columns, height + offset], axis=1) for height in (310, 380)]
    polygon = np.concatenate([edges[0], edges[1][::-1]])
    straight = Page(upright).cut(Outline(polygon=POLYGON, baseline=BASELINE))
    outlines = [Outline(polygon=polygon, baseline=baseline)]
    # Without a baseline, only a gentle bend shows in the shape of the polygon.
    outlines += [Outline(polygon=polygon)] if amplitude < 10 else []
    for outline in outlines:
        line = Page(page).cut(outline)
        assert line.shape[0] <= straight.shape[0] + 12
        # Halves, for along the wave a line is a little longer.
        for half in (np.s_[:, :200], np.s_[:, -200:]):
            assert _likeness(straight[half], line[half]) > 0.85
    plain = Page(page).cut(Outline(box=(*polygon.min(0), *polygon.max(0))))
    assert plain.shape[0] > straight.shape[0] + amplitude / 2


def test_neighbours_become_local_paper() -> None:
    """Paper that darkens from left to right, lines above and below: only the own one is left, without edges."""
    paper = np.tile(np.linspace(220, 120, 600), (300, 1))
    page = paper.astype(np.uint8)
    for y in (90, 150, 210):
        cv2.putText(page, "neighbour lines", (40, y), cv2.FONT_HERSHEY_SCRIPT_COMPLEX, 1.5, 20, 2, cv2.LINE_AA)
    # A polygon that follows a wave between the lines, higher than they are apart in places.
    columns = np.linspace(30, 520, 50)
    upper = 118 + 8 * np.sin(columns / 30)
    polygon = np.concatenate([np.stack([columns, upper], 1), np.stack([columns, upper + 36], 1)[::-1]])
    line = Page(page, margins=Margins(beside=0, strokes=0)).cut(
        Outline(polygon=polygon, baseline=np.array([[30, 150], [520, 150]]))
    )
    outside = line[:4, :].astype(float)
    expected = np.linspace(paper[0, 30], paper[0, 520], line.shape[1])
    assert np.abs(outside - expected).max() < 20
    assert line.min() < 60


def test_fill_beside_a_dark_scanner_bed() -> None:
    page = np.full((300, 600), 180, np.uint8)
    page[:, 560:] = 5
    polygon = np.array([[100, 150], [330, 100], [559, 150], [559, 180], [330, 130], [100, 180]], float)
    line = Page(page).cut(Outline(polygon=polygon, baseline=np.array([[100.0, 170], [559, 170]])))
    assert line[:10, :].min() > 140


def test_strokes_that_leave_a_tight_polygon_are_followed(upright: np.ndarray) -> None:
    ink = upright < 120
    columns, rows = np.flatnonzero(ink.any(0)), np.flatnonzero(ink.any(1))
    left, right, top, bottom = columns[0] + 6, columns[-1] - 6, rows[0] + 8, rows[-1] - 3
    tight = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
    outline = Outline(polygon=tight, baseline=BASELINE)
    kept = np.count_nonzero(Page(upright).cut(outline) < 120)
    cut = np.count_nonzero(Page(upright, margins=Margins(beside=0, strokes=0)).cut(outline) < 120)
    assert cut < 0.95 * kept and kept == pytest.approx(np.count_nonzero(ink), rel=0.04)


def test_accents_and_commas_beside_the_polygon_are_kept_neighbours_are_not() -> None:
    """Ink: the line's own bar, a comma close to its end, a dot above, dust, a neighbour's descender between both."""
    page = np.full((240, 400), PAPER, np.uint8)
    page[90:110, 40:300] = 20
    page[112:122, 304:308], page[75:79, 150:156], page[76:77, 200:202] = 21, 22, 23
    page[30:50, 40:300], page[50:88, 250:256] = 50, 51
    page[150:170, 40:300] = 52
    bars = [(35, 80, 302, 120), (35, 25, 302, 66), (35, 136, 302, 180)]
    own, *others = [
        Outline(
            polygon=np.array([[x, y], [r, y], [r, b], [x, b]], float), baseline=np.array([[x, b - 9.0], [r, b - 9]])
        )
        for x, y, r, b in bars
    ]
    line = Page(page, [own, *others]).cut(own)
    shades = [np.count_nonzero(line == shade) for shade in (20, 21, 22, 23, 50, 52)]
    assert shades == [20 * 260, 40, 24, 0, 0, 0]
    # The descender's end inside the polygon stays, more of it does not come along.
    assert 5 * 6 <= np.count_nonzero(line == 51) <= 9 * 6
    assert line.shape[0] < 58


def test_outlines_that_know_less(upright: np.ndarray) -> None:
    page = Page(upright)
    full = page.cut(Outline(polygon=POLYGON, baseline=BASELINE))
    polygon_only = page.cut(Outline(polygon=POLYGON))
    assert _likeness(full, polygon_only) > 0.99
    left, top, right, bottom = (int(edge) for edge in (*POLYGON.min(0), *POLYGON.max(0)))
    box_only = Page(upright, margins=Margins(around=0)).cut(Outline(box=(left, top, right, bottom)))
    assert np.array_equal(box_only, upright[top : bottom + 1, left : right + 1])
    assert _likeness(box_only, page.cut(Outline(box=(left, top, right, bottom)))) > 0.99
    with_box = page.cut(Outline(baseline=BASELINE, box=(left, top, right, bottom)))
    assert _likeness(full, with_box) > 0.99
    baseline_only = page.cut(Outline(baseline=BASELINE, spacing=60))
    assert _likeness(baseline_only, full) > 0.9 and 60 <= baseline_only.shape[0] <= 80


@pytest.mark.parametrize("degrees", [8, -30])
def test_slope_of_a_polygon_without_baseline(upright: np.ndarray, degrees: float) -> None:
    page, polygon, _ = _turned(upright, degrees)
    straight = Page(upright).cut(Outline(polygon=POLYGON))
    assert _likeness(straight, Page(page).cut(Outline(polygon=polygon))) > 0.9


def test_a_baseline_drawn_from_right_to_left(upright: np.ndarray) -> None:
    page = Page(upright)
    for outline in ({"polygon": POLYGON}, {"spacing": 60.0}):
        there = page.cut(Outline(baseline=BASELINE, **outline))  # type: ignore[arg-type]
        back = page.cut(Outline(baseline=BASELINE[::-1], **outline))  # type: ignore[arg-type]
        assert np.array_equal(there, back)


def test_a_tall_letter_stays_upright_a_vertical_line_is_turned() -> None:
    page = Page(np.full((600, 400), PAPER, np.uint8))
    letter = np.array([[100, 100], [130, 100], [130, 200], [100, 200]], float)
    assert np.argmax(page.cut(Outline(polygon=letter)).shape) == 0
    column = np.array([[100, 50], [140, 50], [140, 550], [100, 550]], float)
    assert np.argmax(page.cut(Outline(polygon=column)).shape) == 1
    assert np.argmax(page.cut(Outline(box=(100, 50, 140, 550))).shape) == 1


def test_at_the_edge_of_the_page(upright: np.ndarray) -> None:
    """Margins end at the page, and what is told beyond is dropped."""
    polygon = np.array([[-50, 0], [800, 0], [800, 30], [-50, 30]], float)
    line = Page(upright).cut(Outline(polygon=polygon, baseline=np.array([[-50.0, 25], [800, 25]])))
    assert line.shape[1] == SIDE and 31 <= line.shape[0] <= 36


def test_a_polygon_that_crosses_itself_has_no_holes() -> None:
    page = np.full((200, 400), PAPER, np.uint8)
    page[90:110, 40:360] = 20
    bow_tie = np.array([[30, 80], [370, 120], [370, 80], [30, 120]], float)
    loop = np.array([[30, 80], [370, 80], [370, 120], [100, 120], [100, 90], [200, 90], [200, 120], [30, 120]], float)
    baseline = np.array([[30.0, 112], [370, 112]])
    assert np.count_nonzero(Page(page).cut(Outline(polygon=bow_tie, baseline=baseline)) < 60) > 3000
    assert np.count_nonzero(Page(page).cut(Outline(polygon=loop, baseline=baseline)) < 60) > 6000


@pytest.mark.parametrize("height", [16, 64, 200])
def test_scaling_keeps_proportions(upright: np.ndarray, height: int) -> None:
    outline = Outline(polygon=POLYGON, baseline=BASELINE)
    natural, scaled = Page(upright).cut(outline), Page(upright).cut(outline, height)
    assert scaled.shape[0] == height
    assert scaled.shape[1] == pytest.approx(natural.shape[1] * height / natural.shape[0], abs=1)


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (Outline(), "none given"),
        (Outline(polygon=POLYGON[:2]), "polygon degenerate"),
        (Outline(polygon=np.repeat(POLYGON[:1], 9, axis=0)), "polygon degenerate"),
        (Outline(polygon=np.array([[10.0, 10], [300, 10], [10, 10]])), "polygon degenerate"),
        (Outline(polygon=POLYGON + 5000), "outside the page"),
        (Outline(polygon=POLYGON - 5000), "outside the page"),
        (Outline(baseline=BASELINE - 5000), "baseline degenerate or outside"),
        (Outline(baseline=np.array([[5.0, 5], [5, 5]])), "baseline degenerate"),
        (Outline(box=(10, 10, 11, 50)), "box degenerate"),
        (Outline(box=(900, 900, 950, 950)), "outside the page"),
        (Outline(polygon=POLYGON[:2], box=(50, 40, 30, 20)), "polygon and box degenerate"),
    ],
)
def test_degenerate_outlines(upright: np.ndarray, outline: Outline, message: str) -> None:
    with pytest.raises(NoGeometry, match=message):
        Page(upright).cut(outline)


def test_bad_parts_of_an_outline_do_not_cost_the_line(upright: np.ndarray) -> None:
    page = Page(upright)
    good = page.cut(Outline(polygon=POLYGON))
    zigzag = np.array([[150.0 + i % 2 * 400, 300 + i] for i in range(60)])
    elsewhere, short = BASELINE - [0, 300], BASELINE[:1] + [[0, 0], [20, 15]]
    for baseline in (zigzag, elsewhere, short, BASELINE[[0, 0]]):
        assert np.array_equal(page.cut(Outline(polygon=POLYGON, baseline=baseline)), good)
    box = (*POLYGON.min(0), *POLYGON.max(0))
    assert _likeness(page.cut(Outline(polygon=POLYGON[:2], box=box)), good) > 0.99


_NUMBER = st.one_of(st.integers(-20, 220), st.floats(-1e6, 1e6))
_POINTS = st.lists(st.tuples(_NUMBER, _NUMBER), min_size=1, max_size=12).map(lambda found: np.array(found, float))


@settings(max_examples=150)
@given(
    st.none() | _POINTS,
    st.none() | _POINTS.filter(lambda found: len(found) > 1),
    st.none() | st.tuples(*[_NUMBER] * 4),
    st.none() | st.floats(1, 1e4),
    st.tuples(st.integers(1, 150), st.integers(1, 200)),
)
def test_any_outline_gives_a_line_or_a_reason(
    polygon: np.ndarray | None,
    baseline: np.ndarray | None,
    box: tuple[float, float, float, float] | None,
    spacing: float | None,
    shape: tuple[int, int],
) -> None:
    page = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    try:
        line = Page(page).cut(Outline(polygon=polygon, baseline=baseline, box=box, spacing=spacing), 32)
    except NoGeometry as error:
        assert str(error)
        return
    assert line.dtype == np.uint8 and line.shape[0] == 32 and line.shape[1] >= 1
