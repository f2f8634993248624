"""What beam search and language models do to reading: errors, and lines per second.

    OMP_NUM_THREADS=1 python tests/benchmarks/reading.py MODEL CORPUS_URI [--json FILE]

MODEL is the folder of a recognizer that was trained on the corpus. Language models are trained on the
texts of the training lines; their weights are chosen on the validation lines, and the test lines are read once with
what was chosen. "New lines" leaves out of their texts every line that occurs in validation or test
too, since small corpora repeat themselves more than an archive does. Lines per second are those of one thread
by its CPU time, which does not count what other processes take; those of two threads are by the clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.model.files import load_recognizer
from htr_ray.model.found import Found
from htr_ray.model.language import Fusion, LanguageModel
from htr_ray.model.ngrams import CharacterNgrams
from htr_ray.model.recognizer import Recognizer
from htr_ray.model.wordlist import WordList
from htr_ray.stream.scale import scale_line
from htr_ray.train.metrics import ErrorCount

BATCH = 32
ORDERS, WEIGHTS, BONUSES = (4, 6, 8), (0.3, 0.5, 0.7), (0.5, 1.0, 1.5)
PENALTIES = (2.0, 4.0, 5.0, 6.0, 8.0)
BEAMS = (1, 3, 5, 10, 20)

Batch = tuple[Tensor, Tensor]


class Lines:
    """A split's lines in batches of like width, their texts in the same order, and what the encoder makes of them."""

    def __init__(self, corpus: Corpus, split: Any, recognizer: Recognizer) -> None:
        settings = recognizer.settings
        table = corpus.index(split, columns=("image", "text"))
        lines = [
            scale_line(decode_grey(image), settings.height, settings.width_scale, settings.max_width)
            for image in table["image"].to_pylist()
        ]
        order = sorted(range(len(lines)), key=lambda i: lines[i].shape[1])
        self.images = [lines[i] for i in order]
        self.texts = [table["text"][i].as_py() for i in order]
        self.batches = batches(self.images, BATCH)
        began = time.process_time()
        with torch.no_grad():
            self.encoded = [recognizer.encoder(*batch) for batch in self.batches]
        self.encoding = time.process_time() - began


def batches(images: list[Any], size: int) -> list[Batch]:
    """Images uint8 [H, W_i] -> batches (uint8 [B, 1, H, W] padded with white, widths [B]), in their order."""
    found = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        widths = torch.tensor([line.shape[1] for line in part])
        padded = torch.full((len(part), 1, part[0].shape[0], int(widths.max())), 255, dtype=torch.uint8)
        for row, line in zip(padded, part, strict=True):
            row[0, :, : line.shape[1]] = torch.from_numpy(line)
        found.append((padded, widths))
    return found


def read(recognizer: Recognizer, lines: Lines, beam: int, language: LanguageModel | None) -> tuple[list[Found], float]:
    """What the decoder finds in lines that are encoded already, and its CPU seconds."""
    began = time.process_time()
    found = []
    for features, frames in lines.encoded:
        fusion = Fusion(language, recognizer.alphabet) if language else None
        found += recognizer.decoder.read(features, frames, beam, fusion)
    return found, time.process_time() - began


def errors(recognizer: Recognizer, lines: Lines, beam: int, language: LanguageModel | None) -> dict[str, float]:
    """CER and WER in percent, lines per second of the decoder alone and with the encoder."""
    found, seconds = read(recognizer, lines, beam, language)
    count = ErrorCount()
    for truth, line in zip(lines.texts, found, strict=True):
        count.add(truth, recognizer.alphabet.decode(line.classes))
    return {
        "cer": round(count.cer, 2),
        "wer": round(count.wer, 2),
        "ms_per_line": round(1000 * seconds / len(found), 2),
        "lines_per_second": round(len(found) / (seconds + lines.encoding), 1),
    }


def tuned(
    recognizer: Recognizer, lines: Lines, make: Callable[..., LanguageModel], grid: dict[str, tuple[Any, ...]]
) -> tuple[LanguageModel, list[dict[str, Any]]]:
    """The model of the lowest CER on validation ``lines``, and all that was tried, best first."""
    tried = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        tried.append({**chosen, **errors(recognizer, lines, 10, make(**chosen))})
    tried.sort(key=lambda row: (row["cer"], row["wer"]))
    return make(**{name: tried[0][name] for name in grid}), tried


def maker(kind: Any, texts: list[str], recognizer: Recognizer) -> Callable[..., LanguageModel]:
    """Trains once for each order (n-grams), or once (words); the rest are only numbers of the model."""
    made: dict[int, Any] = {}

    def make(order: int = 0, **figures: float) -> LanguageModel:
        if order not in made:
            made[order] = kind.train(texts, recognizer.alphabet, **({"order": order} if order else {}))
        for name, value in figures.items():
            setattr(made[order], name, value)
        model: LanguageModel = made[order]
        return model

    return make


def trust(recognizer: Recognizer, lines: Lines) -> list[dict[str, Any]]:
    """How often characters of a score are wrong, in greedy readings."""
    scored: list[tuple[float, bool]] = []
    found, _ = read(recognizer, lines, 1, None)
    for truth, line in zip(lines.texts, found, strict=True):
        text = recognizer.alphabet.decode(line.classes)
        wrong = set()
        for tag, first, last, *_ in Levenshtein.opcodes(text, truth):
            if tag != "equal":
                wrong.update(range(first, max(last, first + 1)))  # what is missing is missed before ``first``
        order = recognizer.alphabet.order(line.classes)
        scored += [(line.scores[i], place in wrong) for place, i in enumerate(order)]
    edges = [0.0, 0.5, 0.7, 0.9, 0.99, 0.999, 1.01]
    table = []
    for low, high in itertools.pairwise(edges):
        inside = [wrong for score, wrong in scored if low <= score < high]
        share = sum(inside) / max(1, len(inside))
        table.append(
            {"score": f"{low:g} to {min(high, 1):g}", "characters": len(inside), "wrong": round(100 * share, 1)}
        )
    return table


def speeds(recognizer: Recognizer, lines: Lines) -> dict[str, float]:
    """Lines per second of ``Recognizer.read``, greedy, in the better of two rounds over every eighth batch."""
    by_width = lines.batches[::8]
    some = [image for i in range(0, len(lines.batches), 8) for image in lines.images[i * BATCH : (i + 1) * BATCH]]
    mixed = random.Random(0).sample(some, len(some))
    kinds = {"by width": by_width, "unsorted": batches(mixed, BATCH), "one by one": batches(some, 1)}
    found = {}
    for threads, dtype, (name, chosen) in itertools.product((1, 2), (torch.float32, torch.bfloat16), kinds.items()):
        torch.set_num_threads(threads)
        clock = time.process_time if threads == 1 else time.perf_counter
        seconds = []
        for _ in range(2):
            began = clock()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                for batch in chosen:
                    recognizer.read(*batch, beam=1)
            seconds.append(clock() - began)
        kind = str(dtype).removeprefix("torch.")
        found[f"{threads} thread{'s' * (threads > 1)}, {kind}, {name}"] = round(len(some) / min(seconds), 1)
        print(f"{list(found)[-1]}: {list(found.values())[-1]}", file=sys.stderr)
    torch.set_num_threads(1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-speed", action="store_true", help="leave out the lines per second of batches and types")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = load_recognizer(asked.model)
    corpus = Corpus.open(asked.corpus)
    texts = {
        split: [text for text in corpus.index(split, columns=("text",))["text"].to_pylist() if text]  # type: ignore[arg-type]
        for split in ("train", "val", "test")
    }
    held_out = {*texts["val"], *texts["test"]}
    sources = {"training lines": texts["train"], "new lines": [t for t in texts["train"] if t not in held_out]}
    val, test = (Lines(corpus, split, recognizer) for split in ("val", "test"))
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "corpus": corpus.uri,
        "decoder": recognizer.decoder_name,
        "lines": {name: len(lines) for name, lines in (*texts.items(), ("new", sources["new lines"]))},
        "test_lines_in_training_texts": sum(text in set(texts["train"]) for text in texts["test"]),
        "test": {f"beam {beam}": errors(recognizer, test, beam, None) for beam in BEAMS},
        "chosen": {},
        "tried": {},
        "trust": trust(recognizer, test),
    }
    # The transformer compares likelihoods per character, where a bonus changes nothing.
    bonuses = BONUSES if recognizer.decoder_name == "ctc" else (0.0,)
    for source, lm_texts in sources.items():
        for kind, grid in (
            (CharacterNgrams, {"order": ORDERS, "weight": WEIGHTS, "bonus": bonuses}),
            (WordList, {"penalty": PENALTIES}),
        ):
            name = f"{kind.__name__}, {source}"
            make = maker(kind, lm_texts, recognizer)
            language, tried = tuned(recognizer, val, make, grid)  # type: ignore[arg-type]
            result["tried"][name] = tried
            result["chosen"][name] = {key: tried[0][key] for key in grid}
            for beam in BEAMS:
                result["test"][f"{name}, beam {beam}"] = errors(recognizer, test, beam, language)
            default = kind.train(lm_texts, recognizer.alphabet)
            result["test"][f"{name}, defaults"] = errors(recognizer, test, 10, default)
            print(name, result["chosen"][name], result["test"][f"{name}, beam 10"], file=sys.stderr)
    if asked.json:  # before the two threads, which take long where other processes want the cores
        asked.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not asked.no_speed:
        result["greedy_lines_per_second"] = speeds(recognizer, test)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
