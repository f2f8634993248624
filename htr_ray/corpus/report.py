"""What a corpus holds, for people: read back from the files, so that it is also a check of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr_ray.config import PRESETS, ModelSettings
from htr_ray.corpus.direction import direction_of_counts
from htr_ray.corpus.duplicates import NAMED, same_images, same_texts
from htr_ray.corpus.frames import frames, too_long_for_ctc
from htr_ray.corpus.histogram import histogram
from htr_ray.corpus.look import Images, look
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SCHEMA, SPLITS, CorpusInfo, Split
from htr_ray.corpus.texts import TextFigures, measure
from htr_ray.errors import UserError

EXAMPLES = 3
RARE = 10
"""A character with fewer occurrences in train is hardly learnt."""
_COLUMNS = ("id", "width", "height", "text", "writer", "page")
_Tables = Mapping[Split, pa.Table]


def summarise(
    corpus: Corpus, *, decode: bool = False, digests: Mapping[Split, np.ndarray] | None = None
) -> dict[str, Any]:
    """Describe a corpus as JSON-ready values; ``problems`` lists what is wrong with it, empty if nothing is.

    Every image is read, to find the same one on two sides of a split. With ``decode`` it is looked at too, to find
    damaged and nearly blank ones. In memory are the other columns (in Arrow) and one row group of images.
    Who has just written the corpus knows ``digests`` of the image files (as in :class:`look.Images`, for each
    split in the order of its lines); then none is read again.
    """
    info = corpus.info
    problems: list[str] = []
    tables = {split: _index(corpus, split, problems) for split in SPLITS}
    if digests is None:
        images = {split: look(corpus, split, table, decode=decode) for split, table in tables.items()}
    else:
        images = {split: Images(digests[split]) for split in SPLITS}
    problems += [problem for split in SPLITS for problem in images[split].problems]
    total = sum(table.num_rows for table in tables.values())
    _check_ids(tables, problems)
    writers_twice, pages_twice = _on_two_sides(tables, "writer"), _on_two_sides(tables, "page")
    if info.split_by == "writer" and writers_twice:
        problems.append(f"{len(writers_twice)} writers are on two sides, for instance {writers_twice[0]}")
    texts = {split: measure(table["text"]) for split, table in tables.items()}
    duplicates = same_images(tables, {split: images[split].digests for split in SPLITS})
    warnings = [*info.warnings, *_direction_warnings(info, texts)]
    if duplicates["lines_on_two_sides"]:
        example = " = ".join(duplicates["on_two_sides"][0][:EXAMPLES])
        count = duplicates["lines_on_two_sides"]
        warnings.append(f"{count} lines have the same image as one on another side, for instance {example}")
    seen = texts["train"].characters
    return {
        "uri": corpus.uri,
        "name": info.name,
        "licence": info.licence,
        "source": info.source,
        "seed": info.seed,
        "split_by": info.split_by,
        "direction": info.direction,
        "lines": total,
        "splits": {split: _split(table, total, texts[split]) for split, table in tables.items()},
        "writers_on_two_sides": writers_twice,
        "pages_on_two_sides": pages_twice,
        "alphabet": info.alphabet,
        "characters": _characters(texts),
        "test_characters_unseen_in_train": {
            character: count for character, count in sorted(texts["test"].characters.items()) if character not in seen
        },
        "width": _quantiles(_column(tables, "width")),
        "height": _quantiles(_column(tables, "height")),
        "histograms": {
            "width": histogram(_column(tables, "width")),
            "characters": histogram(np.concatenate([_labelled_lengths(tables[s], texts[s]) for s in SPLITS])),
        },
        "too_long_for_ctc": _too_long(tables, texts),
        "duplicates": {
            "images": {"compared": "pixels" if decode else "files", **duplicates},
            "texts": same_texts(tables),
        },
        "set_aside": info.set_aside,
        "set_aside_examples": _examples(corpus),
        "nearly_blank": [id_ for split in SPLITS for id_ in images[split].nearly_blank],
        "warnings": warnings,
        "problems": problems,
    }


def _index(corpus: Corpus, split: Split, problems: list[str]) -> pa.Table:
    try:
        table = corpus.index(split, _COLUMNS)
    except UserError as error:
        problems.append(str(error))
        return pa.schema([SCHEMA.field(name) for name in _COLUMNS]).empty_table()
    counted, held = corpus.info.counts[split].lines, table.num_rows
    if counted != held:
        problems.append(f"{split}: corpus.json counts {counted} lines, the files hold {held}")
    return table


def _check_ids(tables: _Tables, problems: list[str]) -> None:
    counts = pc.value_counts(pa.chunked_array([chunk for table in tables.values() for chunk in table["id"].chunks]))
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        problems.append(f"{len(twice)} ids occur more than once, for instance {twice[0].as_py()}")


def _split(table: pa.Table, total: int, texts: TextFigures) -> dict[str, Any]:
    return {
        "lines": table.num_rows,
        "share": round(table.num_rows / total, 4) if total else 0.0,
        "labelled": table.num_rows - table["text"].null_count,
        "writers": pc.count_distinct(table["writer"]).as_py(),
        "pages": pc.count_distinct(table["page"]).as_py(),
        "characters": len(texts.characters),
    }


def _characters(texts: Mapping[Split, TextFigures]) -> list[dict[str, Any]]:
    """Every character and how often each split has it, in code point order."""
    every = sorted(set().union(*(texts[split].characters for split in SPLITS)))
    return [
        {
            "character": character,
            **{split: texts[split].characters[character] for split in SPLITS},
            "rare": texts["train"].characters[character] < RARE,
        }
        for character in every
    ]


def _too_long(tables: _Tables, texts: Mapping[Split, TextFigures]) -> dict[str, Any]:
    """For each preset the lines whose text is longer than CTC can learn at its height, and 100 of their ids."""
    found = {}
    for preset, recipe in PRESETS.items():
        settings = ModelSettings(**recipe.get("model", {}))
        count, ids = 0, []
        for split, table in tables.items():
            available = frames(table["width"].to_numpy(), table["height"].to_numpy(), settings)
            lines = np.flatnonzero(too_long_for_ctc(available, texts[split].lengths, texts[split].repeats))
            count += len(lines)
            ids += table["id"].take(lines[:NAMED]).to_pylist()
        found[preset] = {"lines": count, "ids": ids[:NAMED]}
    return found


def _direction_warnings(info: CorpusInfo, texts: Mapping[Split, TextFigures]) -> list[str]:
    counted: Counter[str] = Counter()
    for figures in texts.values():
        counted += figures.characters
    found, said = direction_of_counts(counted), info.direction
    if found == said or not counted:
        return []
    return [f"most letters run {found}, but corpus.json says {said}; prepare the corpus again to change that"]


def _column(tables: _Tables, name: str) -> np.ndarray:
    return np.concatenate([table[name].to_numpy() for table in tables.values()])


def _labelled_lengths(table: pa.Table, texts: TextFigures) -> np.ndarray:
    return texts.lengths[table["text"].is_valid().to_numpy()]


def _on_two_sides(tables: _Tables, column: str) -> list[str]:
    sides = Counter(name for table in tables.values() for name in pc.unique(table[column]).to_pylist())
    return sorted(name for name, count in sides.items() if name is not None and count > 1)


def _quantiles(values: np.ndarray) -> dict[str, int]:
    if not len(values):
        return {}
    p5, median, p95 = (int(q) for q in np.percentile(values, (5, 50, 95)))
    return {"min": int(values.min()), "p5": p5, "median": median, "p95": p95, "max": int(values.max())}


def _examples(corpus: Corpus) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    table = corpus.set_aside()
    for reason in pc.unique(table["reason"]).to_pylist():
        rows = table.filter(pc.equal(table["reason"], reason)).slice(0, EXAMPLES).to_pylist()
        examples[reason] = [row["id"] + (f": {row['detail']}" if row["detail"] else "") for row in rows]
    return examples
