"""Options of importers: which format reads which, and what may be said beside the catalogue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from htr_ray.corpus.catalogue.entries import load
from htr_ray.corpus.importers import IMPORTERS, ImportOptions
from htr_ray.corpus.importers.options import READ_BY, given, refuse_unread, with_own
from htr_ray.errors import UserError

JOB = Path(__file__).resolve().parents[2] / "jobs" / "prepare_data.py"


def test_every_option_is_accounted_for() -> None:
    assert READ_BY.keys() | {"normalisation"} == {field.name for field in fields(ImportOptions)}
    assert set().union(*READ_BY.values()) <= IMPORTERS.keys()


def test_the_catalogue_says_nothing_that_its_format_passes_over() -> None:
    for entry in load().values():
        refuse_unread(entry.format, entry.options_at("/"))


def test_an_option_of_another_format_is_not_passed_over() -> None:
    refuse_unread("alto", ImportOptions(height=64, normalisation="NFD"))
    with pytest.raises(UserError, match=r"^--height: the format parquet has no such option \(it is for alto, bentham"):
        refuse_unread("parquet", ImportOptions(height=64))


def test_own_options_are_added_to_the_catalogues() -> None:
    known = ImportOptions(writer_pattern="(will)", images="/cache/jpg")
    stated = {"writer_pattern": "(will)", "images": "jpg"}
    assert with_own(known, stated, ImportOptions()) == known
    both = with_own(known, stated, ImportOptions(height=64, normalisation="NFD", writer_pattern="(will)"))
    assert given(both) == given(known) | {"height": 64, "normalisation": "NFD"}
    with pytest.raises(UserError, match=r"^--images elsewhere: the catalogue says jpg for this corpus; leave it out"):
        with_own(known, stated, ImportOptions(images="elsewhere"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "testaments", "--writer-pattern", "(x)"], "--writer-pattern (x): the catalogue says (will_"),
        (["--corpus", "dhsd", "--height", "64"], "--height: the format table has no such option"),
        (["--format", "pairs", "--input", "x", "--output", "o", "--name", "c", "--skip-err"], "--skip-err: the format"),
    ],
)
def test_the_job_says_so_before_it_fetches_anything(arguments: list[str], message: str, tmp_path: Path) -> None:
    out = subprocess.run([sys.executable, str(JOB), *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 2 and message in out.stderr and "Traceback" not in out.stderr
    assert not list(tmp_path.iterdir())
