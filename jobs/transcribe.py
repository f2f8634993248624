"""Read a collection with a trained recognizer: line images, a corpus, or pages with ALTO or PAGE layout.

    python jobs/transcribe.py --model models:/htr-ray-wills@champion --input scans/lines --output read/wills
    python jobs/transcribe.py --model runs/dhsd-scratch/model --input corpora/dhsd --split test --output read/dhsd
    python jobs/transcribe.py --model models:/htr-ray-wills/3 --input s3://b/pages --output s3://b/read \
        beam=8 language_text=wills.txt

What the input is, is seen from what is there: corpus.json makes a corpus, ALTO or PAGE XML makes pages, images make
lines (NAME.gt.txt beside NAME.png is the truth); --format says it otherwise. Models are found in the registry at
MLFLOW_TRACKING_URI, else in runs/mlflow.db. Leaves in --output:

    lines.tsv              id, page, text, confidence, scores of the characters, and the truth if there is one
    lines/part-*.parquet   the same, and unreadable lines with their reason; read them all with pandas or pyarrow
    unreadable.tsv         what could not be read, and why
    pages/...              the ALTO or PAGE files with the text written in, under the same paths; all else untouched
    transcription.json     what was asked, counts, CER and WER against the truth; written last

The same command again goes on where an interrupted run stopped, or reads what was added to the input since.
"""

from __future__ import annotations

import sys
from typing import Any

import _root  # noqa: F401

from htr_ray.cli import main, parser
from htr_ray.config import TranscribeSettings, load


def run(asked: Any) -> dict[str, Any]:
    """Do what was asked; return what transcription.json says."""
    from rich.console import Console

    from htr_ray.corpus.importers import ImportOptions
    from htr_ray.transcribe.run import Request, transcribe

    names = ("images", "xml", "image_column", "text_column", "split_column", "level", "split_files", "fold")
    options = ImportOptions(**{name: getattr(asked, name) for name in names if getattr(asked, name) is not None})
    # Variables HTR_RAY_... are settings of grids.
    settings = load(TranscribeSettings, file=asked.config, overrides=asked.settings, environment={})
    console = Console()
    splits = tuple(dict.fromkeys(asked.split or ()))
    request = Request(asked.model, asked.input, asked.output, asked.format, splits, options, settings)
    result = transcribe(request, console)
    for text in report(result):
        console.print(text, highlight=False, soft_wrap=True, markup=False)
    return result


def report(result: dict[str, Any]) -> list[str]:
    """What came out, in a few lines."""
    lines = [f"{result['lines']:,} lines: {result['read']:,} read, {result['unreadable']:,} unreadable"]
    lines += [f"  {count:,} {reason}" for reason, count in result["unreadable_reasons"].items()]
    if result["pages_written"] or result["pages_unwritten"]:
        lines.append(f"{result['pages_written']:,} pages written")
    if result["pages_unwritten"]:
        lines.append(f"{result['pages_unwritten']:,} pages could not be written, see the column detail of lines/")
    if result["truths_left_out"]:
        lines.append(f"{result['truths_left_out']:,} texts of the input are no line of text and were not compared with")
    if "cer" in result:
        lines.append(f"CER {result['cer']:.2f} %, WER {result['wer']:.2f} % on {result['lines_with_truth']:,} lines")
        lines += [
            f"  {name}: CER {rate['cer']:.2f} %, WER {rate['wer']:.2f} % on {rate['lines']:,} lines"
            for name, rate in result["splits"].items()
        ]
    lines.append(f"{result['seconds']:.0f} s, {result['lines_per_second']:.0f} lines/s; in {result['output']}")
    return lines


if __name__ == "__main__":
    made = parser(__doc__ or "", TranscribeSettings)
    made.add_argument(
        "--model", required=True, metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or URI"
    )
    made.add_argument("--input", required=True, metavar="URI", help="folder, file or pattern to read")
    made.add_argument("--output", required=True, metavar="URI", help="folder for what is read")
    # The importers' names; read here without importing them, so that --help is quick.
    made.add_argument(
        "--format",
        metavar="FORMAT",
        help="corpus, pairs (line images), alto, page, table, parquet, or another one of jobs/prepare_data.py",
    )
    made.add_argument(
        "--split", action="append", choices=["train", "val", "test"], help="of a corpus, may be repeated; default: all"
    )
    made.add_argument("--images", metavar="URI", help="alto, page: folder of page images that are not beside the XML")
    made.add_argument(
        "--xml", metavar="PATTERN", help="alto, page: which of several readings, e.g. '!*.chocomufin.xml'"
    )
    made.add_argument("--image-column", metavar="NAME", help="table, parquet: default image")
    made.add_argument("--text-column", metavar="NAME", help="table, parquet: the truth, default text; none: no truth")
    made.add_argument("--split-column", metavar="NAME", help="table, parquet: column with train, val, test")
    made.add_argument("--level", choices=["lines", "words"], help="iam, cvl, rimes, washington: default lines")
    made.add_argument("--split-files", metavar="URI", help="iam, bentham: folder of the lists of splits")
    made.add_argument("--fold", help="washington: cross-validation fold")
    arguments = made.parse_intermixed_args()
    sys.exit(main(lambda: run(arguments), arguments))
