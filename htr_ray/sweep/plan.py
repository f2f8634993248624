"""What a grid is going to do: trials, resources, time; printed before anything starts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich import box
from rich.table import Table

from htr_ray.config import GridSettings, ModelSettings, SearchSettings
from htr_ray.corpus.read import Corpus, corpus_name
from htr_ray.model.encoder import Encoder
from htr_ray.stream.scale import scaled_width
from htr_ray.sweep.cells import SAMPLE, Trial
from htr_ray.sweep.halving import WHOLE, rungs
from htr_ray.sweep.resources import at_a_time, need
from htr_ray.sweep.wording import duration
from htr_ray.train.worker import autocast_dtype, set_threads

# Start-up, data planning, evaluation and saving around a trial's training.
OVERHEAD_SECONDS = 8.0
# Stream, validation and Ray share the cores with the trainers: measured on two cores, a trial
# alone in a plain loop reaches 155 lines/s, two in a grid 115 each.
SHARE_OF_TRAINING = 0.75
LARGEST_PROBE = 32
# Of no particular card. It compares pre-training with fine-tuning until both have been measured.
GPU_LINES_PER_SECOND = 1000.0


def notes(settings: GridSettings, trials: list[Trial]) -> list[str]:
    """Things a person should know about the request before the time is spent."""
    found = []
    if settings.protocols == ["frozen"] and settings.pretexts == ["none"]:
        found.append("protocol 'frozen' without pre-training measures a random encoder")
    if settings.preset == "tiny" and any(corpus_name(uri) != SAMPLE for uri in settings.corpora):
        found.append("preset 'tiny' is made for the embedded corpus; handwriting wants preset=small, or paper on GPUs")
    for uri in settings.corpora:
        info = Corpus.open(uri).info
        if info.alphabet_unseen:
            found.append(
                f"{info.name}: test has characters that train and val lack ({info.alphabet_unseen}); "
                "they count as errors"
            )
    return found


@dataclass(frozen=True)
class Planned:
    """How long a trial trains if nothing ends it early."""

    seconds: float
    guessed: bool
    """For GPUs, which are not timed from here: right in comparison with other trials only."""
    share: float = 1.0
    """Of the schedule that it is expected to train; less for choices that are halved."""


def planned(trials: Sequence[Trial], gpus: float, search: SearchSettings) -> dict[str, Planned]:
    """Training seconds of each trial at the most, by key.

    A stage with ``max_minutes`` is bounded by it; else a few steps of the network are timed
    on this machine's CPU and multiplied by lines and ``max_epochs`` (patience ends most
    trials earlier).
    """
    found = {}
    raced = Counter(trial.group for trial in trials if trial.group is not None)
    corpora: dict[str, Corpus] = {}
    speeds: dict[str, float] = {}
    for trial in trials:
        stage = trial.job.settings
        share = raced_share(raced[trial.group], search) if trial.group and search.halving else 1.0
        if stage.max_minutes is not None:
            found[trial.key] = Planned(60.0 * stage.max_minutes, False, share)
            continue
        if trial.job.corpus not in corpora:
            corpora[trial.job.corpus] = Corpus.open(trial.job.corpus)
        # By what the trial asks for: the nodes with the GPUs may be yet to come.
        on_gpu = need(trial, gpus).gpus > 0
        corpus, key = corpora[trial.job.corpus], f"{trial.job.corpus}/{trial.stage}"
        if key not in speeds:
            speeds[key] = GPU_LINES_PER_SECOND if on_gpu else _lines_per_second(trial, corpus)
        lines = corpus.info.counts["train"].lines * (trial.job.label_fraction or 1.0)
        lines = max(lines, stage.min_steps_per_epoch * stage.batch_size)
        lines = min(lines, (stage.max_steps_per_epoch or lines) * stage.batch_size)
        seconds = stage.max_epochs * lines / (speeds[key] * stage.workers)
        found[trial.key] = Planned(seconds, on_gpu, share)
    return found


def raced_share(choices: int, search: SearchSettings) -> float:
    """Mean share of their schedules that so many choices train when at each rung one in ``reduction`` goes on."""
    ends = [percent / WHOLE for percent in rungs(search)] + [1.0]
    left = [max(1.0, choices / search.reduction**rung) for rung in range(len(ends))]
    return sum(count * (end - start) for count, start, end in zip(left, [0.0, *ends], ends, strict=False)) / choices


def estimate(
    trials: list[Trial],
    plans: Mapping[str, Planned],
    done: Container[str],
    cpus: float,
    gpus: float,
    max_concurrent: int | None,
) -> float | None:
    """Seconds that the unfinished trials take at the most, or None where it cannot be told here."""
    left = [trial for trial in trials if trial.key not in done]
    if any(plans[trial.key].guessed for trial in left):
        return None
    return sum(
        (plans[trial.key].seconds + OVERHEAD_SECONDS) / (max_concurrent or at_a_time(need(trial, gpus), cpus, gpus))
        for trial in left
    )


def within_budget(
    trials: Sequence[Trial],
    plans: Mapping[str, Planned],
    done: Container[str],
    cpus: float,
    gpus: float,
    settings: GridSettings,
) -> str | None:
    """What of the unfinished trials the budget holds, for people; None without one, or where it cannot be told."""
    budget = settings.budget
    limits = [
        (f"{budget.max_hours:g} hours", budget.max_hours, 1.0) if budget.max_hours else None,
        (f"{budget.max_gpu_hours:g} GPU hours", budget.max_gpu_hours, None) if budget.max_gpu_hours else None,
        (f"a cost of {budget.max_cost:g}", budget.max_cost / (budget.gpu_hour_price or 1.0), None)
        if budget.max_cost
        else None,
    ]
    left = [trial for trial in trials if trial.key not in done]
    if not left or not any(limits) or any(plans[trial.key].guessed for trial in left):
        return None
    needs = [need(trial, gpus) for trial in left]
    hours = [(plans[trial.key].seconds * plans[trial.key].share + OVERHEAD_SECONDS) / 3600.0 for trial in left]
    told = []
    for words, limit, wall in filter(None, limits):
        costs = [
            h / (settings.max_concurrent or at_a_time(wanted, cpus, gpus)) if wall else h * wanted.gpus
            for h, wanted in zip(hours, needs, strict=True)
        ]
        fit = int(np.searchsorted(np.cumsum(costs), limit * (1 + 1e-9), side="right"))
        told.append(f"{words}: {'all' if fit == len(left) else f'about {fit}'} of {len(left)} trials that are left")
    return "; ".join(told)


def _lines_per_second(trial: Trial, corpus: Corpus) -> float:
    """Training speed of the encoder on lines of the corpus' median width, timed here on the CPU."""
    model: ModelSettings = trial.job.model
    set_threads(trial.job.settings.threads, trial.job.settings.cpus_per_worker)
    index = corpus.index("train", columns=("width", "height"))
    widths = [
        scaled_width(w, h, model.height, model.width_scale, model.max_width)
        for w, h in zip(index["width"].to_pylist(), index["height"].to_pylist(), strict=True)
    ]
    width = int(np.median(widths)) if widths else 4 * model.height
    encoder = Encoder(model)
    lines = min(trial.job.settings.batch_size, LARGEST_PROBE)
    images = torch.randint(0, 255, (lines, 1, model.height, width), dtype=torch.uint8)
    dtype = autocast_dtype(trial.job.settings.precision, torch.device("cpu"))
    best = float("inf")
    for _ in range(3):
        began = time.monotonic()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            features, _ = encoder(images, torch.full((lines,), width))
        features.float().square().mean().backward()
        best = min(best, time.monotonic() - began)
    return SHARE_OF_TRAINING * lines / best


def table(
    settings: GridSettings,
    trials: list[Trial],
    done: Collection[str],
    cpus: float,
    gpus: float,
    seconds: float | None,
    budget: str | None = None,
) -> Table:
    """The plan, for printing."""
    plan = Table(
        title=f"Grid '{settings.name}': {len(trials)} trials, {len(done)} already done",
        title_justify="left",
        box=box.SIMPLE,
        show_edge=False,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    plan.add_column("stage")
    facts: dict[str, dict[str, str]] = {}
    for stage in ("pretrain", "finetune"):
        mine = [trial for trial in trials if trial.stage == stage]
        if not mine:
            continue
        plan.add_column(stage, ratio=1)
        wanted = need(mine[0], gpus)
        rules = mine[0].job.settings
        limit = f"{rules.max_epochs} epochs, patience {rules.patience}"
        if rules.max_minutes is not None:
            limit = f"{duration(60 * rules.max_minutes)} or {limit}"
        facts[stage] = {
            "trials": str(len(mine)),
            "pretexts": ", ".join(sorted({t.pretext for t in mine}) if stage == "pretrain" else settings.pretexts),
            **_axes(settings, mine if stage == "finetune" else []),
            "corpora": ", ".join(sorted({t.corpus for t in mine})),
            "seeds": ", ".join(str(seed) for seed in settings.seeds),
            **_searched(settings, stage, mine),
            "each on": f"{wanted.workers} worker(s), {wanted.cpus:g} CPU, {wanted.gpus:g} GPU",
            "at a time": str(settings.max_concurrent or at_a_time(wanted, cpus, gpus)),
            "ends after": limit,
        }
    for name in next(iter(facts.values()), {}):
        plan.add_row(name, *(fact[name] for fact in facts.values()))
    time_text = "no estimate for GPUs without max_minutes" if seconds is None else f"at most about {duration(seconds)}"
    plan.caption = f"Ray has {cpus:g} CPUs and {gpus:g} GPUs; estimated time: {time_text}"
    if budget is not None:
        plan.caption += f"\nWhat the budget holds: {budget}"
    plan.caption_justify = "left"
    return plan


def _searched(settings: GridSettings, stage: str, mine: list[Trial]) -> dict[str, str]:
    """What is searched in a stage; nothing where no stage is."""
    if not (settings.search.pretrain or settings.search.finetune):
        return {}
    choices = [trial.group for trial in mine if trial.group and not trial.probe]
    names = ", ".join(settings.search.space(stage))
    return {"searched": f"{names}: {len(choices)} choices in {len(set(choices))} search(es)" if choices else "-"}


def _axes(settings: GridSettings, finetunings: list[Trial]) -> dict[str, str]:
    """The axes that only fine-tunings have; a dash for pre-trainings."""
    axes = {
        "decoders": ", ".join(settings.decoders),
        "labels": ", ".join(f"{100 * fraction:g} %" for fraction in settings.label_fractions),
        "protocols": ", ".join(settings.protocols),
    }
    return axes if finetunings else dict.fromkeys(axes, "-")
