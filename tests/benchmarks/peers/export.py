"""A corpus in the file layouts of kraken and PyLaia: the same training, validation and test lines as ours.

    python tests/benchmarks/peers/export.py CORPUS_URI FOLDER [--label-fraction 0.1] [--seed 0]

FOLDER/kraken holds each line's image beside its text, and lists of the images; FOLDER/pylaia the images at the height
of a network, tables of their texts in PyLaia's tokens and the table of symbols. FOLDER/lines.json says which line of
the corpus is which file. The training lines are those that fine-tuning in htr-ray chooses for the label fraction and
seed. Their order is random, since PyLaia goes through its list in the same order in every epoch.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from htr_ray.corpus.fractions import label_subset
from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Split
from htr_ray.stream.scale import scale_line

LINES = "lines.json"
PYLAIA_HEIGHTS = (48, 64, 128)
SPACE, BLANK = "<space>", "<ctc>"


@dataclass(frozen=True)
class ExportedLine:
    """A line of the corpus and the name of its files."""

    id: str
    name: str
    text: str


def lines_of(corpus: Corpus, split: Split, fraction: float, seed: int) -> list[tuple[str, str, bytes]]:
    """``(id, text, image file)`` of the labelled lines of a split; of training, those that keep their label."""
    table = corpus.index(split, columns=("id", "text", "image"))
    columns = (table[name].to_pylist() for name in ("id", "text", "image"))
    labelled = [line for line in zip(*columns, strict=True) if line[1]]
    if split != "train":
        return labelled
    kept = label_subset([line[0] for line in labelled], fraction, corpus.info.name, seed)
    chosen = sorted(line for line in labelled if line[0] in kept)
    random.Random(seed).shuffle(chosen)
    return chosen


def tokens(text: str) -> str:
    """A text as PyLaia writes it: characters with blanks between, ``<space>`` for a blank."""
    return " ".join(SPACE if character == " " else character for character in text)


def text_of(tokens_read: str) -> str:
    """The text of PyLaia's tokens: the opposite of :func:`tokens`."""
    return "".join(" " if token == SPACE else token for token in tokens_read.split())


def symbols(alphabet: Sequence[str]) -> str:
    """PyLaia's table of symbols; the CTC blank must be number 0."""
    names = [BLANK, *(SPACE if character == " " else character for character in alphabet)]
    return "".join(f"{name} {number}\n" for number, name in enumerate(names))


def export(corpus: Corpus, folder: Path, fraction: float, seed: int) -> dict[str, list[ExportedLine]]:
    """Write both layouts into ``folder``; returns the lines of each split in the order of its lists."""
    written: dict[str, list[ExportedLine]] = {}
    kraken, pylaia = folder / "kraken", folder / "pylaia"
    # Half of it may be there, of a run that was ended meanwhile: LINES is written last.
    kraken.mkdir(parents=True, exist_ok=True)
    for height in PYLAIA_HEIGHTS:
        (pylaia / str(height)).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = lines_of(corpus, split, fraction, seed)
        written[split] = [
            ExportedLine(id_, f"{split}-{number:06d}", text) for number, (id_, text, _) in enumerate(lines)
        ]
        for line, (_, text, image) in zip(written[split], lines, strict=True):
            grey = decode_grey(image)
            (kraken / f"{line.name}.png").write_bytes(encode_png(grey))
            (kraken / f"{line.name}.gt.txt").write_text(text, encoding="utf-8")
            for height in PYLAIA_HEIGHTS:
                (pylaia / str(height) / f"{line.name}.png").write_bytes(encode_png(scale_line(grey, height)))
        listed = "".join(f"{(kraken / line.name).resolve()}.png\n" for line in written[split])
        (kraken / f"{split}.txt").write_text(listed, encoding="utf-8")
        table = "".join(f"{line.name} {tokens(line.text)}\n" for line in written[split])
        (pylaia / f"{split}.txt").write_text(table, encoding="utf-8")
        (pylaia / f"{split}.names").write_text("".join(f"{line.name}\n" for line in written[split]), encoding="utf-8")
    (pylaia / "symbols.txt").write_text(symbols(corpus.info.alphabet), encoding="utf-8")
    told = {split: [asdict(line) for line in lines] for split, lines in written.items()}
    (folder / LINES).write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
    return written


def read_lines(folder: Path) -> dict[str, list[ExportedLine]]:
    """What :func:`export` wrote into ``folder``."""
    told = json.loads((folder / LINES).read_text(encoding="utf-8"))
    return {split: [ExportedLine(**line) for line in lines] for split, lines in told.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--label-fraction", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    written = export(Corpus.open(asked.corpus), asked.folder, asked.label_fraction, asked.seed)
    print({split: len(lines) for split, lines in written.items()})


if __name__ == "__main__":
    main()
