"""What people read on a run's page in MLflow: Markdown about a grid and about each trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS
from htr_ray.storage import redacted
from htr_ray.sweep.cells import Trial
from htr_ray.track.dataset import split_digest

_FIGURES = {
    "finetune": (
        ("CER on test lines", "test_cer", " %"),
        ("WER on test lines", "test_wer", " %"),
        ("CER on validation lines", "val_cer", " %"),
        ("labelled training lines", "lines", ""),
        ("epochs", "epochs", ""),
        ("minutes", "minutes", ""),
        ("parameters", "parameters", ""),
    ),
    "pretrain": (
        ("answers right on validation lines", "val_accuracy", " %"),
        ("right by guessing", "chance", " %"),
        ("training lines (without labels)", "lines", ""),
        ("epochs", "epochs", ""),
        ("minutes", "minutes", ""),
    ),
}
_FILES = {
    "finetune": "`test_lines.html` (lines with their errors marked), `confusions.tsv`, `predictions.tsv` (all test "
    "lines), `learning_curves.png`",
    "pretrain": "`pretext_preview.png` (what the task made of ten lines, and the answers), `learning_curves.png`",
}


def title(trial: Trial) -> str:
    """Name of a trial's run, short enough for MLflow's tables; its key is a tag."""
    job = trial.job
    words = [trial.pretext]
    if trial.stage == "finetune":
        words += [str(job.decoder), f"{100 * (job.label_fraction or 0):g} %"]
        words += ["frozen"] if job.protocol == "frozen" else []
    else:
        words.append("encoder")
    kind = "probe" if trial.probe else "choice"
    words.append(f"seed {job.seed}" if trial.choice is None else f"{kind} {trial.choice}")
    return f"{trial.corpus}: {', '.join(words)}"


def what_it_is(trial: Trial) -> str:
    """One sentence about a trial."""
    job = trial.job
    if trial.stage == "pretrain":
        return f"Encoder for **{trial.corpus}**, pre-trained on its images with **{trial.pretext}**, seed {job.seed}."
    start = "from scratch" if trial.waits_for is None else f"pre-trained with **{trial.pretext}**"
    how = "the encoder fixed" if job.protocol == "frozen" else "everything trained"
    return (
        f"Recognizer of **{trial.corpus}**: {job.decoder} decoder, {100 * (job.label_fraction or 0):g} % of the "
        f"labels, {start}, {how} ({job.protocol}), seed {job.seed}."
    )


def trial_note(trial: Trial, result: Mapping[str, Any]) -> str:
    """Markdown about a finished trial: what it is, its figures, the files to look at."""
    rows = [
        f"| {words} | {_number(result[name])}{unit} |"
        for words, name, unit in _FIGURES[trial.stage]
        if result.get(name) is not None
    ]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    return f"{what_it_is(trial)}\n\n{table}\n\nAmong the artifacts: {_FILES[trial.stage]}.\n"


def reproduction(corpora: Mapping[str, Corpus], found: Mapping[str, Any], command: str) -> str:
    """Markdown: the data, the versions and the commands that make the grid again.

    Args:
        corpora: the grid's corpora by name.
        found: :func:`htr_ray.track.environment.environment`.
        command: how this run was started.
    """
    data = ["| corpus | lines (train, val, test) | digest of train | at |", "| --- | --- | --- | --- |"]
    for name, corpus in corpora.items():
        counts = ", ".join(f"{corpus.info.counts[split].lines:,}" for split in SPLITS)
        data.append(f"| {name} | {counts} | `{split_digest(corpus, 'train')}` | `{redacted(corpus.uri)}` |")
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    revision = found.get("revision")
    steps = [f"git checkout {revision.removesuffix('-dirty')}"] if revision else []
    steps += [
        "pip install -r requirements.txt",
        "pip install --no-deps -e .",
        "python jobs/full_grid.py --config config.yaml",
    ]
    changed = (
        "\nThe code had changes that are not in this revision.\n" if revision and revision.endswith("-dirty") else ""
    )
    return (
        "\n## Make it again\n\n"
        "With `config.yaml` and `requirements.txt` from this run's artifacts, in a checkout of htr-ray:\n\n"
        "```\n" + "\n".join(steps) + "\n```\n"
        f"{changed}\n" + "\n".join(data) + "\n\n"
        f"Python {found['python']}, {packages}{_cuda(found)}; {_machine(found)}. All of it: `environment.json`.\n\n"
        f"This run was started as `{redacted(command)}`.\n"
    )


def _cuda(found: Mapping[str, Any]) -> str:
    return f", CUDA {found['cuda']}" if found.get("cuda") else ", without CUDA"


def _machine(found: Mapping[str, Any]) -> str:
    nodes = found.get("cluster") or []
    if len(nodes) > 1:
        cpus = sum(node.get("CPU", 0) for node in nodes)
        gpus = sum(node.get("GPU", 0) for node in nodes)
        return f"a Ray cluster of {len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs"
    machine = found["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {gpus}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"
