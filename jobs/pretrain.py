"""Pre-train one encoder on the lines of a corpus, without labels, by a pretext task.

    python jobs/pretrain.py --corpus runs/corpora/dhsd --pretext flip --output runs/dhsd-flip
    python jobs/pretrain.py --corpus URI --pretext sorting --output URI preset=paper pretrain.workers=4

Pretext tasks: rotation (by 0, 90, 180 or 270 degrees), flip (none, horizontal, vertical, both),
jigsaw (which permutation of tiles), sorting (the order of the shuffled pieces of a line).
Leaves model/ (the encoder, safetensors and JSON) and result.json (accuracy on held-out
lines, the curve over epochs) in --output; give model/ to jobs/finetune.py --encoder. The
same command again continues an interrupted training.
"""

from __future__ import annotations

import sys

import _root  # noqa: F401

from htr_ray.cli import main, parser
from htr_ray.config import PRETEXTS, RunSettings, load

if __name__ == "__main__":
    made = parser(__doc__ or "", RunSettings)
    made.add_argument("--corpus", required=True, metavar="URI", help="a prepared corpus (jobs/prepare_data.py)")
    made.add_argument("--pretext", required=True, choices=PRETEXTS, help="the task")
    made.add_argument("--output", required=True, metavar="URI", help="folder for checkpoints, encoder and result")
    asked = made.parse_intermixed_args()

    def run() -> dict:
        from rich.console import Console

        from htr_ray import storage
        from htr_ray.connect import cluster
        from htr_ray.corpus.read import Corpus
        from htr_ray.train.job import pretrain_job
        from htr_ray.train.single import run_single

        settings = load(RunSettings, file=asked.config, overrides=asked.settings)
        corpus, output = storage.normalise(asked.corpus), storage.normalise(asked.output)
        Corpus.open(corpus)  # a wrong URI is told at once, not after Ray has started
        console = Console()
        with cluster(console):
            result = run_single(pretrain_job(settings, corpus, output, asked.pretext), console)
        console.print(
            f"{asked.pretext}: {result['val_accuracy']:.1f} % right on held-out lines (guessing: "
            f"{result['chance']:.1f} %); {result['epochs']} epochs, {result['minutes']:.1f} min; "
            f"encoder: {storage.join(output, 'model')}",
            highlight=False,
            soft_wrap=True,
        )
        return result

    sys.exit(main(run, asked))
