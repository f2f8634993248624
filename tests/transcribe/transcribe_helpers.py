"""What the tests of this folder share: a small recognizer on disk, pages and line images, the tables read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from htr_ray import storage
from htr_ray.config import ModelSettings, TranscribeSettings, TransformerSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.direction import Direction
from htr_ray.model.files import save_recognizer
from htr_ray.model.recognizer import Recognizer
from htr_ray.transcribe.run import Request, transcribe

LETTERS = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ<&>\"'"


def save_small(folder: Path, letters: str = LETTERS, direction: Direction = "ltr", seed: int = 0) -> str:
    """A recognizer of random weights that writes many letters; return its folder."""
    torch.manual_seed(seed)
    transformer = TransformerSettings(dim=16, layers=1, heads=2, feedforward=16)
    settings = ModelSettings(height=32, channels=16, lstm_hidden=8, max_width=512, transformer=transformer)
    recognizer = Recognizer(settings, "ctc", Alphabet(letters, direction))
    with torch.no_grad():
        recognizer.decoder.linear.weight *= 20
        recognizer.decoder.linear.bias[0] = -2  # an untrained CTC decoder writes nothing but blanks
    save_recognizer(folder, recognizer)
    return str(folder)


def draw(text: str, width: int = 240) -> bytes:
    """A line image, PNG."""
    image = np.full((48, width), 220, np.uint8)
    cv2.putText(image, text, (6, 34), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.0, 30, 2, cv2.LINE_AA)
    return cv2.imencode(".png", image)[1].tobytes()


def write_lines(folder: Path, count: int) -> Path:
    """Line images 0000.png and so on, each with its text."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        text = f"line {number}"
        (folder / f"{number:04d}.png").write_bytes(draw(text, 120 + 40 * (number % 5)))
        (folder / f"{number:04d}.gt.txt").write_text(text)
    return folder


def run(model: str, input: Any, output: Any, **more: Any) -> dict[str, Any]:
    """``transcribe`` with settings as key=value; what it says goes nowhere."""
    said = more.pop("said", io.StringIO())
    known = {key: more.pop(key) for key in ("format", "splits", "options") if key in more}
    settings = TranscribeSettings(**more)
    console = Console(file=said, width=200)
    return transcribe(Request(model, str(input), str(output), settings=settings, **known), console)


def table(output: Any) -> list[dict[str, Any]]:
    """All rows of all parts, in the order of their names."""
    place = storage.join(str(output), "lines")
    parts = []
    for name in storage.listdir(place):
        with storage.open_input(storage.join(place, name)) as stream:
            parts.append(pq.read_table(stream))
    return pa.concat_tables(parts).to_pylist()


def tsv(output: Any, name: str = "lines.tsv") -> list[dict[str, str]]:
    text = storage.read_bytes(storage.join(str(output), name)).decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
