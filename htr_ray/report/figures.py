"""Figures of a trial (PNG) and of a report (SVG to be put into an HTML page; "" where there is nothing to draw).

Colours of Okabe and Ito (https://jfly.uni-koeln.de/color/), each with a marker and dashes of its own: lines can be
told apart by the colour-blind and in grey. Only ``Figure`` objects, never pyplot: safe in threads.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from lxml import etree
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

_DPI = 110
_SIZE = (6.4, 4.4)
_GREY = "#666666"
_SVG = "{http://www.w3.org/2000/svg}"
_FAR_APART = 10
_TICK_SHARE = 0.07
"""Share of a logarithmic axis that the number at a tick takes."""
_LEGEND_COLUMNS = 4


@dataclass(frozen=True)
class Style:
    colour: str
    marker: str
    dashes: Any
    """As matplotlib's ``linestyle``."""


_STYLES = [
    Style("#D55E00", "o", "-"),
    Style("#0072B2", "s", (0, (6, 2))),
    Style("#009E73", "^", (0, (4, 1.5, 1, 1.5))),
    Style("#CC79A7", "D", (0, (1.5, 1.5))),
    Style("#E69F00", "v", (0, (8, 2, 2, 2))),
    Style("#56B4E9", "P", (0, (3, 3))),
    Style("#B8A800", "X", (0, (1, 3))),
]
_FROM_SCRATCH = Style("#000000", "x", (0, (2, 2)))
_KNOWN = ("sorting", "flip", "rotation", "jigsaw")


@dataclass(frozen=True)
class Curve:
    """One line of a figure: means, and the ends of their intervals where there are any."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Point:
    """One point of a scatter figure; ``name`` (mostly the pretext) gives its colour and marker."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    """What it belongs to, such as "5 %": each has a panel of its own."""


def styles(names: Iterable[str]) -> dict[str, Style]:
    """The look of each name: the same in all figures for the tasks of the paper and for "none"."""
    found: dict[str, Style] = {}
    others = iter(range(len(_KNOWN), 10**6))
    for name in dict.fromkeys(names):
        if name == "none":
            found[name] = _FROM_SCRATCH
        else:
            index = _KNOWN.index(name) if name in _KNOWN else next(others)
            found[name] = _STYLES[index % len(_STYLES)]
    return found


def learning_curves(result: Mapping[str, Any]) -> bytes:
    """PNG of a trial's epochs: loss, and CER and WER or the pretext accuracy, with the epoch that was kept.

    ``result`` is a trial's ``result.json``. Without any epoch, a picture that says so.
    """
    history = [row for row in result.get("history") or [] if _is_finite(row.get("epoch"))]
    figure = Figure(figsize=(9, 3.9), dpi=_DPI, layout="constrained")
    figure.suptitle(_heading(result), fontsize=11, parse_math=False)
    if not history:
        figure.text(0.5, 0.5, "No epochs were recorded.", ha="center", va="center")
        return png(figure)
    left, right = figure.subplots(1, 2)
    _series(left, history, {"train_loss": "training", "val_loss": "validation"})
    left.set_ylabel("loss")
    if result.get("stage") == "pretrain":
        _series(right, history, {"val_accuracy": "validation"})
        right.set_ylabel("pretext accuracy (%)")
        chance = result.get("chance")
        if chance is not None:
            right.axhline(chance, color=_GREY, linewidth=1, linestyle=":", label=f"chance ({chance:.3g} %)")
    else:
        _series(right, history, {"val_cer": "CER, validation", "val_wer": "WER, validation"})
        right.set_ylabel("error rate (%)")
    best = result.get("best_epoch")
    for axes in (left, right):
        if best is not None:
            axes.axvline(best, color=_GREY, linewidth=1, linestyle="--", label=f"kept (epoch {best})")
        axes.set_xlabel("epoch (the first is 0)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        plain(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
    return png(figure)


def label_efficiency(
    series: Sequence[Curve],
    *,
    title: str = "CER by number of labels",
    x: str = "labelled training lines",
    y: str = "CER on test lines (%)",
) -> str:
    """SVG: CER over the number of labelled lines (logarithmic), one line per pretext with bars for its interval."""
    return _lines(series, title, x, y, log=True)


def curves(
    series: Sequence[Curve],
    *,
    title: str = "Learning curves",
    x: str = "epoch (the first is 0)",
    y: str = "CER on validation lines (%)",
) -> str:
    """SVG: mean learning curves, one line per pretext with a band for its interval."""
    return _lines(series, title, x, y, band=True)


def pretext_gain(
    points: Sequence[Point],
    *,
    title: str = "Pretext accuracy and gain",
    x: str = "pretext accuracy on held-out lines (%)",
    y: str = "CER saved (percentage points)",
) -> str:
    """SVG: what pre-training gained over the accuracy in the pretext task; below the line at 0 it did harm."""
    return _scatter(points, title, x, y, zero=True)


def cost(
    points: Sequence[Point], *, title: str = "Cost and CER", x: str = "hours", y: str = "CER on test lines (%)"
) -> str:
    """SVG: CER over what it cost, such as hours or GFLOPs; logarithmic where the costs are far apart."""
    costs: dict[str, list[float]] = {}
    for point in points:
        if math.isfinite(point.x) and point.x > 0:
            costs.setdefault(point.label, []).append(point.x)
    return _scatter(points, title, x, y, log=any(max(found) >= _FAR_APART * min(found) for found in costs.values()))


def _lines(series: Sequence[Curve], title: str, x: str, y: str, *, log: bool = False, band: bool = False) -> str:
    looks = styles(curve.name for curve in series)
    drawn = {curve.name: rows for curve in series if (rows := _finite(curve, positive=log))}
    if not drawn:
        return ""
    figure, axes = _axes(x, y)
    for number, (name, rows) in enumerate(drawn.items()):
        look = looks[name]
        xs, ys, lows, highs = (list(column) for column in zip(*rows, strict=True))
        kwargs: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "marker": look.marker}
        if band:
            axes.fill_between(xs, lows, highs, color=look.colour, alpha=0.15, linewidth=0)
            axes.plot(xs, ys, markevery=max(1, len(xs) // 8), markersize=6, **kwargs)
        else:
            # Beside each other, or bars at the same number of labels would hide each other.
            shift = 1.02 ** (number - (len(drawn) - 1) / 2)
            axes.errorbar(
                [value * shift for value in xs], ys, yerr=_bars(ys, lows, highs), markersize=7, capsize=3, **kwargs
            )
    if log:
        ticks = sorted({row[0] for rows in drawn.values() for row in rows})
        _log_axis(axes, ticks)
    _legend(figure, {name: looks[name] for name in drawn}, lines=True)
    return svg(figure, title)


def _scatter(points: Sequence[Point], title: str, x: str, y: str, *, log: bool = False, zero: bool = False) -> str:
    """A panel for each ``label``: written beside the points, those of a whole grid would cover each other."""
    kept = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y) and (p.x > 0 or not log)]
    if not kept:
        return ""
    looks = styles(point.name for point in points)
    labels = list(dict.fromkeys(point.label for point in kept))
    columns = min(len(labels), 2)
    rows = -(-len(labels) // columns)
    size = _SIZE if rows == columns == 1 else (_SIZE[0], 0.9 + 2.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    # Gains are compared over panels; a range of costs and CER of its own shows the differences within each.
    grid = figure.subplots(rows, columns, sharex=zero, sharey=zero, squeeze=False)
    panels = grid.flatten().tolist()
    for axes, label in zip(panels, labels, strict=False):
        axes.set_title(label, fontsize=11, loc="left", parse_math=False)
        axes.margins(0.12)
        plain(axes)
        if zero:
            axes.axhline(0, color=_GREY, linewidth=1, linestyle=":")
        for point in (point for point in kept if point.label == label):
            look = looks[point.name]
            bars = _bars([point.y], [_end(point.low, point.y)], [_end(point.high, point.y)])
            place: dict[str, Any] = {"x": [point.x], "y": [point.y], "yerr": bars, "capsize": 3}
            axes.errorbar(**place, color=look.colour, marker=look.marker, markersize=8, linestyle="none")
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    figure.supxlabel(x, fontsize=11, parse_math=False)
    figure.supylabel(y, fontsize=11, parse_math=False)
    _legend(figure, {point.name: looks[point.name] for point in kept}, lines=False)
    return svg(figure, title)


def _finite(curve: Curve, positive: bool) -> list[tuple[float, float, float, float]]:
    """x, y, low and high of the points that can be drawn, by x; a missing end is the point itself."""
    lows = curve.low or [None] * len(curve.x)
    highs = curve.high or [None] * len(curve.x)
    rows = []
    for x, y, low, high in zip(curve.x, curve.y, lows, highs, strict=True):
        if _is_finite(x) and _is_finite(y) and (x > 0 or not positive):
            rows.append((float(x), float(y), _end(low, y), _end(high, y)))
    return sorted(rows)


def _end(end: float | None, middle: float) -> float:
    return float(end) if end is not None and math.isfinite(end) else float(middle)


def _bars(ys: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> list[list[float]]:
    """Lengths of error bars downwards and upwards; none where a mean lies outside of its own interval."""
    down = [max(0.0, y - low) for y, low in zip(ys, lows, strict=True)]
    return [down, [max(0.0, high - y) for y, high in zip(ys, highs, strict=True)]]


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x, fontsize=11, parse_math=False)
    axes.set_ylabel(y, fontsize=11, parse_math=False)
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def _log_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Ticks at the numbers of labels that were tried, not at powers of ten; where two are too close, the larger."""
    axes.set_xscale("log")
    apart: list[float] = []
    for tick in reversed(ticks):
        if not apart or apart[-1] / tick >= (max(ticks) / min(ticks)) ** _TICK_SHARE:
            apart.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(apart[::-1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)


def _legend(figure: Figure, looks: Mapping[str, Style], lines: bool) -> None:
    """Above the axes, in rows: matplotlib fills columns, so that the entries are handed over column by column."""
    rows = -(-len(looks) // _LEGEND_COLUMNS)
    columns = -(-len(looks) // rows)
    entries = list(looks.items())
    entries = [entries[i] for column in range(columns) for i in range(column, len(entries), columns)]
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dashes if lines else "none", markersize=7)
        for _, look in entries
    ]
    length = {"handlelength": 3.4 if lines else 1.0}
    names = [name for name, _ in entries]
    legend = figure.legend(
        handles, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=10, **length
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _heading(result: Mapping[str, Any]) -> str:
    lines = f"{result['lines']:,} lines" if _is_finite(result.get("lines")) else ""
    if result.get("stage") == "pretrain":
        told = [f"pre-training: {result.get('pretext', '')}", lines]
    else:
        fraction, cer = result.get("label_fraction"), result.get("test_cer")
        labels = f"{100 * fraction:g} % of the labels ({lines})" if _is_finite(fraction) else lines
        told = [
            f"fine-tuning: {result.get('decoder', '')}",
            labels,
            str(result.get("protocol") or "").replace("_", "-"),
        ]
        told += [f"test CER {cer:.1f} %"] if _is_finite(cer) else []
    return ", ".join(part for part in told if part)


def _series(axes: Axes, history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    for look, (key, label) in zip(_STYLES, names.items(), strict=False):
        points = [(row["epoch"], row[key]) for row in history if _is_finite(row.get(key))]
        if points:
            epochs, values = zip(*points, strict=True)
            every = max(1, len(points) // 10)
            style: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "marker": look.marker}
            axes.plot(epochs, values, label=label, markevery=every, **style)


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element for HTML: it scales, has a title, and ids that no other figure has.

    Matplotlib names groups alike in every figure and draws other ids by chance; here they are counted, behind a
    prefix made of the content, so that the same figure is always the same text. (``svg.hashsalt`` does so for some
    ids only, and is a global setting.)
    """
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = etree.fromstring(sink.getvalue(), etree.XMLParser(remove_comments=True))
    # What they say of the figure is on the root below; a style element would speak to the whole page.
    for element in [*root.iter(f"{_SVG}metadata", f"{_SVG}style")]:
        element.getparent().remove(element)
    for side in ("width", "height"):
        del root.attrib[side]
    root.attrib.update({"role": "img", "aria-label": title, "style": "width:100%;max-width:46rem;height:auto"})
    root.attrib.update({"stroke-linejoin": "round", "stroke-linecap": "butt"})
    heading = etree.Element(f"{_SVG}title")
    heading.text = title
    root.insert(0, heading)
    numbers = {element.attrib["id"]: f"{n}" for n, element in enumerate(e for e in root.iter() if "id" in e.attrib)}
    _rename(root, {name: f"x{number}" for name, number in numbers.items()})
    prefix = "f" + hashlib.sha256(etree.tostring(root)).hexdigest()[:10]
    _rename(root, {f"x{number}": f"{prefix}-{number}" for number in numbers.values()})
    return etree.tostring(root, encoding="unicode")


def _rename(root: Any, names: Mapping[str, str]) -> None:
    """Replace ids, and what refers to them."""
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.attrib[name] = names[value]
            elif name.endswith("href") and value.startswith("#"):
                element.attrib[name] = f"#{names[value[1:]]}"
            elif "url(#" in value:
                element.attrib[name] = re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{names[match[1]]})", value)
