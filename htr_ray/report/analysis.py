"""From a grid's results to the numbers of its report: cells, comparisons, labels saved, gains, cost."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from htr_ray.report import statistics
from htr_ray.report.counts import Counts, count
from htr_ray.report.results import GridResults, TrialResult
from htr_ray.report.statistics import Array, Interval, Labels
from htr_ray.train.job import left_out

ALPHA = 0.05
NONE = "none"

Verdict = Literal["better", "worse", "no clear difference"]


class Place(NamedTuple):
    """A cell without its pretext: what a row of the tables is."""

    corpus: str
    protocol: str
    decoder: str
    fraction: float


@dataclass
class Cell:
    """One cell: the mean over its seeds."""

    place: Place
    pretext: str
    trials: list[TrialResult]
    labels: float | None = None
    """Labelled training lines, mean over seeds (they draw different lines, but as many)."""
    cer: float | None = None
    wer: float | None = None
    val_cer: float | None = None
    cer_interval: Interval | None = None
    """Over test lines, and over seeds where there are several."""
    wer_interval: Interval | None = None
    cer_by_writer: Interval | None = None
    """As ``cer_interval``, drawing whole writers."""
    best: bool = False
    """Lowest mean CER of its row."""
    cer_samples: Array | None = field(default=None, repr=False)
    """Bootstrap means [resamples], paired between the cells of a corpus that have the same seeds."""

    @property
    def done(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "done"]

    @property
    def failed(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "failed"]

    @property
    def missing(self) -> list[TrialResult]:
        return [trial for trial in self.trials if trial.state == "missing"]


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same test lines. Negative differences: ``name`` has the lower CER."""

    kind: Literal["pretext", "decoder"]
    corpus: str
    protocol: str
    decoder: str | None
    """None where decoders are compared."""
    fraction: float
    name: str
    reference: str
    difference: float
    """CER of ``name`` minus CER of ``reference``, percentage points, over the seeds that both have."""
    interval: Interval
    p: float
    p_corrected: float
    """After Holm, over all comparisons of the report."""
    lines: int
    seeds: int
    seeds_agreeing: int
    """Seeds in which the difference has the sign of the mean."""
    writers: int | None
    writers_agreeing: int | None

    @property
    def verdict(self) -> Verdict:
        if self.p_corrected >= ALPHA or self.difference == 0:
            return "no clear difference"
        return "better" if self.difference < 0 else "worse"


@dataclass(frozen=True)
class Saving:
    """How many labels from scratch read as well as ``labels`` with pre-training."""

    place: Place
    pretext: str
    labels: float
    equal: Labels
    low: Labels
    high: Labels
    verdict: Verdict | None
    """Of the comparison with as many labels from scratch; None where there was none."""


@dataclass(frozen=True)
class Pretraining:
    """A pretext task on a corpus, mean over seeds."""

    corpus: str
    pretext: str
    trials: list[TrialResult]
    accuracy: float | None
    """On held-out lines, percent."""
    chance: float | None
    minutes: float | None
    gpu_hours: float | None


@dataclass(frozen=True)
class Gain:
    """Pretext accuracy against what it gained downstream."""

    place: Place
    pretext: str
    accuracy: float
    chance: float | None
    gain: float
    """CER from scratch minus CER with pre-training, percentage points."""
    interval: Interval | None


@dataclass(frozen=True)
class Cost:
    """What one trial of a cell takes, means over seeds."""

    place: Place
    pretext: str
    pretrain_minutes: float | None
    """Of its encoder, which other cells share; 0 from scratch."""
    finetune_minutes: float | None
    gpu_hours: float | None
    """Both stages; 0 on CPUs, None where it was not recorded."""
    parameters: float | None
    gflops: float | None

    @property
    def minutes(self) -> float | None:
        if self.pretrain_minutes is None or self.finetune_minutes is None:
            return None
        return self.pretrain_minutes + self.finetune_minutes


@dataclass
class Analysis:
    """All numbers of a report."""

    grid: GridResults
    corpora: list[str]
    pretexts: list[str]
    seeds: list[int]
    cells: dict[tuple[Place, str], Cell]
    pretrainings: list[Pretraining]
    comparisons: list[Comparison]
    savings: list[Saving]
    gains: list[Gain]
    costs: list[Cost]
    champions: dict[str, TrialResult]
    """By corpus, the recognizer with the lowest validation CER (test chooses nothing)."""
    test_lines: dict[str, int]
    test_writers: dict[str, int]
    """Writers of the test lines, where they are known."""
    notes: list[str]

    @property
    def places(self) -> list[Place]:
        return list(dict.fromkeys(place for place, _ in self.cells))

    def row(self, place: Place) -> list[Cell]:
        """The cells of a row, in the order of the pretexts."""
        return [cell for (where, _), cell in self.cells.items() if where == place]

    def comparison(self, place: Place, pretext: str) -> Comparison | None:
        """The comparison of a cell with its row's cell from scratch, if there is one."""
        return next(
            (
                c
                for c in self.comparisons
                if c.kind == "pretext" and (c.corpus, c.protocol, c.decoder, c.fraction, c.name) == (*place, pretext)
            ),
            None,
        )

    @property
    def unfinished(self) -> list[TrialResult]:
        return [trial for trial in self.grid.trials if trial.state != "done"]


def analyse(grid: GridResults, writers: Mapping[str, Mapping[str, str]]) -> Analysis:
    """Compute everything. ``writers``: by corpus, the writers of its test lines by line id, where known."""
    trials = grid.trials
    corpora = list(dict.fromkeys([*grid.corpora, *(trial.corpus for trial in trials)]))
    found = {trial.pretext for trial in trials}
    pretexts = [name for name in dict.fromkeys([*grid.settings.get("pretexts", []), *_names(trials)]) if name in found]
    pretexts.sort(key=lambda name: name != NONE)
    cells = _cells(trials, corpora, pretexts)
    notes = list(grid.notes)
    counts: dict[str, Counts] = {}
    for corpus in corpora:
        readings = {
            trial.key: trial.readings
            for trial in trials
            if trial.corpus == corpus and trial.state == "done" and trial.readings
        }
        counted = count(readings, writers.get(corpus, {})) if readings else None
        if counted is not None:
            counts[corpus] = counted
            notes += _notes(corpus, counted)
    notes += _left_out(trials, corpora)
    for corpus in corpora:
        mine = [cell for cell in cells.values() if cell.place.corpus == corpus]
        _figures(mine, counts.get(corpus))
    for place in dict.fromkeys(place for place, _ in cells):
        row = [cell for (where, _), cell in cells.items() if where == place and cell.cer is not None]
        if len(row) > 1:
            lowest = min(round(cell.cer or 0.0, 6) for cell in row)
            for cell in row:
                cell.best = round(cell.cer or 0.0, 6) == lowest
    comparisons = _corrected(
        [c for corpus in corpora if corpus in counts for c in _comparisons(corpus, cells, counts[corpus], pretexts)]
    )
    pretrainings = _pretrainings(trials, corpora, pretexts)
    made = Analysis(
        grid=grid,
        corpora=corpora,
        pretexts=pretexts,
        seeds=sorted({trial.seed for trial in trials}),
        cells=cells,
        pretrainings=pretrainings,
        comparisons=comparisons,
        savings=[],
        gains=[],
        costs=_costs(cells, pretrainings),
        champions={corpus: best for corpus in corpora if (best := _champion(trials, corpus))},
        test_lines={corpus: len(counted.ids) for corpus, counted in counts.items()},
        test_writers={
            corpus: len(set(counted.writers)) for corpus, counted in counts.items() if counted.writers is not None
        },
        notes=notes,
    )
    made.savings = _savings(made)
    made.gains = _gains(made)
    return made


def _names(trials: Iterable[TrialResult]) -> list[str]:
    return list(dict.fromkeys(trial.pretext for trial in trials))


def _cells(trials: Sequence[TrialResult], corpora: list[str], pretexts: list[str]) -> dict[tuple[Place, str], Cell]:
    """Cells in the order of the tables: corpus, protocol, decoder as they come, labels ascending, pretexts."""
    cells: dict[tuple[Place, str], Cell] = {}
    for trial in trials:
        if trial.stage == "finetune":
            assert trial.protocol is not None and trial.decoder is not None and trial.label_fraction is not None
            place = Place(trial.corpus, trial.protocol, trial.decoder, trial.label_fraction)
            cells.setdefault((place, trial.pretext), Cell(place, trial.pretext, [])).trials.append(trial)
    order = [list(dict.fromkeys(place[axis] for place, _ in cells)) for axis in (1, 2)]

    def rank(key: tuple[Place, str]) -> tuple[int, int, int, float, int]:
        place, pretext = key
        return (
            corpora.index(place.corpus),
            order[0].index(place.protocol),
            order[1].index(place.decoder),
            place.fraction,
            pretexts.index(pretext),
        )

    for cell in cells.values():
        cell.trials.sort(key=lambda trial: trial.seed)
    return {key: cells[key] for key in sorted(cells, key=rank)}


def _notes(corpus: str, counts: Counts) -> list[str]:
    notes = [
        f"{key}: no interval and no test, it read other test lines than most trials (the corpus has changed since)"
        for key in counts.left_out_trials
    ]
    if counts.left_out_lines:
        notes.append(
            f"{corpus}: {counts.left_out_lines} test line(s) that not all trials read are left out of "
            "intervals and tests"
        )
    return notes


def _left_out(trials: Sequence[TrialResult], corpora: Sequence[str]) -> list[str]:
    """Lines that trials could not use, by corpus; several trials may name the same line."""
    notes = []
    for corpus in corpora:
        results = [trial.result for trial in trials if trial.corpus == corpus]
        names = [
            list(dict.fromkeys(str(line) for result in results for line in result.get(kind) or []))
            for kind in ("unreadable", "set_aside")
        ]
        notes += [f"{corpus}: {told}" for told in left_out(*names)]
    return notes


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known and finite; None for nothing."""
    known = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return plain.fmean(known) if known else None


def _figures(cells: list[Cell], counts: Counts | None) -> None:
    """Fill in the figures of a corpus' cells."""
    for cell in cells:
        cell.labels = mean(trial.result.get("lines") for trial in cell.done)
        cell.cer = mean(trial.result.get("test_cer") for trial in cell.done)
        cell.wer = mean(trial.result.get("test_wer") for trial in cell.done)
        cell.val_cer = mean(trial.result.get("val_cer") for trial in cell.done)
    if counts is None or counts.characters.sum() == 0:
        return
    keys = list(counts.character_edits)
    columns = [counts.characters, counts.words]
    columns += [edits[key] for edits in (counts.character_edits, counts.word_edits) for key in keys]
    table = np.stack(columns, axis=1)
    by_line = statistics.bootstrap_sums(table)
    by_writer = None
    if counts.writers is not None and len(set(counts.writers)) > 1:
        by_writer = statistics.bootstrap_sums(table, clusters=counts.writers)

    def samples(sums: Array, cell: Cell, words: bool) -> Array:
        mine = [2 + keys.index(trial.key) + (len(keys) if words else 0) for trial in cell.done]
        lengths = np.maximum(sums[:, 1 if words else 0], 1.0)
        return statistics.mean_over_seeds(100.0 * sums[:, mine] / lengths[:, None])

    for cell in cells:
        if cell.done and all(trial.key in counts.character_edits for trial in cell.done):
            cell.cer_samples = samples(by_line, cell, words=False)
            cell.cer_interval = statistics.interval(cell.cer_samples)
            cell.wer_interval = statistics.interval(samples(by_line, cell, words=True))
            if by_writer is not None:
                cell.cer_by_writer = statistics.interval(samples(by_writer, cell, words=False))


class _About(NamedTuple):
    kind: Literal["pretext", "decoder"]
    corpus: str
    protocol: str
    decoder: str | None
    fraction: float
    name: str
    reference: str


def _comparisons(
    corpus: str, cells: Mapping[tuple[Place, str], Cell], counts: Counts, pretexts: Sequence[str]
) -> list[Comparison]:
    """Every pretext with none, and decoders with each other over all pretexts; not yet corrected."""
    mine = {key: cell for key, cell in cells.items() if key[0].corpus == corpus}
    found = []
    for (place, pretext), cell in mine.items():
        scratch = mine.get((place, NONE))
        if pretext != NONE and scratch is not None:
            pairs = _pairs([cell], [scratch], counts)
            about = _About("pretext", corpus, place.protocol, place.decoder, place.fraction, pretext, NONE)
            found.append(_compare(about, pairs, counts))
    rows = dict.fromkeys((place.protocol, place.fraction) for place, _ in mine)
    decoders = list(dict.fromkeys(place.decoder for place, _ in mine))
    for protocol, fraction in rows:
        for number, reference in enumerate(decoders):
            for name in decoders[number + 1 :]:
                both = [
                    tuple(mine.get((Place(corpus, protocol, which, fraction), pretext)) for which in (name, reference))
                    for pretext in pretexts
                ]
                whole = [(a, b) for a, b in both if a is not None and b is not None]
                pairs = _pairs([a for a, _ in whole], [b for _, b in whole], counts)
                about = _About("decoder", corpus, protocol, None, fraction, name, reference)
                found.append(_compare(about, pairs, counts))
    return [comparison for comparison in found if comparison is not None]


def _pairs(left: Sequence[Cell], right: Sequence[Cell], counts: Counts) -> dict[int, list[tuple[str, str]]]:
    """Keys of the trials to compare, by seed: the same pretext and seed on both sides (so the same labels)."""
    pairs: dict[int, list[tuple[str, str]]] = {}
    for a, b in zip(left, right, strict=True):
        other = {trial.seed: trial.key for trial in b.done if trial.key in counts.character_edits}
        for trial in a.done:
            if trial.seed in other and trial.key in counts.character_edits:
                pairs.setdefault(trial.seed, []).append((trial.key, other[trial.seed]))
    return pairs


def _compare(about: _About, pairs: Mapping[int, list[tuple[str, str]]], counts: Counts) -> Comparison | None:
    if not pairs or counts.characters.sum() == 0:
        return None
    edits = counts.character_edits
    by_seed = [
        np.sum([edits[a] - edits[b] for a, b in found], axis=0) * (100.0 / (len(found) * counts.characters.sum()))
        for found in pairs.values()
    ]
    # The mean over seeds, of which some may have fewer pretexts, times what makes it whole: the test is the same.
    whole = math.lcm(*map(len, pairs.values()))
    total = np.sum(
        [(edits[a] - edits[b]) * (whole // len(found)) for found in pairs.values() for a, b in found], axis=0
    )
    table = np.stack([counts.characters, *(column * counts.characters.sum() for column in by_seed)], axis=1)
    sums = statistics.bootstrap_sums(table)
    samples = statistics.mean_over_seeds(sums[:, 1:] / np.maximum(sums[:, :1], 1.0))
    seeds = [float(column.sum()) for column in by_seed]
    difference = plain.fmean(seeds)
    writers = agreeing = None
    if counts.writers is not None:
        names, member = np.unique(np.array(counts.writers), return_inverse=True)
        signs = np.sign(np.bincount(member, total, len(names)))
        writers, agreeing = len(names), int((signs == np.sign(difference)).sum())
    return Comparison(
        **about._asdict(),
        difference=difference,
        interval=statistics.interval(samples),
        p=statistics.sign_flip_test(total),
        p_corrected=1.0,
        lines=len(counts.ids),
        seeds=len(pairs),
        seeds_agreeing=sum(bool(np.sign(seed) == np.sign(difference)) for seed in seeds),
        writers=writers,
        writers_agreeing=agreeing,
    )


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = statistics.holm([comparison.p for comparison in comparisons])
    return [replace(comparison, p_corrected=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


def _pretrainings(trials: Sequence[TrialResult], corpora: list[str], pretexts: list[str]) -> list[Pretraining]:
    found = []
    for corpus in corpora:
        for pretext in pretexts:
            mine = [t for t in trials if t.stage == "pretrain" and (t.corpus, t.pretext) == (corpus, pretext)]
            if mine:
                done = [trial for trial in mine if trial.state == "done"]
                found.append(
                    Pretraining(
                        corpus,
                        pretext,
                        mine,
                        accuracy=mean(trial.result.get("val_accuracy") for trial in done),
                        chance=mean(trial.result.get("chance") for trial in done),
                        minutes=mean(trial.result.get("minutes") for trial in done),
                        gpu_hours=gpu_hours(done),
                    )
                )
    return found


def gpu_hours(trials: Sequence[TrialResult]) -> float | None:
    """Mean GPU hours of finished trials; None if one of them does not say."""
    hours = [
        None if trial.gpus is None or trial.result.get("minutes") is None else trial.gpus * trial.result["minutes"] / 60
        for trial in trials
    ]
    return None if None in hours else mean(hours)


def _costs(cells: Mapping[tuple[Place, str], Cell], pretrainings: Sequence[Pretraining]) -> list[Cost]:
    encoders = {(made.corpus, made.pretext): made for made in pretrainings}
    costs = []
    for (place, pretext), cell in cells.items():
        if not cell.done:
            continue
        encoder = encoders.get((place.corpus, pretext))
        scratch = pretext == NONE
        shares = [gpu_hours(cell.done), 0.0 if scratch else encoder.gpu_hours if encoder else None]
        costs.append(
            Cost(
                place,
                pretext,
                pretrain_minutes=0.0 if scratch else encoder.minutes if encoder else None,
                finetune_minutes=mean(trial.result.get("minutes") for trial in cell.done),
                gpu_hours=None if None in shares else sum(share or 0.0 for share in shares),
                parameters=mean(trial.result.get("parameters") for trial in cell.done),
                gflops=mean(trial.result.get("gflops") for trial in cell.done),
            )
        )
    return costs


def _champion(trials: Sequence[TrialResult], corpus: str) -> TrialResult | None:
    mine = [
        trial
        for trial in trials
        if trial.corpus == corpus
        and trial.stage == "finetune"
        and trial.state == "done"
        and mean([trial.result.get("val_cer")]) is not None
    ]
    return min(mine, key=lambda trial: trial.result["val_cer"], default=None)


def _savings(made: Analysis) -> list[Saving]:
    """For every pre-trained cell whose row's protocol and decoder have a curve from scratch."""
    found = []
    for (place, pretext), cell in made.cells.items():
        if pretext == NONE or cell.cer is None or not cell.labels:
            continue
        curve = [
            other
            for (where, name), other in made.cells.items()
            if name == NONE and where[:3] == place[:3] and other.cer is not None and other.labels
        ]
        if not curve:
            continue
        labels = [other.labels or 0.0 for other in curve]
        equal = statistics.equal_labels(labels, [other.cer or 0.0 for other in curve], cell.cer)
        low = high = equal
        errors = [other.cer_samples for other in curve if other.cer_samples is not None]
        if cell.cer_samples is not None and len(errors) == len(curve):
            low, high = _between(labels, errors, cell.cer_samples)
        comparison = made.comparison(place, pretext)
        verdict = comparison.verdict if comparison else None
        found.append(Saving(place, pretext, cell.labels, equal, low, high, verdict))
    return found


def _between(labels: Sequence[float], errors: Sequence[Array], targets: Array) -> tuple[Labels, Labels]:
    """Ends of the 95 % interval of the equal number of labels, open where the curve ends."""
    drawn = [
        statistics.equal_labels(labels, row.tolist(), float(target))
        for row, target in zip(np.stack(errors, axis=1), targets, strict=True)
    ]
    ends = {"fewer": 0.0, "more": math.inf}
    ranks = statistics.interval([ends.get(one.kind, one.labels) for one in drawn])

    def end(value: float) -> Labels:
        if value == 0.0:
            return Labels("fewer", min(labels))
        return Labels("more", max(labels)) if math.isinf(value) else Labels("measured", value)

    return end(ranks.low), end(ranks.high)


def _gains(made: Analysis) -> list[Gain]:
    accuracy = {(one.corpus, one.pretext): one for one in made.pretrainings}
    gains = []
    for (place, pretext), cell in made.cells.items():
        encoder = accuracy.get((place.corpus, pretext))
        scratch = made.cells.get((place, NONE))
        if encoder is None or encoder.accuracy is None or scratch is None:
            continue
        if cell.cer is None or scratch.cer is None:
            continue
        # Where seeds differ, the comparison is over those that both have; the figures of the table otherwise.
        comparison = made.comparison(place, pretext)
        gain = scratch.cer - cell.cer if comparison is None else -comparison.difference
        ends = None if comparison is None else Interval(-comparison.interval.high, -comparison.interval.low)
        gains.append(Gain(place, pretext, encoder.accuracy, encoder.chance, gain, ends))
    return gains
