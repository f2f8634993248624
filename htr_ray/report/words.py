"""The summary in plain words, made from the numbers and saying no more than they do.

The rules, which tests hold it to: "better" and "worse" only where a corrected paired test says so; otherwise "no
clear difference". One seed, few writers, failed and missing trials are named. Nothing beyond what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from htr_ray.report import wording
from htr_ray.report.analysis import Analysis
from htr_ray.report.cells import NONE, Cell
from htr_ray.report.comparisons import ALPHA, Comparison, Verdict
from htr_ray.report.document import Paragraph
from htr_ray.report.gains import Pretraining
from htr_ray.report.wording import count, listed, many, number, percent

FEW_WRITERS = 20
FEW_SEEDS = 5
_SHOWN = 6
HELP = "Does pre-training help?"
_LEARNT = 0.05  # of the way from guessing to all right; below it a task was hardly learnt


def summary(made: Analysis) -> list[Paragraph]:
    """The paragraphs on top of the report; each answers the question that leads it."""
    paragraphs = [Paragraph(_run(made), "What was run.")]
    if any(cell.done for cell in made.cells.values()):
        paragraphs += [_help(made), _tasks(made), _savings(made), _decoders(made), _champions(made), _sure(made)]
    else:
        why = "no recognizer has been trained." if made.cells else "the grid asks for no recognizer."
        paragraphs.append(Paragraph(f"This cannot be said yet: {why}", HELP))
    paragraphs.append(_learnt(made.pretrainings))
    return [paragraph for paragraph in paragraphs if paragraph.text or paragraph.points]


def _told(lead: str, sentences: Sequence[str], closing: str = "") -> Paragraph:
    """One sentence stands in the line, several in a list; nothing for none."""
    if not sentences:
        return Paragraph("", lead)
    if len(sentences) == 1:
        return Paragraph(f"{sentences[0]} {closing}".strip(), lead)
    shown = list(sentences[:_SHOWN])
    if len(sentences) > _SHOWN:
        shown.append(f"{len(sentences) - _SHOWN:,} more are in the tables below.")
    return Paragraph(closing, lead, shown)


def _run(made: Analysis) -> str:
    trials = made.grid.trials
    stages = [(stage, [t for t in trials if t.stage == stage]) for stage in ("pretrain", "finetune")]
    names = {"pretrain": "pre-training", "finetune": "fine-tuning"}
    told = listed([many(len(found), names[stage]) for stage, found in stages if found]) or "nothing"
    corpora = listed(made.corpora)
    text = f"The grid {made.grid.name} has {told} on {many(len(made.corpora), 'corpus', 'corpora')} ({corpora})"
    text += f", with {many(len(made.seeds), 'seed')}." if made.seeds else "."
    left = made.unfinished
    if not left:
        return f"{text} All are finished." if trials else text
    states = made.grid.states
    finished = states.pop("done")
    told = listed([f"{found:,} {state}" for state, found in states.items() if found])
    text += f" Of these {len(trials):,} trials {finished:,} {_are(finished)} finished ({told}): "
    shown = [f"{trial.key} ({trial.state})" for trial in sorted(left, key=lambda trial: trial.state)[:_SHOWN]]
    more = f" and {len(left) - _SHOWN:,} more, listed below" if len(left) > _SHOWN else ""
    return f"{text}{', '.join(shown)}{more}. What follows rests on the finished ones alone."


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _help(made: Analysis) -> Paragraph:
    compared = [c for c in made.comparisons if c.kind == "pretext"]
    if not compared:
        if not any(pretext == NONE for _, pretext in made.cells):
            return Paragraph(
                "This grid cannot say: it has no cell without pre-training to compare with (add none to pretexts and "
                "run it again).",
                HELP,
            )
        if all(pretext == NONE for _, pretext in made.cells):
            return Paragraph(
                "This grid cannot say: it has no cell with pre-training (add a task to pretexts and run it again).",
                HELP,
            )
        return Paragraph(
            "This cannot be said yet: no cell with pre-training and its counterpart without are both finished, with "
            "readings of the same test lines.",
            HELP,
        )
    sentences = []
    for corpus, protocol in dict.fromkeys((c.corpus, c.protocol) for c in compared):
        mine = [c for c in compared if (c.corpus, c.protocol) == (corpus, protocol)]
        sentences.append(f"{corpus}, {protocol}: {_tally(mine)}.")
    closing = "Compared is the CER on the same test lines, with the same decoder, labels and seeds."
    return _told(HELP, sentences, f"{closing}{_wer_remark(made, compared)}")


def _wer_remark(made: Analysis, compared: Sequence[Comparison]) -> str:
    """Says so where the WER goes the other way."""
    clear = [c for c in compared if c.verdict != "no clear difference"]
    against = 0
    for c in clear:
        cells = [cell for cell in made.row(c.place) if cell.pretext in (c.name, c.reference)]
        wers = {cell.pretext: cell.wer for cell in cells}
        wer, other = wers.get(c.name), wers.get(c.reference)
        against += wer is not None and other is not None and (wer - other) * c.difference < 0
    if not against:
        return ""
    return f" In {against:,} of the {many(len(clear), 'clear difference')} the WER goes the other way."


def _tally(compared: Sequence[Comparison]) -> str:
    """``in 2 of 4 comparisons with no pre-training it was better, in 1 worse, in 1 there was no clear difference``."""
    total = many(len(compared), "comparison")
    found: dict[Verdict, int] = {}
    for comparison in compared:
        found[comparison.verdict] = found.get(comparison.verdict, 0) + 1
    if set(found) == {"no clear difference"}:
        return f"no clear difference to no pre-training, in {'any of ' if len(compared) > 1 else ''}{total}"
    better, worse, unclear = (found.get(v, 0) for v in ("better", "worse", "no clear difference"))
    parts = [f"{verdict} in {n:,}" for verdict, n in (("better", better), ("worse", worse)) if n]
    if unclear:
        parts.append(f"with no clear difference in {unclear:,}")
    return f"of {total} with no pre-training, pre-training was {listed(parts)}"


def _tasks(made: Analysis) -> Paragraph:
    compared = [c for c in made.comparisons if c.kind == "pretext"]
    sentences = []
    for name in dict.fromkeys(c.name for c in compared):
        mine = [c for c in compared if c.name == name]
        clear = [c for c in mine if c.verdict != "no clear difference"]
        if not clear:
            where = f" in {'any of ' if len(mine) > 1 else ''}{many(len(mine), 'comparison')}"
            sentences.append(f"{name}: no clear difference{where}.")
            continue
        largest = max(clear, key=lambda c: abs(c.difference))
        tally = [
            f"{verdict} in {n:,}" for verdict in ("better", "worse") if (n := sum(c.verdict == verdict for c in clear))
        ]
        sentences.append(f"{name}: {listed(tally)} of {many(len(mine), 'comparison')}; {_example(made, largest)}.")
    closing = "Each is compared with no pre-training, not with the other tasks." if len(sentences) > 1 else ""
    return _told("Which task?", sentences, closing)


def _example(made: Analysis, comparison: Comparison) -> str:
    """The largest clear difference of a task, in figures over the seeds that were compared."""
    change = "lower" if comparison.difference < 0 else "higher"
    cell = made.cells[comparison.place, comparison.name]
    where = f"{comparison.corpus}, {comparison.decoder}, {wording.labels_of(cell.labels, comparison.fraction)} labels"
    return (
        f"its largest clear difference is a CER {number(abs(comparison.difference))} percentage points {change} "
        f"({where}, {comparison.protocol})"
    )


def _decoders(made: Analysis) -> Paragraph:
    compared = [c for c in made.comparisons if c.kind == "decoder"]
    groups: dict[tuple[str, str, str, str, Verdict], list[Comparison]] = {}
    for c in compared:
        groups.setdefault((c.corpus, c.protocol, c.name, c.reference, c.verdict), []).append(c)
    sentences = []
    for (corpus, protocol, name, reference, verdict), mine in groups.items():
        where = f"with {listed([percent(c.fraction) for c in mine])} of the labels"
        if verdict == "no clear difference":
            sentences.append(f"{corpus}, {protocol}: no clear difference between {name} and {reference} {where}.")
        else:
            points = listed([number(abs(c.difference)) for c in mine])
            by = f"by {points} percentage points of CER"
            sentences.append(f"{corpus}, {protocol}: {name} was {verdict} than {reference} {where}, {by}.")
    return _told("Which decoder?", sentences, "Means over the pretext tasks (and none) that both decoders have.")


def _savings(made: Analysis) -> Paragraph:
    lead = "How many labels does it save?"
    if not made.savings:
        return Paragraph("", lead)
    clear = [s for s in made.savings if s.verdict == "better" and s.equal.kind != "fewer"]
    if not clear:
        return Paragraph("The tests bear out no saving.", lead)
    sentences = []
    for saving in clear:
        place, equal = saving.place, saving.equal
        what = f"{place.corpus}, {place.protocol}, {place.decoder}: {saving.pretext} with {count(saving.labels)} labels"
        start = wording.scratch(place.protocol)
        ends = ""
        if saving.low != saving.high:
            ends = f" (95 % interval {wording.equal_labels(saving.low)} to {wording.equal_labels(saving.high)})"
        if equal.kind == "measured":
            sentences.append(f"{what} reads about as {count(equal.labels)} labels {start} do{ends}.")
        elif saving.low.kind == "more" or equal.labels <= saving.labels:
            # Clear of the end of the curve: by the whole interval, or by the test against just as many labels.
            sentences.append(
                f"{what} reads as more labels {start} than the {count(equal.labels)} that were measured, how many more "
                f"is not known{ends}."
            )
        else:
            sentences.append(
                f"{what} reads about as the {count(equal.labels)} labels {start} do that were measured at most, or "
                f"more{ends}."
            )
    closing = "Between measured numbers of labels this is interpolated; beyond them nothing is claimed."
    return _told(lead, sentences, closing)


def _champions(made: Analysis) -> Paragraph:
    sentences = []
    for corpus, trial in made.champions.items():
        assert trial.label_fraction is not None and trial.protocol is not None
        how = wording.scratch(trial.protocol) if trial.pretext == NONE else f"pre-trained with {trial.pretext}"
        sentences.append(
            f"{corpus}: {trial.decoder}, {how}, with {percent(trial.label_fraction)} of the labels ({trial.protocol}, "
            f"seed {trial.seed}). CER on validation lines {number(trial.result['val_cer'])} %, on test lines "
            f"{number(trial.result.get('test_cer'))} % (WER {number(trial.result.get('test_wer'))} %)."
        )
    return _told("Which recognizer?", sentences, "The lowest validation CER chooses; test lines only measure.")


def _sure(made: Analysis) -> Paragraph:
    sentences = []
    compared = made.comparisons
    if compared:
        sentences.append(
            f"A difference counts as clear where a paired test on the same lines gives p < {ALPHA:g} after Holm's "
            f"correction for all {many(len(compared), 'comparison')} of this report."
        )
    done = [len(cell.done) for cell in made.cells.values() if cell.done]
    fewest = min(done, default=0)
    if fewest == 1:
        some = "Every cell was" if max(done) == 1 else "Some cells were"
        sentences.append(
            f"{some} trained once (one seed): the tests say that these trained models differ on lines like these, not "
            "that another training would come out the same way."
        )
    elif fewest < FEW_SEEDS:
        sentences.append(f"Figures are means over seeds, {fewest} at the fewest; intervals are then rather too narrow.")
    if compared and fewest > 1:
        sentences.append("The test takes the trained models as they are; what other seeds change, intervals show.")
    sentences += _disagreements([c for c in compared if c.verdict != "no clear difference"])
    sentences += [_hands(made, corpus) for corpus in made.corpora if corpus in made.test_lines]
    return Paragraph("", "How sure is that?", sentences)


def _disagreements(clear: Sequence[Comparison]) -> list[str]:
    told = []
    seeds = sum(c.seeds_agreeing < c.seeds for c in clear)
    if seeds:
        told.append(
            f"In {seeds:,} of the {many(len(clear), 'clear difference')} not all seeds show the same direction."
        )
    wide = sum(c.seeds > 1 and c.interval.low <= 0.0 <= c.interval.high for c in clear)
    if wide:
        told.append(
            f"In {wide:,} of the {many(len(clear), 'clear difference')} the interval over lines and seeds reaches 0: "
            "with other seeds there might be none."
        )
    writers = sum(c.writers is not None and c.writers_agreeing != c.writers for c in clear)
    if writers:
        told.append(
            f"In {writers:,} of the {many(len(clear), 'clear difference')} some writers show no such difference."
        )
    return told


def _hands(made: Analysis, corpus: str) -> str:
    """What the test lines can say about other writers."""
    lines, writers = made.test_lines[corpus], made.test_writers.get(corpus)
    if writers is None:
        return (
            f"{corpus}: {many(lines, 'test line')}, whose writers are not known; lines of one hand are alike, so "
            "intervals may be too narrow."
        )
    if writers < FEW_WRITERS:
        return (
            f"{corpus}: {many(lines, 'test line')} by only {many(writers, 'writer')}; lines of one hand are alike, so "
            "intervals and tests over lines say little about other hands."
        )
    return f"{corpus}: {many(lines, 'test line')} by {many(writers, 'writer')}."


def _learnt(pretrainings: Sequence[Pretraining]) -> Paragraph:
    told = []
    for made in pretrainings:
        if made.accuracy is None:
            continue
        text = f"{made.corpus}, {made.pretext}: {number(made.accuracy)} %"
        if made.chance is not None:
            text += f" (guessing gives {number(made.chance)} %)"
            if made.accuracy - made.chance < _LEARNT * (100.0 - made.chance):
                text += ", hardly above guessing"
        told.append(f"{text}.")
    closing = "That is the accuracy on held-out lines. A task learnt well need not make reading easier."
    return _told("Were the tasks learnt?", told, closing)


def state_of(cell: Cell) -> str:
    """What a table says of a cell that is not whole: ``failed``, ``missing``, ``2 of 3 seeds``; else nothing."""
    if not cell.done:
        return "failed" if cell.failed else "missing"
    left = len(cell.trials) - len(cell.done)
    return f"{len(cell.done)} of {len(cell.trials)} seeds" if left else ""
