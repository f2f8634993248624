"""The tables of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from htr_ray.report import wording
from htr_ray.report.analysis import Analysis
from htr_ray.report.cells import NONE, Cell, Place
from htr_ray.report.comparisons import ALPHA
from htr_ray.report.document import MANY_ROWS, Table, Value
from htr_ray.report.means import mean
from htr_ray.report.savings import Saving
from htr_ray.report.wording import anchor, count, number
from htr_ray.report.words import state_of
from htr_ray.storage import redacted

LOWER, HIGHER = "▼", "▲"
_MEANING = {
    LOWER: "significantly lower CER than without pre-training",
    HIGHER: "significantly higher CER than without pre-training",
}


def error_tables(made: Analysis) -> list[Table]:
    """CER and WER by decoder, labels and pretext: one table per corpus and protocol, as in the literature."""
    tables = []
    for corpus, protocol in dict.fromkeys(place[:2] for place in made.places):
        places = [place for place in made.places if place[:2] == (corpus, protocol)]
        pretexts = _pretexts(made, places)
        rows = []
        for place in places:
            cells = {cell.pretext: cell for cell in made.row(place)}
            labels = wording.labels_of(_labels(cells.values()), place.fraction)
            for measure in ("CER", "WER"):
                head = [Value(place.decoder), Value(labels), Value(measure)]
                rows.append([*head, *(_error(made, cells.get(name), measure) for name in pretexts)])
        marks = {value.mark for row in rows for value in row} & set(_MEANING)
        legend = _legend(made, corpus, protocol, marks, any(name == NONE for name in pretexts))
        tables.append(
            Table(
                anchor("errors", corpus, protocol),
                f"{corpus}, {protocol}: errors on the test lines in percent",
                ["decoder", "labels", "measure", *pretexts],
                rows,
                headers=3,
                legend=legend,
            )
        )
    return tables


def _error(made: Analysis, cell: Cell | None, measure: str) -> Value:
    if cell is None:
        return Value(wording.UNKNOWN, muted=True)
    state = state_of(cell)
    if not cell.done:
        return Value(state, muted=True)
    value, ends = (cell.cer, cell.cer_interval) if measure == "CER" else (cell.wer, cell.wer_interval)
    detail = " ".join(part for part in (wording.interval(ends), f"({state})" if state else "") if part)
    if measure == "WER":
        return Value(number(value), detail)
    comparison = made.comparison(cell.place, cell.pretext)
    mark = {"better": LOWER, "worse": HIGHER}.get(comparison.verdict, "") if comparison else ""
    return Value(number(value), detail, strong=cell.best, mark=mark, meaning=_MEANING.get(mark, ""))


def _legend(made: Analysis, corpus: str, protocol: str, marks: set[str], scratch: bool) -> str:
    seeds = {len(cell.done) for cell in made.cells.values() if cell.place[:2] == (corpus, protocol) and cell.done}
    if not seeds:
        return "Nothing of this is finished."
    over = "test lines" if seeds <= {1} else "test lines and seeds"
    told = [
        f"{'Figures of one seed' if seeds <= {1} else 'Means over seeds'} with 95 % intervals (bootstrap over {over}). "
        "Bold: lowest CER of the row."
    ]
    if not scratch:
        return f"{told[0]} There is no column without pre-training to test against."
    told += [f"{mark} {_MEANING[mark]}." for mark in (LOWER, HIGHER) if mark in marks]
    name = "none: " + ("the encoder is random and fixed." if protocol == "frozen" else "trained from scratch.")
    tested = any(c.kind == "pretext" and (c.corpus, c.protocol) == (corpus, protocol) for c in made.comparisons)
    if not tested:
        return " ".join([*told, "No difference to none could be tested.", name])
    if not marks:
        told.append("No difference to none is significant, so none is marked.")
    return " ".join([*told, f"Paired permutation test, p < {ALPHA:g} after Holm's correction.", name])


def writer_tables(made: Analysis) -> list[Table]:
    """Intervals from drawing whole writers: what the figures say about other hands."""
    tables = []
    for corpus in made.corpora:
        places = [place for place in made.places if place.corpus == corpus]
        if not any(cell.cer_by_writer for place in places for cell in made.row(place)):
            continue
        pretexts = _pretexts(made, places)
        rows = []
        for place in places:
            cells = {cell.pretext: cell for cell in made.row(place)}
            labels = wording.labels_of(_labels(cells.values()), place.fraction)
            values = [
                Value(number(cell.cer), wording.interval(cell.cer_by_writer))
                if (cell := cells.get(name)) is not None and cell.done
                else Value(wording.UNKNOWN, muted=True)
                for name in pretexts
            ]
            rows.append([Value(place.protocol), Value(place.decoder), Value(labels), *values])
        tables.append(
            Table(
                anchor("writers", corpus),
                f"{corpus}: CER in percent with 95 % intervals over writers",
                ["protocol", "decoder", "labels", *pretexts],
                rows,
                headers=3,
                legend=(
                    f"Whole writers are drawn ({made.test_writers[corpus]} in the test lines), because lines of one "
                    "writer are not independent. With fewer than about 20 writers such intervals are rough."
                ),
                closed=True,
            )
        )
    return tables


def comparison_table(made: Analysis) -> Table | None:
    """Every test of the report."""
    if not made.comparisons:
        return None
    rows = []
    for c in made.comparisons:
        seeds = f"{c.seeds_agreeing} of {c.seeds}"
        writers = wording.UNKNOWN if c.writers is None else f"{c.writers_agreeing} of {c.writers}"
        rows.append(
            [
                Value(f"{c.name} - {c.reference}"),
                Value(c.corpus),
                Value(c.protocol),
                Value(c.decoder or "both"),
                Value(wording.percent(c.fraction)),
                Value(wording.signed(c.difference), wording.interval(c.interval)),
                Value(wording.p_value(c.p)),
                Value(wording.p_value(c.p_corrected)),
                Value(seeds),
                Value(writers),
                Value(c.verdict, strong=c.verdict != "no clear difference"),
            ]
        )
    return Table(
        "comparisons",
        "Every comparison: difference in CER on the same test lines, in percentage points",
        [
            "compared",
            "corpus",
            "protocol",
            "decoder",
            "labels",
            "difference",
            "p",
            "p corrected",
            "seeds agree",
            "writers agree",
            "verdict",
        ],
        rows,
        headers=5,
        legend=(
            "Negative: fewer errors than what it is compared with. Exact paired permutation test (sign flips) of the "
            "errors of each line, seeds averaged; corrected after Holm over all rows. Agree: in how many seeds, and "
            "for how many writers, the difference has this sign. The test takes lines as independent."
        ),
        closed=True,
    )


def saving_tables(made: Analysis) -> list[Table]:
    """How many labels from scratch read as well as these with pre-training."""
    tables = []
    for corpus in made.corpora:
        mine = {(s.place, s.pretext): s for s in made.savings if s.place.corpus == corpus}
        places = list(dict.fromkeys(place for place, _ in mine))
        if not places:
            continue
        pretexts = list(dict.fromkeys(name for name in made.pretexts if any(name == p for _, p in mine)))
        rows = []
        for place in places:
            values = [_saving(mine.get((place, name))) for name in pretexts]
            labels = _labels(made.row(place))
            rows.append(
                [Value(place.protocol), Value(place.decoder), Value("-" if labels is None else count(labels)), *values]
            )
        tables.append(
            Table(
                anchor("saved", corpus),
                f"{corpus}: labels from scratch that give the same CER",
                ["protocol", "decoder", "labels", *pretexts],
                rows,
                headers=3,
                legend=(
                    "With 95 % intervals. Interpolated between the measured numbers of labels (straight lines, labels "
                    'on a logarithmic scale). "more than": a lower CER than with the most that were measured from '
                    'scratch; "fewer than": a higher CER than with the fewest. In grey where the difference to as '
                    "many labels from scratch is not significant."
                ),
            )
        )
    return tables


def _saving(saving: Saving | None) -> Value:
    if saving is None:
        return Value(wording.UNKNOWN, muted=True)
    ends = ""
    if saving.low != saving.high:
        ends = f"[{wording.equal_labels(saving.low)}, {wording.equal_labels(saving.high)}]"
    unclear = saving.verdict not in ("better", "worse")
    return Value(wording.equal_labels(saving.equal), ends, muted=unclear)


def pretraining_table(made: Analysis) -> Table | None:
    """How well the tasks were learnt."""
    if not made.pretrainings:
        return None
    rows = []
    for one in made.pretrainings:
        done = [trial for trial in one.trials if trial.state == "done"]
        state = f"{len(done)} of {len(one.trials)}"
        failed = any(trial.state == "failed" for trial in one.trials)
        accuracy = Value(number(one.accuracy)) if done else Value("failed" if failed else "missing", muted=True)
        seeds = [trial.result.get("val_accuracy") for trial in done]
        spread = [value for value in seeds if isinstance(value, int | float)]
        if len(spread) > 1:
            accuracy = Value(number(one.accuracy), f"({number(min(spread))} to {number(max(spread))})")
        rows.append(
            [
                Value(one.corpus),
                Value(one.pretext),
                accuracy,
                Value(number(one.chance)),
                Value(number(one.minutes)),
                Value(number(one.gpu_hours, 2)),
                Value(state),
            ]
        )
    return Table(
        "pretraining",
        "Pretext accuracy on held-out lines in percent",
        ["corpus", "pretext", "accuracy", "by guessing", "minutes", "GPU hours", "seeds finished"],
        rows,
        headers=2,
        legend="Means over seeds (from the lowest to the highest).",
    )


def gain_table(made: Analysis) -> Table | None:
    """Pretext accuracy beside what it gained."""
    if not made.gains:
        return None
    rows = [
        [
            *map(
                Value, (g.place.corpus, g.pretext, g.place.protocol, g.place.decoder, wording.percent(g.place.fraction))
            ),
            Value(number(g.accuracy)),
            Value(wording.signed(g.gain), wording.interval(g.interval)),
        ]
        for g in made.gains
    ]
    return Table(
        "gains",
        "Pretext accuracy (percent) and CER saved against none (percentage points)",
        ["corpus", "pretext", "protocol", "decoder", "labels", "pretext accuracy", "CER saved"],
        rows,
        headers=5,
        legend="Positive: fewer errors than without pre-training. Tasks differ in what guessing gives, see above.",
        closed=True,
    )


def cost_table(made: Analysis) -> Table | None:
    """What a trial of each cell takes."""
    if not made.costs:
        return None
    rows = []
    for cost in made.costs:
        place = cost.place
        millions = None if cost.parameters is None else cost.parameters / 1e6
        rows.append(
            [
                *map(
                    Value, (place.corpus, place.protocol, place.decoder, wording.percent(place.fraction), cost.pretext)
                ),
                Value(number(cost.pretrain_minutes)),
                Value(number(cost.finetune_minutes)),
                Value(number(cost.minutes)),
                Value(number(cost.gpu_hours, 2)),
                Value(number(millions)),
                Value(number(cost.gflops)),
            ]
        )
    return Table(
        "costs",
        "Cost of one trial of each cell (mean over seeds)",
        [
            "corpus",
            "protocol",
            "decoder",
            "labels",
            "pretext",
            "minutes pre-training",
            "minutes fine-tuning",
            "minutes together",
            "GPU hours",
            "million parameters",
            "GFLOPs",
        ],
        rows,
        headers=5,
        legend=(
            "Wall-clock minutes of training. An encoder is pre-trained once and shared by all cells that start from "
            "it. GPU hours: both stages, 0.00 on CPUs, a dash where it was not recorded. Parameters and operations "
            "(10^9, a multiply-add being two) of reading one line four times as wide as high."
        ),
    )


def unfinished_table(made: Analysis) -> Table | None:
    """Trials that failed or are missing, with the reason."""
    if not made.unfinished:
        return None
    rows = [
        [Value(trial.key), Value(trial.state, strong=trial.state == "failed"), Value(_reason(trial.failure))]
        for trial in sorted(made.unfinished, key=lambda trial: trial.state)
    ]
    return Table(
        "unfinished",
        f"Trials without a result: {len(rows)}",
        ["trial", "state", "reason"],
        rows,
        numbers=False,
        closed=len(rows) > MANY_ROWS,
    )


def _reason(failure: str | None) -> str:
    return redacted(failure) if failure else "not run yet, or interrupted; the same command continues the grid"


def _labels(cells: Iterable[Cell]) -> float | None:
    return mean(cell.labels for cell in cells)


def _pretexts(made: Analysis, places: Sequence[Place]) -> list[str]:
    found = {pretext for place, pretext in made.cells if place in places}
    return [name for name in made.pretexts if name in found]
