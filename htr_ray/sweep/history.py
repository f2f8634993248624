"""The attempts of a grid's trials, from its progress file, as the report draws them."""

from __future__ import annotations

from typing import Literal

from htr_ray.report.attempts import Bar, Timeline
from htr_ray.sweep.progress import Attempt, GridProgress, TrialProgress


def timeline_of(grid: GridProgress) -> Timeline:
    """All attempts, also those of earlier drivers; what still runs lasts until the last heartbeat."""
    bars = [_bar(grid, trial, attempt) for trial in [*grid.earlier, *grid.trials] for attempt in trial.attempts]
    sessions = [
        (session.began, grid.heartbeat if session.ended is None else session.ended) for session in grid.sessions
    ]
    return Timeline(bars, sessions)


def _bar(grid: GridProgress, trial: TrialProgress, attempt: Attempt) -> Bar:
    return Bar(
        label=_label(trial),
        stage=trial.stage,
        began=attempt.began,
        ended=grid.heartbeat if attempt.ended is None else attempt.ended,
        trained_from=attempt.trained_from,
        trained_to=attempt.trained_to,
        share=attempt.share,
        node=attempt.node,
        outcome=_outcome(trial, attempt),
    )


def _outcome(trial: TrialProgress, attempt: Attempt) -> Literal["done", "halved", "failed", "open"]:
    if attempt.fault is not None:
        return "failed"
    if attempt is not trial.attempt or attempt.ended is None or not trial.over:
        return "open"
    return "halved" if trial.state == "halved" else "done"


def _label(trial: TrialProgress) -> str:
    if trial.stage == "pretrain":
        return trial.pretext
    return f"{trial.decoder} {100 * (trial.label_fraction or 0):g} % {trial.pretext}"
