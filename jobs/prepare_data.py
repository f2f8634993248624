"""Make a corpus of line images and transcriptions, or look at one: ``python jobs/prepare_data.py --help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from textwrap import indent
from typing import Any, get_args

import _root  # noqa: F401
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from htr_ray import storage
from htr_ray.corpus import catalogue
from htr_ray.corpus.contact_sheet import contact_sheet, png
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.importers.check import Normalisation
from htr_ray.corpus.importers.options import refuse_unread, with_own
from htr_ray.corpus.prepare import prepare, try_out
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.report_print import print_report
from htr_ray.corpus.schema import INFO_FILE
from htr_ray.corpus.splits import SplitBy
from htr_ray.errors import UserError

DESCRIPTION = """\
Make a corpus (a named set of text-line images, split into train, val and test) from your files, or look
at one with --check. Lines that cannot be used are set aside, counted and named; they stop nothing.
"""

_LAYOUTS = "\n".join(importer.layout for importer in IMPORTERS.values())

EPILOG = f"""\
formats of the input:

{_LAYOUTS}
corpora of the catalogue (--corpus NAME; cached in HTR_RAY_CACHE, by default ~/.cache/htr-ray):

{indent(catalogue.listing(), "    ")}

what a corpus looks like (OUTPUT/NAME; any URI that pyarrow opens):

    dhsd/corpus.json                   name, licence, counts, alphabet, files; written last
    dhsd/train/part-5f0c8d1e-00000.parquet
    dhsd/val/part-...  dhsd/test/part-...
    dhsd/set_aside-5f0c8d1e.parquet    id, reason and detail of what was left out

    Columns of a part: id, image (grey PNG or JPEG), width, height, text (null: unlabelled), writer, page.
    Splits keep a writer whole (a page, where fewer than three writers are known; single lines, with a
    warning, where there are fewer than three pages too). Writing again replaces the corpus in one step:
    until corpus.json is written, the old one stays.

examples:

    python jobs/prepare_data.py --corpus testaments
    python jobs/prepare_data.py --format parquet --input lines/dhsd.parquet --output corpora --name dhsd
    python jobs/prepare_data.py --format parquet --input 's3://raw/hands/*.parquet' \\
        --text-column transcription --writer-column author --output s3://bucket/corpora --name hands
    python jobs/prepare_data.py --format pairs --input scans/lines --writer-from folder \\
        --output corpora --name wills --licence CC-BY-4.0 --source https://example.org/wills
    python jobs/prepare_data.py --check --output corpora --name dhsd         # look at a corpus, decode it all
    python jobs/prepare_data.py --check --format pairs --input scans/lines   # what would come out? no writing

S3-compatible stores: set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_REGION).
Exit status: 0 done; 2 something for you to cure, named on stderr (with --check: the corpus has problems).
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; wrong usage ends with status 2."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--corpus",
        metavar="NAME",
        help="fetch an openly licensed corpus of the catalogue (see below), check it and prepare it; default "
        "--output runs/corpora; options such as --height and --normalisation are yours, where its files lie is not",
    )
    add("--format", choices=list(IMPORTERS), help="layout of the input, see below")
    add("--input", metavar="URI", help="file, folder or pattern to read; with only --check: a corpus")
    add("--output", metavar="URI", help="folder that holds corpora; the corpus becomes OUTPUT/NAME")
    add("--name", help="name of the corpus")
    add(
        "--check",
        action="store_true",
        help="report on the corpus at OUTPUT/NAME or --input; if there is none, on what the input would make",
    )
    add("--licence", default="", help="recorded in the corpus, such as CC-BY-4.0")
    add("--source", default="", help="recorded in the corpus: where the lines are from (default: input)")
    add("--citation", default="", help="recorded in the corpus: how to cite it")
    add("--seed", type=int, default=0, help="seed of the splits and the order of lines (default 0)")
    add(
        "--splits",
        type=_shares,
        default=(80.0, 10.0, 10.0),
        metavar="80,10,10",
        help="shares of train, val and test (default 80,10,10)",
    )
    add(
        "--split-by",
        choices=get_args(SplitBy),
        default="auto",
        help="auto (default): the source's own splits, else whole writers, else pages, else lines",
    )
    add("--normalisation", choices=get_args(Normalisation), default="NFC", help="Unicode normal form (default NFC)")
    _add_import_options(parser)
    add("--contact-sheet", metavar="FILE", help="write a PNG of 24 random lines with their texts: look at it")
    add("--json", metavar="FILE", help="write what was asked, what came out and the seconds to FILE")
    return parser.parse_args(arguments)


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    """Flags of single formats, each named after its field of ImportOptions."""
    add = parser.add_argument_group("options of single formats").add_argument
    add("--image-column", default="image", metavar="NAME", help="parquet, table: default image")
    add("--text-column", default="text", metavar="NAME", help="parquet, table: default text; none: unlabelled")
    add("--writer-column", metavar="NAME", help="parquet, table: default writer, if there is one; none: not known")
    add("--page-column", metavar="NAME", help="parquet, table: default page, if there is one; none: not known")
    add("--split-column", metavar="NAME", help="parquet, table: column with train, val, test")
    add(
        "--writer-from",
        choices=["folder", "page", "none"],
        default="folder",
        help="pairs, alto, page: what names a writer (default folder)",
    )
    add(
        "--writer-pattern",
        metavar="REGEX",
        help="alto, page: the first group, found in a page's name, is its writer, e.g. '(will_\\d+)'",
    )
    add(
        "--level",
        choices=["lines", "words"],
        default="lines",
        help="iam, cvl, rimes, washington: default lines",
    )
    add("--skip-err", action="store_true", help="iam: leave out what is marked as badly segmented")
    add("--split-files", metavar="URI", help="iam, bentham: folder of the lists that say which form is in which split")
    add("--fold", default="cv1", help="washington: cross-validation fold, cv1 to cv4 (default cv1)")
    add("--images", metavar="URI", help="alto, page, bentham: folder of page images that are not beside the XML")
    add("--xml", metavar="PATTERN", help="alto, page: which of several readings of a page, e.g. '*.chocomufin.xml'")
    add("--height", type=_pixels, metavar="PIXELS", help="scale lines that are cut from pages (default: as scanned)")


def _pixels(value: str) -> int:
    if not value.isdecimal() or not 8 <= int(value) <= 1000:
        raise argparse.ArgumentTypeError(f"'{value}': a height of 8 to 1000 pixels is needed")
    return int(value)


def _shares(value: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in value.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 < share < float("inf") for share in shares):
        raise argparse.ArgumentTypeError(f"'{value}': three positive numbers are needed, such as 80,10,10")
    return shares


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Do what was asked; return the report."""
    stderr = Console(stderr=True)
    settings: dict[str, Any] = {
        "licence": asked.licence,
        "source": asked.source,
        "citation": asked.citation,
        "seed": asked.seed,
        "shares": asked.splits,
        "split_by": asked.split_by,
        "options": ImportOptions(**{field.name: getattr(asked, field.name) for field in fields(ImportOptions)}),
    }
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=stderr
    )
    with bar:
        task = bar.add_task("listing the input", total=None)
        settings["progress"] = lambda lines, share: bar.update(
            task, description=f"{lines} lines read", completed=share, total=1.0
        )
        if asked.corpus:
            return _from_catalogue(asked, settings, bar.console, lambda text: bar.update(task, description=text))
        if asked.format:
            refuse_unread(asked.format, settings["options"])
        if asked.check:
            return _check(asked, settings)
        missing = [f"--{key}" for key in ("format", "input", "output", "name") if not getattr(asked, key)]
        if missing:
            raise UserError(f"{', '.join(missing)} missing; see --help for examples")
        return prepare(asked.format, asked.input, asked.output, asked.name, **settings)


def _from_catalogue(
    asked: argparse.Namespace, settings: dict[str, Any], stderr: Console, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Fetch the corpus, unless it is in the cache, and prepare it as its entry says."""
    own = [f"--{key}" for key in ("format", "input", "licence", "source", "citation") if getattr(asked, key)]
    if own or asked.check:
        raise UserError(f"--corpus: the catalogue says all that; leave out {', '.join(own or ['--check'])}")
    entry = catalogue.find(asked.corpus)
    # Before the download: how the files lie is the catalogue's to say, the rest (--height, ...) is the user's.
    refuse_unread(entry.format, settings["options"])
    with_own(entry.options_at(""), entry.options, settings["options"])
    say = partial(stderr.print, highlight=False, markup=False)
    say(catalogue.describe(entry))
    got = catalogue.fetch(entry, progress=progress)
    for remark in got.remarks:
        say(remark)
    settings["options"] = with_own(got.options, entry.options, settings["options"])
    settings |= {"licence": entry.licence, "source": got.source, "citation": entry.citation}
    return prepare(entry.format, got.input, asked.output or "runs/corpora", asked.name or entry.name, **settings)


def _check(asked: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    place = storage.join(asked.output, asked.name) if asked.output and asked.name else None
    if place and (not asked.input or storage.exists(storage.join(place, INFO_FILE))):
        return summarise(Corpus.open(place), decode=True)
    if asked.input and asked.format:
        return try_out(asked.format, asked.input, asked.name or "checked", **settings)
    if asked.input:
        return summarise(Corpus.open(asked.input), decode=True)
    raise UserError("--check needs --output and --name of a corpus, or --input; see --help for examples")


def _write_contact_sheet(target: str, uri: str | None) -> None:
    if uri is None:
        raise UserError("--contact-sheet: nothing was written to look at; give --output and --name, without --check")
    storage.write_bytes(target, png(contact_sheet(Corpus.open(uri))))
    print(f"24 random lines with their texts: {target}")


def main(arguments: list[str] | None = None) -> int:
    """Run the job; return the exit status."""
    asked = parse(arguments)
    start = time.perf_counter()
    result: dict[str, Any] = {"job": "prepare_data", "asked": vars(asked)}
    status = 0
    try:
        report = run(asked)
        result["result"] = report
        console = Console() if sys.stdout.isatty() else Console(width=120)
        print_report(report, console)
        if asked.contact_sheet:
            _write_contact_sheet(asked.contact_sheet, report["uri"])
        if report["problems"]:
            status = 2
            count = len(report["problems"])
            print(f"prepare_data: {report['uri']}: {count} problems, see above", file=sys.stderr)
        elif report["uri"]:
            print(f"\nNext: python jobs/full_grid.py name={report['name']} 'corpora=[{report['uri']}]' preset=small")
    except UserError as error:
        status = 2
        result["error"] = str(error)
        print(f"prepare_data: {error}", file=sys.stderr)
    result["seconds"] = round(time.perf_counter() - start, 3)
    if asked.json:
        try:
            storage.write_json(asked.json, result)
        except UserError as error:
            print(f"prepare_data: --json {error}", file=sys.stderr)
            return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
