"""Fine-tune one recognizer on the labelled lines of a corpus, from scratch or from a pre-trained encoder.

    python jobs/finetune.py --corpus runs/corpora/dhsd --output runs/dhsd-scratch
    python jobs/finetune.py --corpus URI --encoder URI/model --output URI label_fraction=0.1 decoder=transformer
    python jobs/finetune.py --corpus URI --output URI preset=paper finetune.workers=4

Leaves model/ (safetensors and JSON), readings.json (test lines with truth and reading) and
result.json (CER, WER, the curve over epochs) in --output. The same command again continues
an interrupted training. For a comparison of many, see jobs/full_grid.py.
"""

from __future__ import annotations

import sys

import _root  # noqa: F401

from htr_ray.cli import main, parser
from htr_ray.config import RunSettings, load

if __name__ == "__main__":
    made = parser(__doc__ or "", RunSettings)
    made.add_argument("--corpus", required=True, metavar="URI", help="a prepared corpus (jobs/prepare_data.py)")
    made.add_argument("--encoder", metavar="URI", help="model folder of jobs/pretrain.py; without it: from scratch")
    made.add_argument("--output", required=True, metavar="URI", help="folder for checkpoints, model and result")
    asked = made.parse_intermixed_args()

    def run() -> dict:
        from rich.console import Console

        from htr_ray import storage
        from htr_ray.connect import cluster
        from htr_ray.corpus.read import Corpus
        from htr_ray.train.job import finetune_job
        from htr_ray.train.single import run_single

        settings = load(RunSettings, file=asked.config, overrides=asked.settings)
        corpus, output = storage.normalise(asked.corpus), storage.normalise(asked.output)
        encoder = asked.encoder and storage.normalise(asked.encoder)
        Corpus.open(corpus)  # a wrong URI is told at once, not after Ray has started
        console = Console()
        with cluster(console):
            result = run_single(finetune_job(settings, corpus, output, encoder), console)
        console.print(
            f"test CER {result['test_cer']:.2f} %, WER {result['test_wer']:.2f} % on {result['test_lines']} lines "
            f"(validation CER {result['val_cer']:.2f} %); {result['epochs']} epochs, {result['minutes']:.1f} min; "
            f"model: {storage.join(output, 'model')}",
            highlight=False,
            soft_wrap=True,
        )
        return result

    sys.exit(main(run, asked))
