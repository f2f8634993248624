"""The picture of a grid's trials over time: when which trial ran, on which place of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from htr_ray.report.attempts import Bar, Timeline, in_words, joined, unit_of, use_of
from htr_ray.report.figures import plain

_WIDTH = 9.0
_LANE = 0.24
"""Inches; lanes get thinner where the figure would be higher than ``_HIGHEST``."""
_LOWEST, _HIGHEST = 1.2, 7.0
_COLOURS = {"pretrain": "#0072B2", "finetune": "#009E73"}
_FAILED = "#D55E00"
_NAMES = {"pretrain": "pre-training", "finetune": "fine-tuning"}
_NAMED_LANES = 16
_NAMED_BARS = 30
"""Lanes above that are too thin for text."""
_MANY = 600
"""Bars that are drawn as pixels in the SVG, or it would be megabytes of text."""
_CHARACTER = 0.011
"""Width of a letter in a bar, as a share of the axis."""


def timeline_figure(timeline: Timeline) -> Figure | None:
    """Trials over time as bars on the places they ran on, and below how many places were in use; None without any."""
    use = use_of(timeline)
    if use is None:
        return None
    bars, joints = joined(timeline)
    lanes = _lanes(bars)
    count = max(lanes) + 1
    high = min(max(_LANE * count, _LOWEST), _HIGHEST)
    figure = Figure(figsize=(_WIDTH, high + 2.1), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[high, 0.8])
    scale, unit = unit_of(use.seconds)
    _draw(upper, [bar.timed(lambda moment: moment / scale) for bar in bars], lanes, use.seconds / scale)
    _name_lanes(upper, bars, lanes)
    for colour, steps in (("#cccccc", _level(bars, False)), ("#555555", _level(bars, True))):
        moments, levels = [moment / scale for moment, _ in steps], [100 * level for _, level in steps]
        lower.fill_between(moments, levels, step="post", color=colour, lw=0, rasterized=len(bars) > _MANY)
    for axes in (upper, lower):
        for joint in joints:
            axes.axvline(joint / scale, color="black", linewidth=0.8, linestyle=":")
    plain(lower)
    lower.set_ylabel("% of places", fontsize=9)
    lower.set_ylim(0, 105)
    lower.set_xlim(0, use.seconds / scale)
    lower.set_xlabel(f"{unit} in which a driver ran" if joints else f"{unit} since the first start", fontsize=10)
    figure.suptitle(in_words(timeline), fontsize=10, parse_math=False)
    _legend(figure, bars, bool(joints))
    return figure


def _lanes(bars: Sequence[Bar]) -> list[int]:
    """A lane for each bar: the one of its node that has been free for longest, or a new one."""
    nodes = list(dict.fromkeys(sorted(bar.node or "" for bar in bars)))
    ends: dict[str, list[float]] = {node: [] for node in nodes}
    places: list[tuple[str, int]] = []
    for bar in bars:
        mine = ends[bar.node or ""]
        free = [index for index, end in enumerate(mine) if end <= bar.began + 1e-6]
        index = min(free, key=lambda one: mine[one]) if free else len(mine)
        mine[index:] = [bar.ended, *mine[index + 1 :]]
        places.append((bar.node or "", index))
    first = {node: sum(len(ends[other]) for other in nodes[:number]) for number, node in enumerate(nodes)}
    return [first[node] + index for node, index in places]


def _draw(axes: Axes, bars: Sequence[Bar], lanes: Sequence[int], width: float) -> None:
    pixels = len(bars) > _MANY
    for colour, alpha, hatch, boxes in _boxes(bars, lanes):
        axes.add_collection(
            PolyCollection(
                boxes,
                facecolors=colour,
                alpha=alpha,
                hatch=hatch,
                edgecolors="white",
                linewidths=0.0 if pixels else 0.4,
                rasterized=pixels,
            )
        )
    for bar, lane in zip(bars, lanes, strict=True):
        if max(lanes) < _NAMED_BARS and (bar.ended - bar.began) / width > _CHARACTER * (len(bar.label) + 1):
            middle = (bar.began + bar.ended) / 2
            axes.text(middle, lane, bar.label, ha="center", va="center", fontsize=7, color="black", parse_math=False)
    axes.set_ylim(max(lanes) + 0.6, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


Box = list[tuple[float, float]]


def _boxes(bars: Sequence[Bar], lanes: Sequence[int]) -> Iterator[tuple[str, float, str | None, list[Box]]]:
    """Rectangles of a look each: light for the whole of an attempt, on it in full colour what was training."""
    looks: dict[tuple[str, float, str | None], list[Box]] = {}
    for bar, lane in zip(bars, lanes, strict=True):
        failed = bar.outcome == "failed"
        colour = _FAILED if failed else _COLOURS[bar.stage]
        hatch = "////" if bar.outcome == "halved" else "xxxx" if failed else None
        looks.setdefault((colour, 0.35, None), []).append(_box(bar.began, bar.ended, lane))
        if bar.trained > 0 and bar.trained_from is not None:
            full = 0.45 if bar.outcome == "halved" else 0.85
            trained = _box(bar.trained_from, bar.trained_from + bar.trained, lane)
            looks.setdefault((colour, full, hatch), []).append(trained)
    for (colour, alpha, hatch), boxes in looks.items():
        yield colour, alpha, hatch, boxes


def _box(left: float, right: float, lane: int) -> Box:
    return [(left, lane - 0.42), (right, lane - 0.42), (right, lane + 0.42), (left, lane + 0.42)]


def _name_lanes(axes: Axes, bars: Sequence[Bar], lanes: Sequence[int]) -> None:
    """Names of nodes where there are several, else numbers of places."""
    by_node: dict[str, set[int]] = {}
    for bar, lane in zip(bars, lanes, strict=True):
        by_node.setdefault(bar.node or "", set()).add(lane)
    if 1 < len(by_node) <= _NAMED_LANES:
        axes.set_yticks([sum(mine) / len(mine) for mine in by_node.values()], list(by_node), fontsize=8)
        for mine in by_node.values():
            axes.axhline(max(mine) + 0.5, color="#dddddd", linewidth=0.8)
        return
    axes.yaxis.set_major_locator(MaxNLocator(_NAMED_LANES, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda lane, _: f"{lane + 1:.0f}" if 0 <= lane <= max(lanes) else "")
    axes.set_ylabel("place", fontsize=9)


def _level(bars: Sequence[Bar], training: bool) -> list[tuple[float, float]]:
    """Steps of the share of places in use (or in training): from each moment on."""
    changes: list[tuple[float, float]] = []
    for bar in bars:
        start = bar.trained_from if training else bar.began
        length = bar.trained if training else bar.ended - bar.began
        if start is not None and length > 0:
            changes += [(start, bar.share), (start + length, -bar.share)]
    level, steps = 0.0, [(0.0, 0.0)]
    for moment, change in sorted(changes):
        level = max(0.0, level + change)
        steps.append((moment, level))
    return steps


def _legend(figure: Figure, bars: Sequence[Bar], resumed: bool) -> None:
    handles = [
        Patch(facecolor=colour, alpha=0.85, label=_NAMES[stage])
        for stage, colour in _COLOURS.items()
        if any(bar.stage == stage for bar in bars)
    ]
    handles.append(Patch(facecolor="#999999", alpha=0.35, label="start-up, test, saving"))
    outcomes = {bar.outcome for bar in bars}
    if "halved" in outcomes:
        handles.append(Patch(facecolor="#999999", alpha=0.45, hatch="////", edgecolor="white", label="stopped early"))
    if "failed" in outcomes:
        handles.append(Patch(facecolor=_FAILED, alpha=0.85, hatch="xxxx", edgecolor="white", label="ended in a fault"))
    handles.append(Patch(facecolor="#555555", label="training"))
    handles.append(Patch(facecolor="#cccccc", label="in use"))
    columns = min(len(handles), 7)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    if resumed:
        figure.axes[0].set_title("dotted: the grid was continued here", fontsize=8, loc="right", color="#555555")
