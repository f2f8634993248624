"""Who is compared: each knows its commands, and how to read what they leave behind.

The clock, the budget and the errors are the same for all of them and are no business of a contender.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from export import ExportedLine, read_lines, text_of

from htr_ray.config import PRETEXTS, RunSettings, load
from htr_ray.stream.plan import laps_for

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Race:
    """One training: what a contender is given."""

    corpus: str
    """URI of the corpus."""
    data: Path
    """Folder of export.py."""
    work: Path
    """Folder for what the contender leaves behind."""
    environments: Path
    """Folder of the virtual environments that install.sh makes."""
    label_fraction: float
    seed: int
    minutes: float
    every: float
    """Epochs between two validations; below 1 several in an epoch, where the contender can."""
    extra: tuple[str, ...] = ()
    """More words for the end of the command that trains."""

    @property
    def best(self) -> Path:
        """Weights for reading, where they are not taken from the folder of the training."""
        return self.work / "best.safetensors"


class Contender(Protocol):
    """A recognizer that trains and reads by commands."""

    name: str
    bounded: bool
    """It ends by itself after the minutes (by the clock on the wall); otherwise it is stopped by CPU time."""
    environment: dict[str, str]

    def prepare(self, race: Race) -> list[list[str]]:
        """Commands before the training, outside the budget."""

    def train(self, race: Race) -> list[str]:
        """The command that trains."""

    def validations(self, race: Race) -> list[tuple[float, float]]:
        """``(epochs, CER in percent)`` of each validation so far, as the contender counts it."""

    def finish(self, race: Race) -> list[list[str]]:
        """Commands between training and reading, outside the budget."""

    def read(self, race: Race, lines: list[ExportedLine], folder: Path) -> list[str]:
        """The command that reads lines with the weights of the best validation, into ``folder``."""

    def readings(self, race: Race, lines: list[ExportedLine], folder: Path, log: str) -> list[str]:
        """What it read, in the order of ``lines``; ``log`` is what the command printed."""

    def versions(self, race: Race) -> list[str]:
        """A command that prints versions, a line each."""


def _versions(python: Path | str, packages: Iterable[str]) -> list[str]:
    code = "import sys; from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in sys.argv[1:]), "
    return [str(python), "-c", code + "f'Python {sys.version.split()[0]}', sep='\\n')", *packages]


@dataclass(frozen=True)
class Kraken:
    """``ketos train`` and ``kraken ocr``: https://kraken.re"""

    name: str
    spec: str | None = None
    """VGSL of the network; None: kraken's own."""
    options: tuple[str, ...] = ("--augment", "-B", "1")
    bounded: bool = False
    # Its log is made for a terminal, and wrapped at its width.
    environment: dict[str, str] = field(default_factory=lambda: {"OMP_NUM_THREADS": "1", "COLUMNS": "250"})

    def _program(self, race: Race, name: str) -> str:
        return str(race.environments / "kraken" / "bin" / name)

    def prepare(self, race: Race) -> list[list[str]]:
        return []

    def train(self, race: Race) -> list[str]:
        lists = race.data / "kraken"
        command = [self._program(race, "ketos"), "-v", "-d", "cpu", "--workers", "1", "--threads", "1"]
        command += ["-s", str(race.seed), "train", "-f", "path", "-t", f"{lists}/train.txt", "-e", f"{lists}/val.txt"]
        # Its early stopping would give time back; the budget ends the training instead.
        command += ["-q", "fixed", "-N", "1000000", "-F", f"{race.every:g}", "-o", str(race.work / "model")]
        return command + ["-s", self.spec] * (self.spec is not None) + [*self.options, *race.extra]

    def validations(self, race: Race) -> list[tuple[float, float]]:
        log = race.work / "train.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return [(number * race.every, cer) for number, cer in enumerate(kraken_validations(text), 1)]

    def finish(self, race: Race) -> list[list[str]]:
        chosen = kraken_best((race.work / "model").glob("checkpoint_*.ckpt"))
        return [[self._program(race, "ketos"), "convert", "-o", str(race.best), str(chosen)]]

    def read(self, race: Race, lines: list[ExportedLine], folder: Path) -> list[str]:
        for line in lines:  # it writes beside what it reads
            (folder / f"{line.name}.png").symlink_to(race.data / "kraken" / f"{line.name}.png")
        command = [self._program(race, "kraken"), "-d", "cpu", "--threads", "1", "-I", f"{folder}/*.png", "-o", ".txt"]
        return [*command, "ocr", "-s", "-B", "1", "--num-line-workers", "0", "-m", str(race.best)]

    def readings(self, race: Race, lines: list[ExportedLine], folder: Path, log: str) -> list[str]:
        return [(folder / f"{line.name}.txt").read_text(encoding="utf-8").strip() for line in lines]

    def versions(self, race: Race) -> list[str]:
        return _versions(self._program(race, "python"), ("kraken", "torch", "lightning"))


def kraken_validations(log: str) -> list[float]:
    """CER in percent of the validations that ``ketos -v train`` logged."""
    found = re.findall(r"validation run: total chars (\S+) errors (\S+) accuracy", log)
    return [100.0 * _number(errors) / max(_number(characters), 1.0) for characters, errors in found]


def _number(text: str) -> float:
    """The number of ``12``, ``12.0`` or ``tensor(12.)``."""
    return float(text.removeprefix("tensor(").rstrip(").,") or "0")


def kraken_best(checkpoints: Iterable[Path]) -> Path:
    """The checkpoint of the highest accuracy, which is the last figure of its name.

    Raises SystemExit when there is none: the budget ended before the first validation.
    """
    scores = {path: re.fullmatch(r"checkpoint_\d+-(-?\d+\.\d+)(-v\d+)?", path.stem) for path in checkpoints}
    known = [(float(match[1]), path.stat().st_mtime, path) for path, match in scores.items() if match]
    if not known:
        raise SystemExit("kraken: no checkpoint; the budget ended before the first validation")
    return max(known)[2]


@dataclass(frozen=True)
class PyLaia:
    """``pylaia-htr-train-ctc``: https://atr.pages.teklia.com/pylaia/"""

    name: str
    height: int
    """Pixels; the images are made so high beforehand, as its documentation has it."""
    batch: int = 8
    """Lines of a step; 8 is PyLaia's own choice."""
    network: tuple[str, ...] = ()
    """Options of pylaia-htr-create-model; none: PyLaia's own network."""
    options: tuple[str, ...] = ("--train.augment_training", "true")
    bounded: bool = False
    environment: dict[str, str] = field(
        # Its checkpoints hold classes of its own, which today's torch loads only when told to trust them.
        default_factory=lambda: {"OMP_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    )

    def _program(self, race: Race, name: str) -> str:
        return str(race.environments / "pylaia" / "bin" / name)

    def _model(self, race: Race) -> list[str]:
        return ["--common.train_path", str(race.work / "model"), "--common.seed", str(race.seed)]

    def prepare(self, race: Race) -> list[list[str]]:
        command = [self._program(race, "pylaia-htr-create-model"), str(race.data / "pylaia" / "symbols.txt")]
        command += ["--fixed_input_height", str(self.height), "--save_model", "true", *self._model(race)]
        return [[*command, *self.network]]

    def train(self, race: Race) -> list[str]:
        data = race.data / "pylaia"
        command = [self._program(race, "pylaia-htr-train-ctc"), f"{data}/symbols.txt", f"[{data}/{self.height}]"]
        command += [f"{data}/train.txt", f"{data}/val.txt", *self._model(race), "--data.num_workers", "1"]
        command += ["--trainer.max_epochs", "1000000", "--train.early_stopping_patience", "1000000"]
        # All checkpoints are kept, so that each validation is in the log.
        command += ["--data.batch_size", str(self.batch), "--train.checkpoint_k", "-1"]
        every = ["--trainer.check_val_every_n_epoch" if race.every >= 1 else "--trainer.val_check_interval"]
        every += [f"{race.every:g}"]
        return [*command, *every, "--trainer.progress_bar_refresh_rate", "0", *self.options, *race.extra]

    def validations(self, race: Race) -> list[tuple[float, float]]:
        log = race.work / "train.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        steps = math.ceil(len(read_lines(race.data)["train"]) / self.batch)
        return [(count / steps, cer) for count, cer in pylaia_validations(text)]

    def finish(self, race: Race) -> list[list[str]]:
        return []

    def read(self, race: Race, lines: list[ExportedLine], folder: Path) -> list[str]:
        data = race.data / "pylaia"
        (folder / "names").write_text("".join(f"{line.name}\n" for line in lines), encoding="utf-8")
        command = [self._program(race, "pylaia-htr-decode-ctc"), f"{data}/symbols.txt", f"{folder}/names"]
        command += ["--img_dirs", f"[{data}/{self.height}]", *self._model(race)]
        return [*command, "--trainer.progress_bar_refresh_rate", "0"]

    def readings(self, race: Race, lines: list[ExportedLine], folder: Path, log: str) -> list[str]:
        found = pylaia_readings(log, {line.name for line in lines})
        return [found[line.name] for line in lines]

    def versions(self, race: Race) -> list[str]:
        return _versions(self._program(race, "python"), ("pylaia", "torch", "pytorch-lightning"))


def pylaia_validations(log: str) -> list[tuple[int, float]]:
    """``(steps, CER in percent)`` of the checkpoints that pylaia-htr-train-ctc logged: one for each validation."""
    # metrics.csv has one row for an epoch, however many validations there were. The log counts steps from 0.
    found = re.findall(r"global step (\d+): \S*va_cer reached (\d+\.\d+)", log)
    return [(int(step) + 1, 100.0 * float(cer)) for step, cer in found]


def pylaia_readings(log: str, names: set[str]) -> dict[str, str]:
    """What pylaia-htr-decode-ctc printed: a name and its tokens on a line."""
    found = {}
    for line in log.splitlines():
        name, _, tokens_read = line.partition(" ")
        if name in names:
            found[name] = text_of(tokens_read)
    return found


@dataclass(frozen=True)
class Ours:
    """``jobs/finetune.py`` and ``jobs/transcribe.py`` of this repository, ``jobs/pretrain.py`` before them if asked."""

    name: str
    reading_precision: str = "auto"
    pretext: str | None = None
    """Pre-training on all training images by this task, in a third of the minutes."""
    bounded: bool = True
    environment: dict[str, str] = field(
        default_factory=lambda: {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local", "PYTHONPATH": str(REPOSITORY)}
    )

    def prepare(self, race: Race) -> list[list[str]]:
        return []

    def _job(self, race: Race, stage: str, minutes: float, output: str, *words: str) -> list[str]:
        command = [sys.executable, str(REPOSITORY / "jobs" / f"{stage}.py"), "--corpus", race.corpus, *words]
        command += ["--output", str(race.work / output), f"seed={race.seed}"]
        # The minutes end it and nothing else: a preset's own number of epochs would give time back.
        command += [f"{stage}.max_minutes={minutes:g}", f"{stage}.max_epochs=10000", f"{stage}.patience=10000"]
        return [*command, *race.extra]

    def train(self, race: Race) -> list[str]:
        labels = f"label_fraction={race.label_fraction:g}"
        if self.pretext is None:
            return self._job(race, "finetune", race.minutes, "model", labels)
        first, encoder = race.minutes / 3, str(race.work / "encoder" / "model")
        both = [self._job(race, "pretrain", first, "encoder", "--pretext", self.pretext)]
        both += [self._job(race, "finetune", race.minutes - first, "model", "--encoder", encoder, labels)]
        return ["/bin/sh", "-c", " && ".join(map(shlex.join, both))]

    def _result(self, race: Race) -> dict[str, object]:
        path = race.work / "model" / "result.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def validations(self, race: Race) -> list[tuple[float, float]]:
        history = self._result(race).get("history", [])
        assert isinstance(history, list)
        if not history:  # asked for again and again while it trains, on the same core
            return []
        settings = load(RunSettings, overrides=race.extra).finetune
        # Few lines are passed over several times within what htr-ray calls an epoch.
        passes = laps_for(len(read_lines(race.data)["train"]), settings.batch_size, settings.min_steps_per_epoch)
        return [((point["epoch"] + 1) * passes, float(point["val_cer"])) for point in history]

    def finish(self, race: Race) -> list[list[str]]:
        return []

    def read(self, race: Race, lines: list[ExportedLine], folder: Path) -> list[str]:
        images = folder / "lines"
        images.mkdir()
        for line in lines:
            (images / f"{line.name}.png").symlink_to(race.data / "kraken" / f"{line.name}.png")
        command = [
            sys.executable,
            str(REPOSITORY / "jobs" / "transcribe.py"),
            "--model",
            str(race.work / "model/model"),
        ]
        command += ["--input", str(images), "--output", str(folder / "read"), "beam=1"]
        return [*command, f"precision={self.reading_precision}"]

    def readings(self, race: Race, lines: list[ExportedLine], folder: Path, log: str) -> list[str]:
        with (folder / "read" / "lines.tsv").open(encoding="utf-8", newline="") as table:
            rows = {row["id"]: row["text"] for row in csv.DictReader(table, delimiter="\t")}
        found = {Path(id_).stem: text for id_, text in rows.items()}
        return [found[line.name] for line in lines]

    def versions(self, race: Race) -> list[str]:
        return _versions(sys.executable, ("htr-ray", "torch", "ray"))


def pylaia_network(features: list[int], pools: list[list[int]], layers: int, units: int, dropout: float) -> list[str]:
    """Options of pylaia-htr-create-model: 3x3 convolutions with batch normalisation, pooled by ``[height, width]``."""
    each = len(features)
    values = {
        "cnn_num_features": features,
        "cnn_kernel_size": [3] * each,
        "cnn_stride": [1] * each,
        "cnn_dilation": [1] * each,
        "cnn_activation": ["LeakyReLU"] * each,
        "cnn_poolsize": pools,
        "cnn_dropout": [0] * each,
        "cnn_batchnorm": [True] * each,
        "rnn_layers": layers,
        "rnn_units": units,
        "rnn_dropout": dropout,
        "lin_dropout": dropout,
    }
    return [word for name, value in values.items() for word in (f"--crnn.{name}", json.dumps(value))]


SMALL_LAIA = tuple(pylaia_network([12, 24, 48, 48], [[2, 2], [2, 2], [2, 1], [0, 0]], 1, 128, 0.1))
SMALL_LAIA_OPTIONS = ("--train.augment_training", "true")
SMALL_LAIA_OPTIONS += ("--optimizer.name", "Adam", "--optimizer.learning_rate", "0.001")
SMALL_VGSL = "[1,48,0,1 Cr3,3,32 Do0.1,2 Mp2,2 Cr3,3,64 Do0.1,2 Mp2,2 S1(1x0)1,3 Lbx100 Do]"
# The layers of SMALL_LAIA, with group instead of batch normalisation, which VGSL does not have.
TUNED_VGSL = "[1,64,0,1 Cr3,3,12 Gn4 Mp2,2 Cr3,3,24 Gn4 Mp2,2 Cr3,3,48 Gn4 Mp2,1 Cr3,3,48 Gn4 S1(1x0)1,3 Lbx128 Do0.1]"
_ALL: tuple[Contender, ...] = (
    Kraken("kraken-default"),
    Kraken("kraken-small", SMALL_VGSL),
    Kraken("kraken-tuned", TUNED_VGSL),
    PyLaia("pylaia-default", 128),
    PyLaia("pylaia-small", 64, 4, SMALL_LAIA, SMALL_LAIA_OPTIONS),
    Ours("htr-ray"),
    Ours("htr-ray-float32", "float32"),
    *(Ours(f"htr-ray-{pretext}", pretext=pretext) for pretext in PRETEXTS),
)
CONTENDERS = {contender.name: contender for contender in _ALL}
