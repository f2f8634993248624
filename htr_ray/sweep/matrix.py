"""The grid as a picture of text: cells as a matrix, pretexts beside each other, seeds within a field.

It fits the terminal: fields say less where columns are narrow, and rows in which nothing happens give way first.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, OverflowMethod, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from htr_ray.sweep.progress import GridProgress, State, TrialProgress
from htr_ray.sweep.waiting import use_line, waiting_lines
from htr_ray.sweep.wording import duration, many

NONE = "none"
_PRETRAIN = "pre-training"
_ENOUGH_SEEDS = 5
"""More units than that in a field are counted, not drawn one by one."""
_HEADS = 3
"""Lines for the bar, the matrix' own head, and one to spare: a picture as high as the screen would scroll it."""
_WIDEST_BAR = 72
_WIDEST_FIELD = 28
_TALL = 30
"""Lines of a screen that has room for the legend, and for more faults."""
_COLOURS: dict[State, str] = {"waiting": "dim", "training": "cyan", "done": "green", "halved": "dim", "failed": "red"}


@dataclass(frozen=True)
class Signs:
    waiting: str
    training: str
    """By progress."""
    done: str
    failed: str
    spread: str
    more: str
    overflow: OverflowMethod
    """Of texts that are too long."""


_PLAIN = Signs(".", "123456789", "+", "x", "+-", "...", "crop")
_FINE = Signs("·", "▁▂▃▄▅▆▇█", "✓", "✗", "±", "…", "ellipsis")


@dataclass(frozen=True)
class Unit:
    """One seed of a field: a trial, or the choices of hyperparameters that are raced for it."""

    trials: tuple[TrialProgress, ...]

    @property
    def state(self) -> State:
        states = {trial.state for trial in self.trials}
        if "training" in states:
            return "training"
        if "waiting" in states:
            return "waiting"
        return "done" if "done" in states else "failed"

    @property
    def front(self) -> TrialProgress | None:
        """Of those that train, the furthest."""
        return max((t for t in self.trials if t.state == "training"), key=lambda t: t.progress, default=None)

    @property
    def finals(self) -> list[float]:
        """The figure of a unit that is done: its best choice on validation speaks for it."""
        done = [trial for trial in self.trials if trial.state == "done"]
        if self.state != "done" or not done:
            return []
        best = min(done, key=lambda trial: (not trial.probe, trial.figures.get("val_cer", 0.0)))
        if best.probe:
            best = next((trial for trial in done if trial.key == best.waits_for), best)
        elif best.stage == "pretrain":
            best = max(done, key=lambda trial: trial.figures.get("val_accuracy", 0.0))
        value = best.figures.get("val_accuracy" if best.stage == "pretrain" else "test_cer")
        return [] if value is None else [value]


@dataclass(frozen=True)
class Row:
    """A line of the matrix."""

    corpus: str
    protocol: str
    decoder: str
    labels: str
    fields: dict[str, list[Unit]]

    @property
    def units(self) -> list[Unit]:
        return [unit for units in self.fields.values() for unit in units]

    @property
    def rank(self) -> int:
        """What gives way first has the highest: done, then waiting; where something trains or failed stays."""
        states = {unit.state for unit in self.units}
        if "training" in states:
            return 0
        if "failed" in states:
            return 1
        return 2 if len(states) > 1 else 3 if states == {"waiting"} else 4


def rows_of(trials: Iterable[TrialProgress]) -> list[Row]:
    """Corpus by corpus: its pre-trainings, then its cells."""
    found: dict[tuple[str, str, str, str], dict[str, dict[object, list[TrialProgress]]]] = {}
    corpora: dict[str, None] = {}
    for trial in trials:
        corpora.setdefault(trial.corpus)
        place = (trial.corpus, _PRETRAIN, "", "")
        if trial.stage == "finetune" and not trial.probe:
            place = (trial.corpus, str(trial.protocol), str(trial.decoder), f"{100 * (trial.label_fraction or 0):g} %")
        unit = trial.seed if trial.group is None else (trial.seed, trial.group)
        found.setdefault(place, {}).setdefault(trial.pretext, {}).setdefault(unit, []).append(trial)
    rows = [
        Row(
            *place,
            fields={pretext: [Unit(tuple(unit)) for unit in units.values()] for pretext, units in fields.items()},
        )
        for place, fields in found.items()
    ]
    order = list(corpora)
    return sorted(rows, key=lambda row: (order.index(row.corpus), row.protocol != _PRETRAIN))


def headline(grid: GridProgress, now: float) -> str:
    """Counts, time gone, time left."""
    counts = grid.counts
    parts = [f"{count} {state}" for state, count in counts.items() if count and state not in ("done",)]
    ended = grid.session.ended
    gone = duration((now if ended is None else ended) - grid.session.began)
    left = "ETA unknown yet" if grid.eta is None else f"ETA {duration(max(0.0, grid.eta - (now - grid.heartbeat)))}"
    told = ", ".join([f"{counts['done']} done", *parts])
    return f"{told} of {len(grid.trials)} trials; {gone} gone" + ("" if ended is not None else f", {left}")


def figures_of(trial: TrialProgress) -> str:
    """The figures of one trial, for a line of text."""
    shown = []
    for name, label in (("val_accuracy", "accuracy"), ("val_cer", "val CER"), ("test_cer", "test CER")):
        if (value := trial.figures.get(name)) is not None:
            shown.append(f"{label} {value:.1f} %")
    if "lines_per_second" in trial.figures:
        shown.append(f"{trial.figures['lines_per_second']:.0f} lines/s")
    return ", ".join(shown)


class View:
    """A grid's progress as rich draws it.

    Args:
        grid: what to draw.
        now: seconds since 1970.
        notes: lines above the matrix.
        whole: all rows, however high the terminal is.
    """

    def __init__(self, grid: GridProgress, now: float, notes: Sequence[str] = (), whole: bool = False) -> None:
        self._grid, self._now, self._notes, self._whole = grid, now, notes, whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, None if self._whole else console.height
        signs = _PLAIN if options.ascii_only else _FINE
        tall = height is None or height >= _TALL
        told = Text(f"{self._grid.name}: {headline(self._grid, self._now)}", style="bold")
        above = [*(Text(note, style="yellow") for note in self._notes), told]
        below = [*self._foot(tall, width, signs), *([_legend(signs)] if tall else [])]
        rows = rows_of(self._grid.trials)
        room = len(rows)
        if height is not None:
            taken = sum(len(text.wrap(console, width)) for text in [*above, *below])
            room = max(1, height - taken - _HEADS)
        yield from above
        yield self._bar(width)
        yield Segment.line()
        yield from self._matrix(rows, room, width, signs)
        yield from below

    def _bar(self, width: int) -> ProgressBar:
        """The share of the planned work."""
        works = [(trial, trial.planned * trial.expected) for trial in self._grid.trials]
        done = sum(work * (1.0 if trial.over else min(1.0, trial.progress / trial.expected)) for trial, work in works)
        total = sum(work for _, work in works)
        return ProgressBar(total=1.0, completed=done / total if total else 1.0, width=min(width, _WIDEST_BAR))

    def _foot(self, tall: bool, width: int, signs: Signs) -> list[Text]:
        lines = []
        if self._grid.session.ended is None:
            lines.append(Text(use_line(self._grid)))
            lines += [Text(line) for line in waiting_lines(self._grid, self._now)[: 4 if tall else 2]]
        lines += _faults(self._grid.trials, 8 if tall else 3, signs)
        return [_short(line, width, signs) for line in lines]

    def _matrix(self, rows: list[Row], room: int, width: int, signs: Signs) -> RenderResult:
        shown, hidden = rows, []
        if len(rows) > room:
            # One line tells of the rest. In the order of the grid, and among equals the first.
            kept = set(sorted(range(len(rows)), key=lambda index: (rows[index].rank, index))[: max(0, room - 1)])
            shown = [row for index, row in enumerate(rows) if index in kept]
            hidden = [row for index, row in enumerate(rows) if index not in kept]
        pretexts = list(dict.fromkeys(trial.pretext for trial in self._grid.trials))
        pretexts.sort(key=lambda name: name != NONE)
        heads = _heads(shown, width)
        field = max(3, (width - sum(heads.values()) - len(heads)) // max(1, len(pretexts)) - 1)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for name, size in heads.items():
            table.add_column(name, width=size, no_wrap=True, overflow=signs.overflow)
        for pretext in pretexts:
            table.add_column(pretext, width=min(field, _WIDEST_FIELD), no_wrap=True, overflow=signs.overflow)
        before = ""
        for row in shown:
            labels = {"corpus": row.corpus if row.corpus != before else "", "protocol": row.protocol}
            labels |= {"decoder": row.decoder or _PRETRAIN, "labels": row.labels}
            before = row.corpus
            cells = [_field(row.fields.get(pretext, []), min(field, _WIDEST_FIELD), signs) for pretext in pretexts]
            table.add_row(*(_label(name, labels[name], heads[name]) for name in heads), *cells)
        yield table
        if hidden:
            yield _short(_rest(hidden, signs), width, signs)


def _heads(rows: Sequence[Row], width: int) -> dict[str, int]:
    """Columns that name a row, with their widths. What is the same everywhere is left out."""
    finetuned = [row for row in rows if row.protocol != _PRETRAIN]
    heads = {"corpus": min(max([6, *(len(row.corpus) for row in rows)]), 10 if width < 100 else 20)}
    if len({row.protocol for row in finetuned}) > 1:
        heads["protocol"] = 6 if width < 100 else 15
    heads["decoder"] = 8 if width < 100 else 12
    heads["labels"] = max([6, *(len(row.labels) for row in rows)])
    return heads


def _label(name: str, text: str, width: int) -> Text:
    short = {"semi_supervised": "semi", "transformer": "transf.", _PRETRAIN: "pretrain"}
    if name == "protocol" and text == _PRETRAIN:
        text = ""
    return Text(short.get(text, text) if len(text) > width else text)


def _field(units: Sequence[Unit], width: int, signs: Signs) -> Text:
    """The richest of its forms that fits."""
    if not units:
        return Text("-", style="dim")
    if all(unit.state == "done" for unit in units):
        finals = [value for unit in units for value in unit.finals]
        if not finals:
            return Text(signs.done, style=_COLOURS["done"])
        mean = f"{statistics.fmean(finals):.1f}"
        if len(finals) == 1:
            return Text(mean)
        spread = statistics.stdev(finals)
        ends = [f" {signs.spread}{spread:.1f}", f"{signs.spread}{spread:.1f}", f"{signs.spread}{spread:.0f}", ""]
        return _fitting([Text.assemble(mean, (end, "dim")) for end in ends], width)
    glyphs, number, epoch = _glyphs(units, signs), _number(units), _epoch(units)
    raced = [trial for unit in units if len(unit.trials) > 1 for trial in unit.trials]
    tail = f"{sum(trial.over for trial in raced)}/{len(raced)}" if raced else ""
    words = [Text.assemble((word, "dim"), epoch) if epoch else epoch for word in ("epoch ", "e")]
    forms = [
        [words[0], number, glyphs, Text(f"{tail} choices" if tail else "")],
        [words[1], number, glyphs, Text(tail)],
        [number, glyphs, Text(tail)],
        [glyphs, Text(tail)],
        [glyphs],
    ]
    return _fitting([Text(" ").join(part for part in form if part) for form in forms], width)


def _fitting(forms: Sequence[Text], width: int) -> Text:
    """The first, and richest, that fits; or the last."""
    return next((text for text in forms if text.cell_len <= width), forms[-1])


def _glyphs(units: Sequence[Unit], signs: Signs) -> Text:
    """A sign for each seed, or, for many, how many there are of each."""
    drawn = [(_glyph(unit, signs), _COLOURS[unit.state]) for unit in units]
    if len(drawn) <= _ENOUGH_SEEDS:
        return Text.assemble(*drawn)
    text = Text()
    for state in ("done", "training", "waiting", "failed"):
        mine = [unit for unit in units if unit.state == state]
        if mine:
            text.append(f"{len(mine)}{_glyph(mine[0], signs)}", style=_COLOURS[mine[0].state])
    return text


def _glyph(unit: Unit, signs: Signs) -> str:
    front = unit.front
    if front is not None:
        return signs.training[min(len(signs.training) - 1, int(front.progress * len(signs.training)))]
    return {"waiting": signs.waiting, "done": signs.done}.get(unit.state, signs.failed)


def _number(units: Sequence[Unit]) -> Text:
    """The mean of what is done, or, before that, of what the ones that train read on validation lines."""
    finals = [value for unit in units for value in unit.finals]
    if finals:
        return Text(f"{statistics.fmean(finals):.1f}")
    running = [front for unit in units if (front := unit.front) is not None]
    names = ("val_accuracy", "val_cer")
    values = [front.figures[name] for front in running for name in names if name in front.figures]
    return Text(f"{statistics.fmean(values):.1f}", style=_COLOURS["training"]) if values else Text()


def _epoch(units: Sequence[Unit]) -> Text:
    fronts = [front for unit in units if (front := unit.front) is not None and front.epoch is not None]
    if not fronts:
        return Text()
    furthest = max(fronts, key=lambda front: front.progress)
    return Text(f"{(furthest.epoch or 0) + 1}", style="dim")


def _faults(trials: Sequence[TrialProgress], most: int, signs: Signs) -> list[Text]:
    """Failed trials and those that were started again, each with the last line of what happened."""
    causes = [trial for trial in trials if trial.state == "failed"]
    # What never began failed with what it waited for: it is counted, the cause is named.
    failed = [trial for trial in causes if trial.attempts]
    behind = len(causes) - len(failed)
    lines = [Text.assemble((f"failed {trial.key}: ", "red"), _last_line(trial.failure or "")) for trial in failed]
    for trial in trials:
        faults = [attempt.fault for attempt in trial.attempts if attempt.fault]
        if faults and not trial.over:
            again = f"attempt {len(trial.attempts) + (trial.state == 'waiting')} of {trial.key}, after: "
            lines.append(Text.assemble((again, "yellow"), _last_line(faults[-1])))
    rest = len(lines) - most + 1
    if rest > 1:
        lines = [*lines[: most - 1], Text(f"{signs.more} {rest} more with faults", style="red")]
    if behind:
        lines.append(Text(f"{many(behind, 'cell')} failed with their pre-training", style="red"))
    return lines


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _rest(rows: Sequence[Row], signs: Signs) -> Text:
    states = [trial.state for row in rows for unit in row.units for trial in unit.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(_COLOURS) if state in states)
    return Text(f"{signs.more} {many(len(rows), 'more row')}: {counts}", style="dim")


def _short(text: Text, width: int, signs: Signs) -> Text:
    text.truncate(width, overflow=signs.overflow)
    return text


def _legend(signs: Signs) -> Text:
    return Text(
        f"{signs.waiting} waiting  {signs.training[len(signs.training) // 2]} training  {signs.done} done  "
        f"{signs.failed} failed; in %: CER on validation lines while training, on test lines when done "
        f"(mean {signs.spread} sd over seeds); pre-trainings: accuracy",
        style="dim",
    )
