"""A grid's folder as a finished run leaves it, made without training: for tests of what reads it."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from htr_ray import storage
from htr_ray.config import GridSettings, load
from htr_ray.corpus.schema import Line
from htr_ray.corpus.write import CorpusWriter
from htr_ray.sweep.cells import Trial, expand

WORDS = ["am", "Markt", "Bönischplatz", "alte", "Gasse", "Weißer", "Adler", "Neustadt", "Hochland", "Ufer", "Brücke"]
SKILL = {"none": 0.30, "flip": 0.20, "sorting": 0.30, "rotation": 0.45, "jigsaw": 0.32}
"""Share of letters that a recognizer gets wrong with all labels, by pretext."""


def truths(lines: int, writers: int = 4) -> list[tuple[str, str, str]]:
    """Id, text and writer of test lines."""
    rng = random.Random(1)
    return [
        (f"line{n:03d}", " ".join(rng.choices(WORDS, k=rng.randint(1, 3))), f"writer{n % writers}")
        for n in range(lines)
    ]


def misread(text: str, share: float, seed: str) -> str:
    """The text with about that share of its letters wrong."""
    rng = random.Random(seed)
    return "".join(rng.choice(["", "x", "e"]) if rng.random() < share else letter for letter in text)


def write_corpus(uri: str, name: str, lines: int = 60, writers: int = 4) -> str:
    """A small corpus whose test lines are :func:`truths`, drawn in a plain font."""
    with CorpusWriter(
        uri, name, licence="CC-BY-4.0", source="drawn <by> a test & more", citation="Nobody 2026"
    ) as made:
        made.split_by = "writer"
        for split in ("train", "val", "test"):
            for line_id, text, writer in truths(lines, writers):
                sink = io.BytesIO()
                image = Image.new("L", (12 * len(text) + 8, 32), 255)
                ImageDraw.Draw(image).text((4, 8), text, fill=0)
                image.save(sink, "PNG")
                own = line_id if split == "test" else f"{split}-{line_id}"
                line = Line(own, sink.getvalue(), image.width, image.height, text, f"{split}-{writer}")
                made.add(line, split)
        made.set_aside("image missing", "gone1")
    return uri


def write_grid(
    folder: Path,
    *overrides: str,
    corpora: Sequence[str] = ("wills",),
    lines: int = 60,
    writers: int = 4,
    with_corpus: bool = True,
    skip: Callable[[Trial], bool] = lambda trial: False,
    skill: Mapping[str, float] = SKILL,
) -> str:
    """Write ``<folder>/runs/demo`` and its corpora; returns the grid's folder. ``skip``: trials without a result."""
    uris = [str(folder / "corpora" / name) for name in corpora]
    if with_corpus:
        for uri, name in zip(uris, corpora, strict=True):
            write_corpus(uri, name, lines, writers)
    settings = load(
        GridSettings,
        overrides=[
            "name=demo",
            "preset=tiny",
            f"corpora=[{','.join(uris)}]",
            f"storage={folder / 'runs'}",
            "pretexts=[none,flip,sorting]",
            "decoders=[ctc]",
            "label_fractions=[0.1,1.0]",
            *overrides,
        ],
        environment={},
    )
    place = str(folder / "runs" / settings.name)
    storage.write_json(f"{place}/grid.json", settings.model_dump(mode="json"))
    for trial in expand(settings):
        if not skip(trial):
            write_trial(place, trial, lines, writers, skill)
    return place


def write_trial(place: str, trial: Trial, lines: int, writers: int, skill: Mapping[str, float]) -> None:
    """``result.json`` and ``readings.json`` of a trial, consistent with each other."""
    from htr_ray.train.metrics import count_errors

    history: list[dict[str, Any]] = [{"epoch": n, "train_loss": 2.0 / (n + 1), "minutes": n + 1.0} for n in range(3)]
    result: dict[str, Any] = {"stage": trial.stage, "epochs": 3, "minutes": 3.0, "unreadable": [], "history": history}
    if trial.stage == "pretrain":
        for epoch in history:
            epoch["val_accuracy"] = 30.0 + 10 * epoch["epoch"]
        result |= {"pretext": trial.pretext, "val_accuracy": 50.0 + trial.job.seed, "chance": 25.0, "lines": lines}
    else:
        fraction = trial.job.label_fraction
        assert fraction is not None
        share = min(0.9, skill[trial.pretext] * (1.0 if fraction == 1.0 else 1.6))
        share += 0.1 if trial.job.decoder == "transformer" else 0.0
        readings = []
        for line_id, text, _ in truths(lines, writers):
            reading = misread(text, share, f"{trial.key} {line_id}")
            edits = count_errors([(text, reading)]).character_edits
            readings.append({"id": line_id, "truth": text, "reading": reading, "confidence": 0.5, "edits": edits})
        errors = count_errors((line["truth"], line["reading"]) for line in readings)
        for epoch in history:
            epoch["val_cer"] = errors.cer + 20.0 / (1 + epoch["epoch"])
        result |= {
            "test_cer": errors.cer,
            "test_wer": errors.wer,
            "val_cer": errors.cer + 1.0,
            "val_wer": errors.wer + 1.0,
            "lines": round(1000 * fraction),
            "test_lines": lines,
            "parameters": 700_000,
            "gflops": 0.5,
            "set_aside": [],
        }
        storage.write_json(f"{place}/{trial.key}/readings.json", readings)
    storage.write_json(f"{place}/{trial.key}/result.json", result)
