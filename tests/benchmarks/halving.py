"""Where the time of a grid went, what halving spared, and what it cost beside a grid without it.

python tests/benchmarks/halving.py runs/dhsd-halved [runs/dhsd-whole]
"""

from __future__ import annotations

import statistics
import sys

from htr_ray.report.attempts import in_words, joined, use_of
from htr_ray.sweep.history import timeline_of
from htr_ray.sweep.progress import read_progress
from htr_ray.sweep.results import load_grid


def main(folder: str, whole: str | None) -> None:
    progress = read_progress(folder)
    assert progress is not None, f"{folder} has no progress.json"
    timeline = timeline_of(progress)
    bars, _ = joined(timeline)
    use = use_of(timeline)
    assert use is not None
    places = use.seconds  # of all places together, as shares
    started = [(bar, bar.trained_from, bar.trained_to) for bar in bars]
    trained = [(bar, since, to) for bar, since, to in started if since is not None and to is not None]
    parts = {
        "training": sum(bar.share * bar.trained for bar in bars),
        "starting (handed out to first step)": sum(bar.share * (since - bar.began) for bar, since, _ in trained),
        "test and files (last step to end)": sum(bar.share * (bar.ended - to) for bar, _, to in trained),
    }
    parts["no trial in the place"] = places - sum(bar.share * (bar.ended - bar.began) for bar in bars)
    print(in_words(timeline))
    for name, seconds in parts.items():
        print(f"| {name} | {100 * seconds / places:.1f} % |")
    starts = sorted(since - bar.began for bar, since, _ in trained)
    ends = sorted(bar.ended - to for bar, _, to in trained if bar.outcome == "done")
    print(f"start, seconds: median {statistics.median(starts):.1f}, longest {starts[-1]:.1f}")
    print(f"end of those that finished, seconds: median {statistics.median(ends):.1f}")

    grid, other = load_grid(folder), load_grid(whole) if whole else None
    choices = [choice for search in grid.searches for choice in search.choices]
    ended = [choice for choice in choices if choice.state == "halved"]
    spent = sum(choice.minutes for choice in choices)
    spared = sum(choice.spared for choice in choices)
    print(
        f"{len(ended)} of {len(choices)} choices ended early; {spent:.1f} min of training instead of about "
        f"{spent + spared:.1f}: {100 * spared / (spent + spared):.0f} % spared"
    )
    tested = {trial.key: trial.result.get("test_cer") for trial in grid.trials}
    untouched = {search.key: search for search in other.searches} if other else {}
    tested_there = {trial.key: trial.result.get("test_cer") for trial in other.trials} if other else {}
    for search in (search for search in grid.searches if search.winner is not None):
        won = next(choice for choice in search.choices if choice.number == search.winner)
        line = (
            f"| {search.key} | {won.number} | {won.figure:.1f} | {tested.get(f'{search.key}/choice{won.number}'):.1f} |"
        )
        if search.key in untouched:
            best = untouched[search.key]
            there = next(choice for choice in best.choices if choice.number == best.winner)
            line += (
                f" {there.number} | {there.figure:.1f} | {tested_there.get(f'{search.key}/choice{there.number}'):.1f} |"
            )
        print(line)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
