"""The summary in plain words, made from the numbers and saying no more than they do.

The rules, which tests hold it to: "better" and "worse" only where a corrected paired test says so; otherwise "no
clear difference". One seed, few writers, failed and missing trials are named. Nothing beyond what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from htr_ray.report import wording
from htr_ray.report.analysis import ALPHA, NONE, Analysis, Cell, Comparison, Pretraining, Verdict
from htr_ray.report.document import Paragraph
from htr_ray.report.wording import count, listed, many, number, percent

FEW_WRITERS = 20
FEW_SEEDS = 5
_SHOWN = 5
_LEARNT = 0.05  # of the way from guessing to all right; below it a task was hardly learnt


def summary(made: Analysis) -> list[Paragraph]:
    """The paragraphs on top of the report; each answers the question that leads it."""
    paragraphs = [("What was run.", _run(made))]
    if any(cell.done for cell in made.cells.values()):
        paragraphs += [
            ("Does pre-training help?", _help(made)),
            ("Which task?", _tasks(made)),
            ("Which decoder?", _decoders(made)),
            ("How many labels does it save?", _savings(made)),
            ("Which recognizer?", _champions(made)),
            ("How sure is that?", _sure(made)),
        ]
    else:
        asked = any(made.cells)
        paragraphs.append(
            (
                "Does pre-training help?",
                "This cannot be said yet: "
                + ("no recognizer has been trained." if asked else "the grid asks for no recognizer."),
            )
        )
    paragraphs.append(("Were the tasks learnt?", _learnt(made.pretrainings)))
    return [Paragraph(text, lead) for lead, text in paragraphs if text]


def _run(made: Analysis) -> str:
    trials = made.grid.trials
    stages = [(stage, [t for t in trials if t.stage == stage]) for stage in ("pretrain", "finetune")]
    names = {"pretrain": "pre-training", "finetune": "fine-tuning"}
    told = listed([many(len(found), names[stage]) for stage, found in stages if found]) or "nothing"
    corpora = listed(made.corpora)
    text = f"The grid {made.grid.name} asks for {told} on {many(len(made.corpora), 'corpus', 'corpora')} ({corpora})"
    text += f", with {many(len(made.seeds), 'seed')}." if made.seeds else "."
    left = made.unfinished
    if not left:
        return f"{text} All are finished." if trials else text
    states = [(state, [t for t in left if t.state == state]) for state in ("failed", "missing")]
    told = listed([f"{len(found):,} {state}" for state, found in states if found])
    finished = len(trials) - len(left)
    text += f" Of these {len(trials):,} trials {finished:,} {_are(finished)} finished ({told}): "
    shown = [f"{trial.key} ({trial.state})" for trial in sorted(left, key=lambda trial: trial.state)[:_SHOWN]]
    more = f" and {len(left) - _SHOWN:,} more, listed below" if len(left) > _SHOWN else ""
    return f"{text}{', '.join(shown)}{more}. What follows rests on the finished ones alone."


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _help(made: Analysis) -> str:
    compared = [c for c in made.comparisons if c.kind == "pretext"]
    if not compared:
        if not any(pretext == NONE for _, pretext in made.cells):
            return (
                "This grid cannot say: it has no cell without pre-training to compare with (add none to pretexts and "
                "run it again)."
            )
        if all(pretext == NONE for _, pretext in made.cells):
            return "This grid cannot say: it has no cell with pre-training (add a task to pretexts and run it again)."
        return (
            "This cannot be said yet: no cell with pre-training and its counterpart without are both finished, with "
            "readings of the same test lines."
        )
    sentences = []
    for corpus, protocol in dict.fromkeys((c.corpus, c.protocol) for c in compared):
        mine = [c for c in compared if (c.corpus, c.protocol) == (corpus, protocol)]
        sentences.append(f"{corpus}, {protocol}: {_tally(mine)}.")
    return (
        f"{' '.join(sentences)} Each comparison is of CER on the same test lines, with the same decoder, the same "
        "labels and the same seeds."
    )


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


def _tasks(made: Analysis) -> str:
    compared = [c for c in made.comparisons if c.kind == "pretext"]
    if len({c.name for c in compared}) < 1:
        return ""
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
    if len(sentences) > 1:
        sentences.append("The tasks were tested against no pre-training, not against each other.")
    return " ".join(sentences)


def _example(made: Analysis, comparison: Comparison) -> str:
    """The largest clear difference of a task, in figures over the seeds that were compared."""
    change = "lower" if comparison.difference < 0 else "higher"
    cell = next(
        cell
        for (place, pretext), cell in made.cells.items()
        if (*place, pretext) == (*_place(comparison), comparison.name)
    )
    where = f"{comparison.corpus}, {comparison.decoder}, {wording.labels_of(cell.labels, comparison.fraction)} labels"
    return (
        f"its largest clear difference is a CER {number(abs(comparison.difference))} percentage points {change} "
        f"({where}, {comparison.protocol})"
    )


def _place(comparison: Comparison) -> tuple[str, str, str | None, float]:
    return comparison.corpus, comparison.protocol, comparison.decoder, comparison.fraction


def _decoders(made: Analysis) -> str:
    compared = [c for c in made.comparisons if c.kind == "decoder"]
    sentences = []
    for c in compared:
        where = f"{c.corpus}, {c.protocol}, {percent(c.fraction)} of the labels"
        if c.verdict == "no clear difference":
            sentences.append(f"{where}: no clear difference between {c.name} and {c.reference}.")
        else:
            sentences.append(
                f"{where}: {c.name} was {c.verdict} than {c.reference}, by {number(abs(c.difference))} percentage "
                "points of CER."
            )
    if sentences:
        sentences.append("These are means over the pretext tasks (and none) that both decoders have.")
    return " ".join(sentences)


def _savings(made: Analysis) -> str:
    if not made.savings:
        return ""
    clear = [s for s in made.savings if s.verdict == "better"]
    if not clear:
        return "None that the tests bear out."
    sentences = []
    for saving in clear:
        place, equal = saving.place, saving.equal
        what = (
            f"{place.corpus}, {place.protocol}, {place.decoder}: with {count(saving.labels)} labels, {saving.pretext}"
        )
        start = wording.scratch(place.protocol)
        if equal.kind == "measured":
            ends = f"95 % interval {wording.equal_labels(saving.low)} to {wording.equal_labels(saving.high)}"
            known = f" ({ends})" if saving.low != saving.high else ""
            sentences.append(f"{what} reads about as {count(equal.labels)} labels {start} do{known}.")
        elif equal.kind == "more":
            sentences.append(
                f"{what} reads with a lower CER than {start} with {count(equal.labels)}, the most that were measured; "
                "how many more it would take is not known."
            )
    if not sentences:
        return "This cannot be told from what was measured."
    sentences.append("Between measured numbers of labels this is interpolated; beyond them nothing is claimed.")
    return " ".join(sentences)


def _champions(made: Analysis) -> str:
    sentences = []
    for corpus, trial in made.champions.items():
        assert trial.label_fraction is not None and trial.protocol is not None
        how = wording.scratch(trial.protocol) if trial.pretext == NONE else f"pre-trained with {trial.pretext}"
        sentences.append(
            f"{corpus}: the lowest validation CER ({number(trial.result['val_cer'])} %) has {trial.decoder}, {how}, "
            f"with {percent(trial.label_fraction)} of the labels ({trial.protocol}, seed {trial.seed}); it reads the "
            f"test lines with a CER of {number(trial.result.get('test_cer'))} % and a WER of "
            f"{number(trial.result.get('test_wer'))} %."
        )
    if sentences:
        sentences.append("Validation lines choose, test lines only measure.")
    return " ".join(sentences)


def _sure(made: Analysis) -> str:
    sentences = []
    compared = made.comparisons
    if compared:
        sentences.append(
            f"A difference counts as clear where a paired test on the same lines gives p < {ALPHA:g} after Holm's "
            f"correction for all {many(len(compared), 'comparison')} of this report."
        )
    done = [cell for cell in made.cells.values() if cell.done]
    fewest = min((len(cell.done) for cell in done), default=0)
    if fewest == 1:
        some = "Every cell was" if max(len(cell.done) for cell in done) == 1 else "Some cells were"
        sentences.append(
            f"{some} trained once (one seed): the tests say that these trained models differ on lines like these, not "
            "that another training would come out the same way."
        )
    elif fewest < FEW_SEEDS:
        sentences.append(
            f"Figures are means over seeds, {fewest} at the fewest; with so few the intervals are rather too narrow."
        )
    for corpus in made.corpora:
        writers = made.test_writers.get(corpus)
        lines = made.test_lines.get(corpus)
        if lines is None:
            continue
        if writers is None:
            sentences.append(
                f"{corpus}: {many(lines, 'test line')}, whose writers are not known; lines of one hand are alike, so "
                "intervals may be too narrow."
            )
        elif writers < FEW_WRITERS:
            sentences.append(
                f"{corpus}: {many(lines, 'test line')} by only {many(writers, 'writer')}; lines of one hand are alike, "
                "so intervals and tests over lines say little about other hands (intervals over writers are given too)."
            )
        else:
            sentences.append(f"{corpus}: {many(lines, 'test line')} by {many(writers, 'writer')}.")
    return " ".join(sentences)


def _learnt(pretrainings: Sequence[Pretraining]) -> str:
    told = []
    for made in pretrainings:
        if made.accuracy is None:
            continue
        text = f"{made.corpus}, {made.pretext}: {number(made.accuracy)} %"
        if made.chance is not None:
            text += f" (guessing gives {number(made.chance)} %)"
            if made.accuracy - made.chance < _LEARNT * (100.0 - made.chance):
                text += ", hardly above guessing"
        told.append(text)
    if not told:
        return ""
    return f"Accuracy on held-out lines: {'; '.join(told)}. A task learnt well need not make reading easier."


def state_of(cell: Cell) -> str:
    """What a table says of a cell that is not whole: ``failed``, ``missing``, ``2 of 3 seeds``; else nothing."""
    if not cell.done:
        return "failed" if cell.failed else "missing"
    left = len(cell.trials) - len(cell.done)
    return f"{len(cell.done)} of {len(cell.trials)} seeds" if left else ""
