"""Figures of a trial (PNG) and of a report (SVG to be put into an HTML page).

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
from html import escape
from typing import Any

from lxml import etree
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

_DPI = 110
_GREY = "#666666"
_SVG = "{http://www.w3.org/2000/svg}"


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
    """Written beside it, such as "5 %"."""


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
    history = [row for row in result.get("history") or [] if isinstance(row.get("epoch"), int | float)]
    figure = Figure(figsize=(9, 3.6), dpi=_DPI, layout="constrained")
    if not history:
        figure.text(0.5, 0.5, "No epochs were recorded.", ha="center", va="center")
        return _png(figure)
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
        _plain(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def label_efficiency(series: Sequence[Curve], *, title: str = "", unit: str = "CER on test lines (%)") -> str:
    """SVG: CER (y) over the number of labelled lines (x, logarithmic), one line per pretext. "" for no data."""
    return _lines(series, title or "CER by number of labels", "labelled training lines", unit, log=True)


def curves(series: Sequence[Curve], *, title: str = "", unit: str = "CER on validation lines (%)") -> str:
    """SVG: mean learning curves, ``unit`` (y) over epochs (x), one line per pretext, interval as a band."""
    return _lines(series, title or "Learning curves", "epoch (the first is 0)", unit, band=True)


def pretext_gain(points: Sequence[Point], *, title: str = "", unit: str = "CER saved (percentage points)") -> str:
    """SVG: what pre-training gained (y) over the accuracy in the pretext task (x, percent)."""
    title = title or "Pretext accuracy and gain"
    return _scatter(points, title, "pretext accuracy on held-out lines (%)", unit, zero=True)


def cost(points: Sequence[Point], *, title: str = "", unit: str = "hours", y: str = "CER on test lines (%)") -> str:
    """SVG: CER (y) over what it cost (x, logarithmic, ``unit`` such as "GPU hours")."""
    return _scatter(points, title or "Cost and CER", f"cost ({unit})", y, log=True)


def _lines(series: Sequence[Curve], title: str, x: str, y: str, *, log: bool = False, band: bool = False) -> str:
    looks = styles(curve.name for curve in series)
    figure, axes = _axes(x, y)
    drawn = 0
    everywhere: set[float] = set()
    for number, curve in enumerate(series):
        rows = _finite(curve, positive=log)
        if not rows:
            continue
        drawn += 1
        everywhere |= {row[0] for row in rows}
        look = looks[curve.name]
        xs, ys, lows, highs = (list(column) for column in zip(*rows, strict=True))
        kwargs: dict[str, Any] = {"color": look.colour, "linestyle": look.dashes, "linewidth": 1.8}
        if band:
            axes.fill_between(xs, lows, highs, color=look.colour, alpha=0.15, linewidth=0)
            axes.plot(
                xs, ys, label=curve.name, marker=look.marker, markevery=max(1, len(xs) // 8), markersize=6, **kwargs
            )
        else:
            # Beside each other, or bars at the same number of labels would hide each other.
            shift = 1.015 ** (number - (len(series) - 1) / 2)
            bars = [[m - a for m, a in zip(ys, lows, strict=True)], [b - m for m, b in zip(ys, highs, strict=True)]]
            xs = [value * shift for value in xs]
            axes.errorbar(xs, ys, yerr=bars, label=curve.name, marker=look.marker, markersize=7, capsize=3, **kwargs)
    if not drawn:
        return ""
    if log:
        _log_axis(axes, sorted(everywhere))
    _legend(axes)
    return _svg(figure, title)


def _scatter(points: Sequence[Point], title: str, x: str, y: str, *, log: bool = False, zero: bool = False) -> str:
    kept = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y) and (p.x > 0 or not log)]
    if not kept:
        return ""
    looks = styles(point.name for point in points)
    figure, axes = _axes(x, y)
    if zero:
        axes.axhline(0, color=_GREY, linewidth=1, linestyle=":")
    seen: set[str] = set()
    for point in kept:
        look = looks[point.name]
        low, high = (point.y if end is None else end for end in (point.low, point.high))
        axes.errorbar(
            [point.x],
            [point.y],
            yerr=[[point.y - low], [high - point.y]],
            label=None if point.name in seen else point.name,
            color=look.colour,
            marker=look.marker,
            markersize=8,
            linestyle="none",
            capsize=3,
        )
        seen.add(point.name)
        if point.label:
            axes.annotate(
                point.label, (point.x, point.y), xytext=(7, 5), textcoords="offset points", fontsize=9, color="#333333"
            )
    if log:
        axes.set_xscale("log")
    _legend(axes)
    return _svg(figure, title)


def _finite(curve: Curve, positive: bool) -> list[tuple[float, float, float, float]]:
    """x, y, low and high of the points that can be drawn, by x; a missing end is the point itself."""
    lows = curve.low or [None] * len(curve.x)
    highs = curve.high or [None] * len(curve.x)
    rows = []
    for x, y, low, high in zip(curve.x, curve.y, lows, highs, strict=True):
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not positive):
            rows.append((float(x), float(y), y if low is None else float(low), y if high is None else float(high)))
    return sorted(rows)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x, fontsize=11, parse_math=False)
    axes.set_ylabel(y, fontsize=11, parse_math=False)
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def _log_axis(axes: Axes, ticks: Sequence[float]) -> None:
    """Ticks at the numbers of labels that were tried, not at powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)


def _legend(axes: Axes) -> None:
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=10, handlelength=3.2)


def _series(axes: Axes, history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    looks = [_STYLES[1], _STYLES[0]]
    for look, (key, label) in zip(looks, names.items(), strict=False):
        points = [(row["epoch"], row[key]) for row in history if _is_finite(row.get(key))]
        if points:
            epochs, values = zip(*points, strict=True)
            every = max(1, len(points) // 10)
            axes.plot(
                epochs,
                values,
                label=label,
                color=look.colour,
                linestyle=look.dashes,
                marker=look.marker,
                markevery=every,
            )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element for HTML: it scales, has a title, and ids that no other figure has.

    Matplotlib names groups alike in every figure and draws other ids by chance; here they are counted, behind a
    prefix made of the content, so that the same figure is always the same text.
    """
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = etree.fromstring(sink.getvalue(), etree.XMLParser(remove_comments=True))
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    numbers: dict[str, str] = {}
    for element in root.iter():
        if "id" in element.attrib:
            numbers[element.attrib["id"]] = str(len(numbers))
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.attrib[name] = f"@{numbers[value]}"
            elif name.endswith("href") and value.startswith("#"):
                element.attrib[name] = f"#@{numbers[value[1:]]}"
            elif "url(#" in value:
                element.attrib[name] = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#@{numbers[m[1]]})", value)
    for side in ("width", "height"):
        del root.attrib[side]
    root.attrib.update({"role": "img", "aria-label": title, "style": "width:100%;max-width:46rem;height:auto"})
    text = etree.tostring(root, encoding="unicode")
    prefix = "f" + hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:10] + "-"
    text = re.sub(r'(?<=id=")@|(?<=href="#)@|(?<=url\(#)@', prefix, text)
    start = text.index(">") + 1
    return f"{text[:start]}<title>{escape(title)}</title>{text[start:]}"
