"""Examples of what the best recognizer of each corpus got wrong, and right."""

from __future__ import annotations

import logging

from htr_ray.errors import UserError
from htr_ray.report.alignment import confusions, visible
from htr_ray.report.analysis import Analysis
from htr_ray.report.document import Block, Fragment, Paragraph, Table, Value
from htr_ray.report.entries import choose
from htr_ray.report.lines import test_images
from htr_ray.report.results import TrialResult
from htr_ray.report.sheet import reading_rows
from htr_ray.report.wording import anchor, count

logger = logging.getLogger(__name__)

_LINES = 9
_CONFUSIONS = 15


def error_examples(made: Analysis) -> list[Block]:
    """For each corpus: worst, best and some other lines of its best recognizer, and what it mistakes for what."""
    blocks: list[Block] = []
    for corpus, trial in made.champions.items():
        if trial.readings:
            blocks += _examples(corpus, trial, made.grid.corpora.get(corpus, {}).get("uri"))
    return blocks


def _examples(corpus: str, trial: TrialResult, uri: str | None) -> list[Block]:
    assert trial.readings is not None
    chosen = choose(trial.readings, _LINES)
    images: dict[str, bytes] = {}
    told = f"Test lines of {corpus} as {trial.key} reads them, the recognizer with the lowest validation CER. "
    told += "Look at the worst ones closely: sometimes it is the transcription that is wrong."
    if uri is not None:
        try:
            images = test_images(uri, [line["id"] for lines in chosen.values() for line in lines])
        except UserError as error:
            logger.warning("%s: no images for the examples: %s", corpus, error)
            told += " Their images could not be read."
    blocks: list[Block] = [Paragraph(told)]
    for heading, lines in chosen.items():
        rows = [[Value(line["id"]), Value(line["truth"]), Value(line["reading"])] for line in lines]
        instead = Table(
            anchor("lines", corpus, heading),
            f"{corpus}: {heading.lower()}",
            ["line", "truth", "read"],
            rows,
            numbers=False,
        )
        blocks.append(Fragment(reading_rows(lines, images), instead))
    found = confusions(trial.readings, top=_CONFUSIONS)
    if found:
        rows = [[Value(visible(one.expected)), Value(visible(one.read)), Value(count(one.count))] for one in found]
        blocks.append(
            Table(
                anchor("confusions", corpus),
                f"{corpus}: most frequent mistakes",
                ["expected", "read", "times"],
                rows,
                headers=2,
                legend=(
                    "∅ stands for no character: missed where it was read, added where it was expected. ␣ is a blank."
                ),
            )
        )
    return blocks
