"""What a running grid waits for, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from htr_ray.sweep.progress import GridProgress, TrialProgress, Use, open_counts
from htr_ray.sweep.wording import amount, duration, many

STILL_SECONDS = 60.0
"""When nothing has started or ended for so long although it could, that is told."""
_NAMED = 2
_TINY = 1e-6


def use_line(grid: GridProgress) -> str:
    """CPUs, GPUs and nodes in use, and how busy the GPUs are where trials tell it."""
    training = [trial for trial in grid.trials if trial.state == "training"]
    use, told = grid.use, []
    if use is not None:
        told.append(f"CPUs {amount(use.cpus - use.free_cpus)} of {amount(use.cpus)} in use")
    if use is not None and use.gpus:
        busy = [b for t in training if (b := t.figures.get("system/gpu_0_utilization_percentage")) is not None]
        told.append(f"GPUs {amount(use.gpus - use.free_gpus)} of {amount(use.gpus)}")
        told[-1] += f" (busy {sum(busy) / len(busy):.0f} %)" if busy else ""
    if use is not None and use.nodes > 1:
        told.append(f"{use.nodes} nodes")
    if grid.max_concurrent is not None:
        told.append(f"{len(training)} of at most {many(grid.max_concurrent, 'trial')} at a time")
    return ", ".join(told)


def waiting_lines(grid: GridProgress, now: float) -> list[str]:
    """What the waiting trials wait for, the most important first; nothing where none waits."""
    left = open_counts(grid.trials)
    working = {key for t in grid.trials if t.state == "training" for key in (t.key, t.group) if key is not None}
    waiting = [trial for trial in grid.trials if trial.state == "waiting"]
    ready = [trial for trial in waiting if not any(left[key] for key in trial.behind)]
    # What waits itself is told by the line about what is ready.
    behind = Counter(next((k for k in t.behind if k in working), "") for t in waiting if any(left[k] for k in t.behind))
    still = stall(grid, now)
    lines = [still] if still else []
    if ready and not still:
        lines.append(_for_room(ready, grid))
    known = [(key, number) for key, number in behind.most_common() if key]
    for key, number in known[:_NAMED]:
        lines.append(f"{many(number, 'trial')} wait{'s' * (number == 1)} for {_told(key, grid.trials)}")
    rest = known[_NAMED:]
    if rest:
        number = sum(number for _, number in rest)
        lines.append(f"{many(number, 'trial')} wait{'s' * (number == 1)} for {len(rest)} other(s)")
    return lines


def stall(grid: GridProgress, now: float) -> str | None:
    """Why nothing starts although something is ready, if that has gone on for a minute."""
    left = open_counts(grid.trials)
    ready = [t for t in grid.trials if t.state == "waiting" and not any(left[key] for key in t.behind)]
    if not ready or grid.session.ended is not None:
        return None
    training = [trial for trial in grid.trials if trial.state == "training"]
    moments = [m for trial in grid.trials for a in trial.attempts for m in (a.began, a.ended) if m is not None]
    quiet = now - max([*moments, grid.session.began])
    if quiet < STILL_SECONDS or (training and not _has_room(ready[0], training, grid)):
        return None
    use, first = grid.use, ready[0]
    told = f"nothing has started for {duration(quiet)}: {first.key} needs {_need(first)}"
    return told if use is None else f"{told}, the cluster has {_free(use)} free of {_all(use)}"


def _has_room(trial: TrialProgress, training: list[TrialProgress], grid: GridProgress) -> bool:
    if grid.max_concurrent is not None:
        return len(training) < grid.max_concurrent
    use = grid.use
    if use is None:
        return False
    cpus, gpus = (sum(getattr(one, what) for one in [trial, *training]) for what in ("cpus", "gpus"))
    return cpus <= use.cpus + _TINY and gpus <= use.gpus + _TINY


def _for_room(ready: list[TrialProgress], grid: GridProgress) -> str:
    told = f"{many(len(ready), 'trial')} {'is' if len(ready) == 1 else 'are'} ready and wait{'s' * (len(ready) == 1)}"
    training = [trial for trial in grid.trials if trial.state == "training"]
    if grid.use is None or _has_room(ready[0], training, grid):
        return f"{told} for a process to start"
    if grid.max_concurrent is not None:
        return f"{told} for one of {len(training)} to end (max_concurrent)"
    for what, there in (("gpus", grid.use.gpus), ("cpus", grid.use.cpus)):
        used, wanted = sum(getattr(trial, what) for trial in training), getattr(ready[0], what)
        if wanted and used + wanted > there + _TINY:
            name = f"{what[:-1].upper()}{'s' * (wanted != 1)}"
            left = there - used
            return f"{told} for {amount(wanted)} {name}: {'all' if left < _TINY else f'all but {amount(left)}'} in use"
    return told


def _told(key: str, trials: Sequence[TrialProgress]) -> str:
    """A pre-training or a search, and how far it is."""
    found = next((trial for trial in trials if trial.key == key), None)
    if found is None:
        choices = [trial for trial in trials if trial.group == key]
        return f"the search {key} ({sum(trial.over for trial in choices)} of {len(choices)} trials over)"
    return f"{key} ({'it starts up' if found.epoch is None else f'epoch {found.epoch + 1} of {found.max_epochs}'})"


def _need(trial: TrialProgress) -> str:
    return f"{amount(trial.cpus)} CPU{'s' * (trial.cpus != 1)}" + (
        f" and {amount(trial.gpus)} GPU{'s' * (trial.gpus != 1)}" if trial.gpus else ""
    )


def _free(use: Use) -> str:
    return amount(use.free_cpus) + (f" and {amount(use.free_gpus)}" if use.gpus else "")


def _all(use: Use) -> str:
    return amount(use.cpus) + (f" and {amount(use.gpus)}" if use.gpus else "")
