"""Which figures a report has: curves and points from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from htr_ray.report import figures
from htr_ray.report.analysis import Analysis
from htr_ray.report.attempts import in_words
from htr_ray.report.cells import Cell
from htr_ray.report.document import Figure
from htr_ray.report.figures import Curve, Point
from htr_ray.report.timeline import timeline_figure
from htr_ray.report.wording import anchor, percent


def label_curves(made: Analysis) -> list[Figure]:
    """CER over labels, one figure per corpus, protocol and decoder that has more than one label fraction."""
    drawn = []
    for where in dict.fromkeys(place[:3] for place in made.places):
        series = []
        for pretext in made.pretexts:
            cells = [
                cell
                for (place, name), cell in made.cells.items()
                if place[:3] == where and name == pretext and cell.cer is not None and cell.labels
            ]
            if cells:
                ends = [cell.cer_interval for cell in cells]
                series.append(
                    Curve(
                        pretext,
                        [cell.labels or 0.0 for cell in cells],
                        [cell.cer or 0.0 for cell in cells],
                        [end.low if end else None for end in ends],
                        [end.high if end else None for end in ends],
                    )
                )
        if max((len(curve.x) for curve in series), default=0) > 1:
            caption = f"CER by number of labels: {_where(where)}. Bars: 95 % intervals."
            svg = figures.label_efficiency(series, title=f"CER by number of labels: {_where(where)}")
            drawn += _figure(anchor("curve", *where), caption, svg)
    return drawn


def gain_points(made: Analysis) -> list[Figure]:
    """What pre-training saved over the accuracy in its task, one figure per corpus and protocol."""
    drawn = []
    for corpus, protocol in dict.fromkeys(g.place[:2] for g in made.gains):
        mine = [g for g in made.gains if g.place[:2] == (corpus, protocol)]
        decoders = len({g.place.decoder for g in mine}) > 1
        points = []
        for gain in mine:
            label = percent(gain.place.fraction) + (f", {gain.place.decoder}" if decoders else "")
            low, high = (gain.interval.low, gain.interval.high) if gain.interval else (None, None)
            points.append(Point(gain.pretext, gain.accuracy, gain.gain, low, high, label))
        title = f"Pretext accuracy and CER saved: {corpus}, {protocol}"
        caption = f"{title}. Above the dotted line: fewer errors than without pre-training."
        drawn += _figure(anchor("gain", corpus, protocol), caption, figures.pretext_gain(points, title=title))
    return drawn


def cost_points(made: Analysis) -> list[Figure]:
    """CER over what a cell takes, pre-training included, one figure per corpus and protocol."""
    drawn = []
    for corpus, protocol in dict.fromkeys(cost.place[:2] for cost in made.costs):
        mine = [cost for cost in made.costs if cost.place[:2] == (corpus, protocol)]
        gpu = all(cost.gpu_hours for cost in mine)
        decoders = len({cost.place.decoder for cost in mine}) > 1
        points = []
        for cost in mine:
            cell = made.cells[cost.place, cost.pretext]
            spent = cost.gpu_hours if gpu else cost.minutes
            if not spent or cell.cer is None:
                continue
            label = percent(cost.place.fraction) + (f", {cost.place.decoder}" if decoders else "")
            ends = cell.cer_interval
            low, high = (ends.low, ends.high) if ends else (None, None)
            points.append(Point(cost.pretext, spent, cell.cer, low, high, label))
        unit = "GPU hours" if gpu else "minutes"
        title = f"Cost and CER: {corpus}, {protocol}"
        caption = f"{title}. {unit[0].upper()}{unit[1:]} of one trial, pre-training of its encoder included."
        drawn += _figure(anchor("cost", corpus, protocol), caption, figures.cost(points, title=title, x=unit))
    return drawn


def learning_curves(made: Analysis) -> list[Figure]:
    """Validation CER over epochs with the most labels, one figure per corpus, protocol and decoder."""
    drawn = []
    for where in dict.fromkeys(place[:3] for place in made.places):
        place = max((p for p in made.places if p[:3] == where), key=lambda p: p.fraction)
        series = [curve for cell in made.row(place) if (curve := _mean_curve(cell)) is not None]
        if series:
            title = f"Learning curves: {_where(where)}, {percent(place.fraction)} of the labels"
            caption = f"{title}. Means over the seeds that got so far; bands from the lowest to the highest."
            drawn += _figure(anchor("epochs", *where), caption, figures.curves(series, title=title))
    return drawn


def timeline(made: Analysis) -> list[Figure]:
    """Trials over time, if that was recorded."""
    if made.grid.timeline is None or (drawn := timeline_figure(made.grid.timeline)) is None:
        return []
    title = f"Trials over time: {in_words(made.grid.timeline)}"
    caption = (
        f"{title}. A bar is an attempt of a trial on the place where it ran: light while it started up, was tested and "
        "saved, full while it trained. Below, the places in use (light) and in training (dark)."
    )
    return _figure("timeline", caption, figures.svg(drawn, title))


def _mean_curve(cell: Cell) -> Curve | None:
    """Validation CER by epoch, mean over the seeds that came so far."""
    by_epoch: dict[int, list[float]] = {}
    for trial in cell.done:
        history: Sequence[Mapping[str, Any]] = trial.result.get("history") or []
        for epoch in history:
            value = epoch.get("val_cer")
            if isinstance(value, int | float) and np.isfinite(value):
                by_epoch.setdefault(int(epoch["epoch"]), []).append(float(value))
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] for epoch in epochs]
    return Curve(
        cell.pretext,
        epochs,
        [sum(found) / len(found) for found in values],
        [min(found) for found in values],
        [max(found) for found in values],
    )


def _where(where: tuple[str, str, str] | Sequence[Any]) -> str:
    return ", ".join(map(str, where))


def _figure(name: str, caption: str, svg: str) -> list[Figure]:
    return [Figure(name, caption, svg)] if svg else []
