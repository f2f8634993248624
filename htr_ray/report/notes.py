"""Notes of a report: trials and lines that its numbers leave out."""

from __future__ import annotations

from collections.abc import Sequence

from htr_ray.report.counts import Counts
from htr_ray.report.results import TrialResult
from htr_ray.train.job import left_out


def uncounted(corpus: str, counts: Counts) -> list[str]:
    """Trials and test lines that intervals and tests leave out."""
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


def unused_lines(trials: Sequence[TrialResult], corpora: Sequence[str]) -> list[str]:
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
