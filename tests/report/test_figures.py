"""Figures: they draw what they are given, and fit together into one page."""

from __future__ import annotations

import io
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from lxml import etree
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from htr_ray.report import figures as module
from htr_ray.report.figures import Curve, Point, cost, curves, label_efficiency, learning_curves, pretext_gain, styles

NONE = Curve("none", [100, 200, 1000], [60.0, 40.0, 20.0], [55.0, 38.0, 19.0], [66.0, 43.0, 22.0])
SORTING = Curve("sorting", [1000, 100, 200], [18.0, 50.0, 33.0])
POINTS = [Point("flip", 50.0, 4.0, 2.0, 6.0, "5 %"), Point("sorting", 30.0, -1.0), Point("flip", 60.0, 3.0)]
FINETUNED = {
    "stage": "finetune",
    "decoder": "ctc",
    "label_fraction": 0.05,
    "protocol": "semi_supervised",
    "lines": 1235,
    "test_cer": 12.34,
    "best_epoch": 2,
    "history": [
        {"epoch": 0, "train_loss": 3.0, "val_cer": 90.0, "val_wer": 100.0},
        {"epoch": 1, "train_loss": float("nan"), "val_cer": 50.0, "val_wer": 80.0},
        {"epoch": 2, "train_loss": 1.0, "val_cer": 30.0, "val_wer": None},
    ],
}
PRETRAINED = {
    "stage": "pretrain",
    "pretext": "flip",
    "chance": 25.0,
    "lines": 900,
    "history": [
        {"epoch": i, "train_loss": 2.0 - i, "val_loss": 2.1 - i, "val_accuracy": 30.0 + 40 * i} for i in (0, 1)
    ],
}


@pytest.fixture()
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures as they are when they are made into files."""
    kept: list[Figure] = []
    for name in ("png", "svg"):
        save = getattr(module, name)
        monkeypatch.setattr(module, name, lambda figure, *rest, save=save: kept.append(figure) or save(figure, *rest))
    return kept


def lines(axes: Axes) -> dict[Any, tuple[list[float], list[float]]]:
    """Lines with a legend entry: label to x and y."""
    named = [found for found in axes.get_lines() if not str(found.get_label()).startswith("_")]
    return {found.get_label(): (list(found.get_xdata()), list(found.get_ydata())) for found in named}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def svg(text: str) -> Any:
    assert text.startswith("<svg")
    return etree.fromstring(text)


def test_learning_curves_of_a_finetuning(drawn: list[Figure]) -> None:
    image = Image.open(io.BytesIO(learning_curves(FINETUNED)))
    assert image.format == "PNG" and image.width > 800
    left, right = drawn[0].axes
    assert lines(left) == {"training": ([0, 2], [3.0, 1.0]), "kept (epoch 2)": ([2, 2], [0, 1])}
    assert lines(right) == {
        "CER, validation": ([0, 1, 2], [90.0, 50.0, 30.0]),
        "WER, validation": ([0, 1], [100.0, 80.0]),
        "kept (epoch 2)": ([2, 2], [0, 1]),
    }
    assert right.get_ylabel() == "error rate (%)" and right.get_ylim()[0] == 0
    assert (
        drawn[0].get_suptitle() == "fine-tuning: ctc, 5 % of the labels (1,235 lines), semi-supervised, test CER 12.3 %"
    )


def test_learning_curves_of_a_pretraining(drawn: list[Figure]) -> None:
    learning_curves(PRETRAINED)
    left, right = drawn[0].axes
    assert list(lines(left)) == ["training", "validation"]
    assert lines(right) == {"validation": ([0, 1], [30.0, 70.0]), "chance (25 %)": ([0, 1], [25.0, 25.0])}
    assert drawn[0].get_suptitle() == "pre-training: flip, 900 lines"


@pytest.mark.parametrize("result", [{}, {"stage": "pretrain", "history": []}, {"history": [{"train_loss": 1.0}]}])
def test_a_trial_without_epochs_still_has_a_picture(result: dict[str, Any], drawn: list[Figure]) -> None:
    assert Image.open(io.BytesIO(learning_curves(result))).width > 800
    assert drawn[0].texts[-1].get_text() == "No epochs were recorded."


def test_label_efficiency_draws_means_and_intervals_at_the_labels_tried(drawn: list[Figure]) -> None:
    svg(label_efficiency([NONE, SORTING]))
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "labelled training lines"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "200", "1,000"]
    none, sorting = (container.lines for container in axes.containers)
    assert list(none[0].get_ydata()) == [60, 40, 20]
    assert list(sorting[0].get_ydata()) == [50, 33, 18]
    # Moved apart, so that no bar hides another, but by less than would be read as other labels.
    for line, side in ((none, -1), (sorting, 1)):
        shift = np.asarray(line[0].get_xdata()) / [100, 200, 1000] - 1
        assert (shift * side > 0).all() and (abs(shift) < 0.03).all()
    ends = [path.tolist() for path in none[2][0].get_segments()]
    assert [[low, high] for (_, low), (_, high) in ends] == [pytest.approx(e) for e in ([55, 66], [38, 43], [19, 22])]
    assert legend(drawn[0]) == ["none", "sorting"]


def test_numbers_of_labels_that_are_close_are_not_written_over_each_other(drawn: list[Figure]) -> None:
    label_efficiency([Curve("none", [100, 101, 5000], [3, 2, 1])])
    assert [text.get_text() for text in drawn[0].axes[0].get_xticklabels()] == ["101", "5,000"]


def test_one_fraction_alone_is_drawn(drawn: list[Figure]) -> None:
    svg(label_efficiency([Curve("none", [100], [30.0]), Curve("flip", [100], [20.0], [19.0], [22.0])]))
    assert [text.get_text() for text in drawn[0].axes[0].get_xticklabels()] == ["100"]


def test_curves_have_a_band(drawn: list[Figure]) -> None:
    svg(curves([Curve("none", [0, 1, 2], [60, 40, 30], [55, 38, 29], [66, 43, 31])]))
    (axes,) = drawn[0].axes
    assert list(axes.get_lines()[0].get_ydata()) == [60, 40, 30]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 29 and band[:, 1].max() == 66


def test_gain_by_accuracy(drawn: list[Figure]) -> None:
    svg(pretext_gain([Point("flip", 50.0, 4.0, 2.0, 6.0), Point("sorting", 30.0, -1.0), Point("flip", 60.0, 3.0)]))
    (axes,) = drawn[0].axes
    points = [container.lines[0] for container in axes.containers]
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == [(50, 4), (30, -1), (60, 3)]
    assert points[0].get_marker() == points[2].get_marker() != points[1].get_marker()
    assert axes.containers[0].lines[2][0].get_segments()[0].tolist() == [[50, 2], [50, 6]]
    assert [list(line.get_ydata()) for line in axes.get_lines() if line.get_linestyle() == ":"] == [[0, 0]]
    assert legend(drawn[0]) == ["flip", "sorting"]


def test_points_of_different_labels_stand_in_panels(drawn: list[Figure]) -> None:
    labels = ["5 %", "10 %", "100 %"]
    svg(
        pretext_gain(
            [Point(name, x, x / 10, label=label) for label in labels for name, x in (("flip", 50), ("sorting", 30))]
        )
    )
    shown = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == labels
    assert [len(axes.containers) for axes in shown] == [2, 2, 2]
    assert len({axes.get_ylim() for axes in shown}) == 1
    assert legend(drawn[0]) == ["flip", "sorting"]


@pytest.mark.parametrize(("costs", "scale"), [((1.0, 2.0), "linear"), ((0.5, 50.0), "log"), ((0.0, 3.0), "linear")])
def test_costs_that_are_far_apart_stand_on_a_logarithmic_axis(
    costs: tuple[float, float], scale: str, drawn: list[Figure]
) -> None:
    svg(cost([Point("none", costs[0], 20.0), Point("flip", costs[1], 10.0)], x="GPU hours"))
    assert drawn[0].axes[0].get_xscale() == scale and drawn[0].get_supxlabel() == "GPU hours"
    assert len(drawn[0].axes[0].containers) == 2


@pytest.mark.parametrize("nothing", [[], [Curve("none", [], [])], [Curve("none", [math.nan, 3.0], [1.0, math.nan])]])
def test_nothing_to_draw_is_no_figure(nothing: list[Curve]) -> None:
    assert label_efficiency(nothing) == curves(nothing) == ""
    assert pretext_gain([]) == cost([Point("flip", math.nan, 1.0)]) == ""


def test_what_cannot_be_drawn_is_left_out_alone(drawn: list[Figure]) -> None:
    label_efficiency([Curve("none", [0, 100, 200], [50, 40, math.nan]), Curve("flip", [100], [math.nan]), SORTING])
    assert legend(drawn[0]) == ["none", "sorting"]
    assert list(drawn[0].axes[0].containers[0].lines[0].get_ydata()) == [40]


def test_a_mean_outside_of_its_interval_is_drawn_all_the_same() -> None:
    assert label_efficiency([Curve("none", [100], [30.0], [31.0], [33.0])])


def test_names_are_told_apart_without_colour() -> None:
    names = ["none", "sorting", "flip", "rotation", "jigsaw", "inpainting", "contrastive"]
    looks = styles(names)
    assert len({look.marker for look in looks.values()}) == len(names)
    assert len({look.dashes for look in looks.values()}) == len(names)
    assert len({look.colour for look in looks.values()}) == len(names)


def test_a_name_looks_the_same_in_all_figures() -> None:
    assert styles(["none", "jigsaw"]) == {
        name: styles(["jigsaw", "other", "flip", "none"])[name] for name in ("none", "jigsaw")
    }


def test_figures_of_one_page_do_not_share_ids() -> None:
    made = [
        label_efficiency([NONE]),
        label_efficiency([NONE, SORTING]),
        pretext_gain(POINTS),
        cost(POINTS),
        curves([NONE]),
    ]
    made.append(label_efficiency([NONE], title="another corpus"))
    ids = [e.get("id") for text in made for e in svg(text).iter() if e.get("id")]
    assert len(ids) == len(set(ids)) > 100
    for text in made:
        own = {e.get("id") for e in svg(text).iter()}
        values = [(name, value) for e in svg(text).iter() for name, value in e.attrib.items()]
        used = [value[1:] for name, value in values if name.endswith("href")]
        used += [part.split(")")[0] for _, value in values for part in value.split("url(#")[1:]]
        assert used and set(used) <= own


def test_the_same_figure_is_the_same_text_also_in_threads() -> None:
    expected = [label_efficiency([NONE, SORTING]), pretext_gain(POINTS), curves([NONE])]
    with ThreadPoolExecutor(4) as pool:
        again = list(
            pool.map(
                lambda i: [label_efficiency, pretext_gain, curves][i % 3]([[NONE, SORTING], POINTS, [NONE]][i % 3]),
                range(9),
            )
        )
    assert again == expected * 3


def test_a_figure_has_a_title_and_styles_nothing_but_itself() -> None:
    title = 'corpus "<b>" & more'
    root = svg(label_efficiency([NONE], title=title))
    assert root[0].tag == "{http://www.w3.org/2000/svg}title" and root[0].text == title
    assert root.get("role") == "img" and root.get("aria-label") == title
    assert root.get("viewBox") and not root.get("width")
    assert not list(root.iter("{http://www.w3.org/2000/svg}style", "{http://www.w3.org/2000/svg}metadata"))


def test_dollars_in_a_name_are_no_mathematics(drawn: list[Figure]) -> None:
    assert curves([Curve("a$_$b$^{", [0, 1], [1, 2])], y="price ($) and $x^{$")
    assert pretext_gain([Point("a", 1, 2, label="$\\frac{")])
    assert legend(drawn[0]) == ["a$_$b$^{"]


def test_rows_of_the_legend_read_from_left_to_right(drawn: list[Figure]) -> None:
    names = ["none", "sorting", "flip", "rotation", "jigsaw"]
    curves([Curve(name, [0, 1], [1, 2]) for name in names])
    texts = drawn[0].legends[0].get_texts()
    places = {t.get_text(): t.get_window_extent() for t in texts}
    assert sorted(places, key=lambda name: (-round(places[name].y0), places[name].x0)) == names
