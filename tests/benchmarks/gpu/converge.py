"""Recognizers side by side on one GPU, each trained for the same minutes, with its curve and its test CER.

    python tests/benchmarks/gpu/converge.py CORPUS_URI --minutes 7 --json FILE
        [--contenders paper small pylaia ...] [--fractions 0.1 1.0] [--seed 0] [key=value ...]

A contender is a preset, or ``pylaia`` for that network in our harness (laia_network.py), or either with a label
fraction of its own behind ``@``. A preset followed by a pretext task, ``paper-sorting``, pre-trains on all training
images, without their labels, in the first third of the minutes. All run at the same time and share the GPU, so lines
per second are those of a GPU that is shared; minutes are on the wall, start-up aside, validation included. Errors are
those of ``htr_ray.train.metrics``. Needs htr_ray, Ray and torch, no MLflow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console

from htr_ray.config import PRESETS, PRETEXTS, RunSettings, load
from htr_ray.connect import cluster

PEER = "pylaia"
# What a schedule by the clock needs: nothing else ends it, and few labels are not validated after every few steps.
BY_THE_CLOCK = ("max_epochs=100000", "patience=100000", "checkpoint_minutes=1000")
STEPS = 100
"""Optimizer steps between two validations, at the least."""
PEER_SETTINGS = ("preset=paper", "model.height=128", "model.max_width=4096", "finetune.batch_size=16")


def settings_of(contender: str, minutes: float, fraction: float, seed: int, more: list[str]) -> tuple[RunSettings, str]:
    """The settings of a contender, and its pretext task or ``none``."""
    preset, _, pretext = contender.partition("-")
    if preset not in (*PRESETS, PEER) or (pretext and (pretext not in PRETEXTS or preset == PEER)):
        raise SystemExit(f"{contender}: not one of {', '.join(PRESETS)}, these with -{' or -'.join(PRETEXTS)}, {PEER}")
    stages = {"finetune": minutes * 2 / 3, "pretrain": minutes / 3} if pretext else {"finetune": minutes}
    words = list(PEER_SETTINGS) if preset == PEER else [f"preset={preset}"]
    words += [f"label_fraction={fraction:g}", f"seed={seed}", f"finetune.min_steps_per_epoch={STEPS}"]
    for stage, part in stages.items():
        words += [f"{stage}.max_minutes={part:g}", *(f"{stage}.{word}" for word in BY_THE_CLOCK)]
    settings: RunSettings = load(RunSettings, overrides=[*words, *more], environment={})
    return settings, pretext or "none"


def train(contender: str, corpus: str, folder: str, settings: RunSettings, pretext: str) -> dict[str, Any]:
    """Train one contender to its end, in a process of its own; what came of it."""
    from htr_ray.train import finetune
    from htr_ray.train.job import finetune_job, pretrain_job
    from htr_ray.train.launch import run_here

    found: dict[str, Any] = {}
    encoder = None
    if pretext != "none":
        stage = run_here(pretrain_job(settings, corpus, f"{folder}/encoder", pretext), lambda _: None)  # type: ignore[arg-type]
        encoder = f"{folder}/encoder/model"
        found["pretraining"] = {key: stage[key] for key in ("val_accuracy", "chance", "epochs", "minutes")}
        found["pretraining"]["lines_per_second"] = stage["lines_per_second"]
    if contender == PEER:
        import laia_network

        finetune.build = laia_network.build
    began = time.monotonic()
    result = run_here(finetune_job(settings, corpus, f"{folder}/model", encoder), lambda _: None)
    keys = ("val_cer", "test_cer", "test_wer", "test_lines", "lines", "epochs", "best_epoch", "minutes", "stopped")
    found |= {key: result[key] for key in keys}
    history = result["history"]
    found["curve"] = [[round(h["minutes"], 2), round(h["val_cer"], 2), round(h["train_loss"], 3)] for h in history]
    later = history[1:] or history  # the first epoch fills the caches
    for key in ("lines_per_second", "waiting_share"):
        found[key] = sum(h[key] for h in later) / len(later)
    found["wall_minutes"] = (time.monotonic() - began) / 60
    return found


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| contender | labels | test CER | test WER | validation CER | best, minutes | lines/s | waits for data, % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['contender']} | {100 * row['fraction']:g} % | failed: {row['failed']} | | | | | |")
            continue
        best = row["curve"][row["best_epoch"]][0]
        lines.append(
            f"| {row['contender']} | {100 * row['fraction']:g} % | {row['test_cer']:.2f} | {row['test_wer']:.2f} "
            f"| {row['val_cer']:.2f} | {best:.1f} of {row['minutes']:.1f} | {row['lines_per_second']:.0f} "
            f"| {100 * row['waiting_share']:.1f} |"
        )
    return "\n".join(lines)


def share_of(cards: int, runs: int) -> float:
    """Of a card for each of ``runs`` that are to train at the same time; Ray gives no run a part of two cards."""
    return math.floor(100 / math.ceil(runs / cards)) / 100


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("corpus")
    asked.add_argument("--minutes", type=float, default=7.0)
    asked.add_argument("--contenders", nargs="+", default=["paper", "small", PEER], metavar="CONTENDER")
    asked.add_argument("--fractions", nargs="+", type=float, default=[0.1, 1.0])
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--json", type=Path)
    asked.add_argument("settings", nargs="*", default=[], metavar="key=value")
    given = asked.parse_intermixed_args()
    runs: list[dict[str, Any]] = []
    for named in given.contenders:
        contender, _, own = named.partition("@")
        for fraction in [float(own)] if own else given.fractions:
            chosen, pretext = settings_of(contender, given.minutes, fraction, given.seed, given.settings)
            runs.append({"contender": contender, "fraction": fraction, "chosen": chosen, "pretext": pretext})
    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join([here, str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")])
    gpus = ray.available_resources().get("GPU", 0.0)
    share = {"num_gpus": share_of(int(gpus), len(runs))} if gpus >= 1 else {}
    # Ray counts CPUs for their streams; trainers that held some could keep each other from having one.
    # One call to a process: PyLaia's network stays behind in its own.
    task = ray.remote(num_cpus=0, max_calls=1, max_retries=0, runtime_env={"env_vars": {"PYTHONPATH": path}}, **share)(
        train
    )
    with tempfile.TemporaryDirectory(prefix="gpu-converge-") as scratch:
        waiting = {
            task.remote(run["contender"], given.corpus, f"{scratch}/{number}", run["chosen"], run["pretext"]): run
            for number, run in enumerate(runs)
        }
        for reference, run in waiting.items():
            try:
                run |= ray.get(reference)
            except Exception as error:  # the others go on
                told = str(error).strip().splitlines() or [type(error).__name__]
                print(str(error))
                run["failed"] = told[-1][:200]
    rows = [{key: value for key, value in run.items() if key != "chosen"} for run in runs]
    result = {
        "corpus": given.corpus.rstrip("/").rsplit("/", 1)[-1],
        "minutes": given.minutes,
        "seed": given.seed,
        "settings": given.settings,
        "rows": rows,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "versions": {"torch": torch.__version__, "ray": ray.__version__, "python": platform.python_version()},
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    with cluster(Console(stderr=True)):
        main()
