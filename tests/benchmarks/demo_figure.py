"""The picture of the README: test lines as the demo's best recognizer reads them, and CER over time.

python tests/benchmarks/demo_figure.py runs/sample tests/benchmarks/results/demo.png
"""

from __future__ import annotations

import sys

import cv2
import matplotlib.pyplot as plt
import numpy as np

from htr_ray import storage
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus, corpus_name
from htr_ray.sweep.cells import expand
from htr_ray.sweep.results import read_settings
from htr_ray.sweep.run import finished
from htr_ray.sweep.summary import ranking, rows
from htr_ray.train.job import READINGS, RESULT

LINES = 10


def main(folder: str, target: str) -> None:
    settings = read_settings(folder)
    trials = {trial.key: trial for trial in expand(settings)}
    corpus = Corpus.open(settings.corpora[0])
    told = rows(list(trials.values()), finished(list(trials.values()), folder), {})
    recognizers = ranking(told, corpus_name(corpus.uri))
    if not recognizers:
        sys.exit(f"{folder}: no fine-tuning is finished")
    champion = trials[recognizers[0]["key"]]
    readings = {reading["id"]: reading for reading in storage.read_json(storage.join(champion.job.folder, READINGS))}
    index = corpus.index("test", columns=("id", "writer"))
    chosen: dict[str, list[int]] = {}
    for number, writer in enumerate(index["writer"].to_pylist()):
        chosen.setdefault(writer, []).append(number)
    # Round robin over the test writers, so that every hand is seen.
    order = [lines[i] for i in range(LINES) for lines in chosen.values() if i < len(lines)][:LINES]

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=[1.25, 1])
    left.axis("off")
    left.set_title("unseen writers: image, reading (errors of the line)", fontsize=9, loc="left")
    files = corpus.files("test")
    for place, number in enumerate(order):
        where = (files[index["file"][number].as_py()], index["row_group"][number].as_py())
        row = index["row"][number].as_py()
        table = corpus.read_row_group(*where, ("id", "image"))
        image = decode_grey(table["image"][row].as_py())
        scale = 0.9 / image.shape[0]
        top = LINES - place
        left.imshow(
            cv2.cvtColor(image, cv2.COLOR_GRAY2RGB),
            extent=(0, image.shape[1] * scale, top - 0.95, top - 0.05),
            aspect="auto",
        )
        reading = readings[table["id"][row].as_py()]
        left.text(7.2, top - 0.65, f"{reading['reading']}  ({reading['edits']})", fontsize=9, family="monospace")
    left.set_xlim(0, 13)
    left.set_ylim(0, LINES)

    styles = {"ctc": "-", "transformer": "--"}
    colours = dict(zip(settings.pretexts, plt.get_cmap("tab10")(np.arange(10)), strict=False))
    for trial in trials.values():
        job = trial.job
        uri = storage.join(job.folder, RESULT)
        if trial.stage == "finetune" and job.label_fraction == max(settings.label_fractions) and storage.exists(uri):
            history = storage.read_json(uri)["history"]
            right.plot(
                [epoch["minutes"] for epoch in history],
                [epoch["val_cer"] for epoch in history],
                styles[str(job.decoder)],
                color=colours[trial.pretext],
                label=f"{trial.pretext}, {job.decoder}",
                linewidth=1.2,
            )
    right.set(xlabel="minutes of training on one core", ylabel="validation CER in percent", ylim=(0, 100))
    right.legend(fontsize=7, ncols=2)
    right.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
