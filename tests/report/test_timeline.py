"""The picture of trials over time, and how well the places were used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from htr_ray.report.attempts import Bar, Timeline, in_words, joined, use_of
from htr_ray.report.figures import png, svg
from htr_ray.report.timeline import _lanes, timeline_figure


def bar(began: float, ended: float, start: float = 0.0, end: float = 0.0, **other: object) -> Bar:
    """An attempt on one of two places that starts up for ``start`` seconds, and is tested for ``end``."""
    made = Bar("flip", "finetune", began, ended, began + start, ended - end, 0.5, "10.0.0.1", "done")
    return replace(made, **other)  # type: ignore[arg-type]


def test_use_is_the_share_of_all_places_over_time() -> None:
    # Two places for 100 s: one full, of which 80 s training; one half empty, all of it training, from 50 on.
    found = use_of(Timeline([bar(0, 100, 15, 5), bar(50, 100)], [(-3, 110)]))
    assert found is not None
    assert found.seconds == 100
    assert found.busy == pytest.approx(0.75)
    assert found.until_last == pytest.approx(0.5)
    assert found.training == pytest.approx((80 + 50) / 200)
    told = in_words(Timeline([bar(0, 100, 15, 5), bar(50, 100)], [(-3, 110)]))
    assert "places in use 75.0 % (50.0 % until the last start), training 65.0 %" in told


def test_the_night_between_two_drivers_is_no_waste() -> None:
    day = [bar(1000, 1100), bar(1000, 1100)]
    next_day = [bar(90_000, 90_050), bar(90_000, 90_100)]
    made = Timeline([*day, *next_day], [(990, 1101), (50_000, 50_001), (89_990, 90_101)])
    bars, joints = joined(made)
    assert joints == [100]
    assert max(one.ended for one in bars) == 200
    found = use_of(made)
    assert found is not None and found.busy == pytest.approx(350 / 400)


def test_an_attempt_that_never_trained_is_drawn_all_the_same() -> None:
    lost = bar(0, 10, trained_from=None, trained_to=None, outcome="failed")
    found = use_of(Timeline([lost], [(0, 10)]))
    assert found is not None and found.training == 0 and found.busy == 0.5
    assert timeline_figure(Timeline([lost], [(0, 10)])) is not None


def test_nothing_has_run() -> None:
    empty = Timeline([], [(0, 10)])
    assert timeline_figure(empty) is None and use_of(empty) is None
    assert in_words(empty) == "No trial has run."
    assert timeline_figure(Timeline([bar(5, 5)], [(0, 10)])) is None


SPANS = st.tuples(st.floats(0, 1000), st.floats(0, 100), st.sampled_from("ab"))


@settings(max_examples=50)
@given(st.lists(SPANS, min_size=1, max_size=30))
def test_bars_on_one_lane_never_overlap_and_stay_on_their_node(spans: list[tuple[float, float, str]]) -> None:
    bars = sorted((bar(began, began + length, node=node) for began, length, node in spans), key=lambda one: one.began)
    lanes = _lanes(bars)
    for one, lane in zip(bars, lanes, strict=True):
        for other, place in zip(bars, lanes, strict=True):
            if one is not other and lane == place:
                assert one.node == other.node
                assert one.ended <= other.began + 1e-5 or other.ended <= one.began + 1e-5
    assert set(lanes) == set(range(max(lanes) + 1))


def test_all_kinds_are_in_the_legend_and_names_on_the_bars() -> None:
    bars = [
        bar(0, 100, 10, 5, stage="pretrain", label="sorting $x$"),
        bar(0, 60, 10, 0, outcome="halved", node="10.0.0.2"),
        bar(60, 100, 10, 0, outcome="failed", node="10.0.0.2"),
    ]
    figure = timeline_figure(Timeline(bars, [(0, 40), (40, 100)]))
    assert figure is not None
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    for word in ("pre-training", "fine-tuning", "stopped early", "ended in a fault", "start-up, test, saving"):
        assert word in texts
    assert "sorting $x$" in [text.get_text() for text in figure.axes[0].texts]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["10.0.0.1", "10.0.0.2"]
    assert png(figure).startswith(b"\x89PNG")


def test_thousands_of_attempts_are_no_megabytes_of_drawing() -> None:
    bars = [bar(60 * (n // 100), 60 * (n // 100) + 55, 5, 3, share=0.01) for n in range(5000)]
    figure = timeline_figure(Timeline(bars, [(0, 3000)]))
    assert figure is not None
    drawn = svg(figure, "many")
    assert len(drawn) < 1_000_000
    assert etree.fromstring(drawn).tag.endswith("svg")
