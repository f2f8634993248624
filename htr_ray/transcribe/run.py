"""From what was asked to a finished transcription: plan, resume, read, put together, report."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

import htr_ray
from htr_ray import storage
from htr_ray.config import TranscribeSettings
from htr_ray.corpus.importers import ImportOptions
from htr_ray.corpus.importers.units import CANNOT_BE_READ, NOT_DOWNLOADED
from htr_ray.corpus.schema import Split
from htr_ray.errors import UserError
from htr_ray.transcribe.language import make_language
from htr_ray.transcribe.lines import Recipe
from htr_ray.transcribe.model import Bundle, fetch
from htr_ray.transcribe.part import LINES, PAGES, Output, Tally, damage, tallies
from htr_ray.transcribe.progress import Meter
from htr_ray.transcribe.reader import NO_MEMORY
from htr_ray.transcribe.source import FORMATS, Task, base_of, list_units, recognise, tasks
from htr_ray.transcribe.work import Work, work_off

CURABLE = {CANNOT_BE_READ, NOT_DOWNLOADED, NO_MEMORY}
"""Reasons that may be gone when the same is asked again: such lines are tried again."""
RESULT = "transcription.json"
STARTED = "started.json"
TABLE, UNREADABLE = "lines.tsv", "unreadable.tsv"
# Settings that decide what comes out; the others only how fast.
_DECIDING = (
    *("beam", "language_text", "word_list", "language_order", "language_weight"),
    *("existing", "precision", "part_lines", "part_pages"),
)
_COLUMNS = ("id", "page", "split", "text", "confidence", "scores", "truth", "reason", "detail")
_BATCH = 4096


@dataclass(frozen=True)
class Request:
    """What was asked."""

    model: str
    input: str
    output: str
    format: str | None = None
    splits: tuple[Split, ...] = ()
    """Of a corpus; none: all."""
    options: ImportOptions = field(default_factory=ImportOptions)
    settings: TranscribeSettings = field(default_factory=TranscribeSettings)  # type: ignore[arg-type]


def transcribe(asked: Request, console: Console) -> dict[str, Any]:
    """Read the input and write the output; return what ``transcription.json`` then says.

    What an earlier run of the same request has finished is kept. Raises UserError when there is no such model or
    input, when the output holds another request's transcription, or when a store fails.
    """
    began = time.monotonic()
    source, target = storage.normalise(asked.input), storage.normalise(asked.output)
    if not storage.exists(source) and not re.search(r"[*?\[]", source):
        raise UserError(f"--input {asked.input}: not found; check the spelling")
    _refuse_nested(asked, source, target)
    if asked.format is not None and asked.format not in FORMATS:
        raise UserError(f"--format {asked.format}: unknown; use one of {', '.join(FORMATS)}")
    bundle = fetch(asked.model)
    format = asked.format or recognise(source, asked.options)
    language, language_digest = make_language(asked.settings, bundle.alphabet)
    plan = _plan(asked, source, format, bundle, language_digest)
    _claim(target, plan, asked.output)
    # Truths are compared in the form of the readings.
    form = bundle.alphabet.form if asked.options.normalisation == "NFC" else asked.options.normalisation
    recipe = Recipe.of(bundle.settings, form, asked.settings.part_lines)
    work = Work(bundle, asked.settings, recipe, Output(target, base_of(source), asked.settings.existing), language)
    todo = list(tasks(list_units(format, source, asked.options, asked.splits), asked.settings))
    done = work.output.done()
    asked_for = [part for task in todo for part in done.get(task.name, ())]
    told = dict(zip(asked_for, tallies(asked_for), strict=True))
    again = {part for part, tally in told.items() if CURABLE & tally.reasons.keys()}
    kept = {name: parts for name, parts in done.items() if again.isdisjoint(parts)}
    pending = [task for task in todo if task.name not in kept]
    place = storage.join(target, RESULT)
    if {task.name for task in todo} == kept.keys() and storage.exists(place):
        console.print("finished already; nothing new in the input", highlight=False)
        return storage.read_json(place)
    storage.write_json(storage.join(target, STARTED), plan)
    storage.delete_file(place)  # it says that all is there
    before = Tally()
    for part in (part for task in todo for part in kept.get(task.name, ())):
        before.add(told[part])
    _announce(console, format, plan, before, pending)
    with Meter(console, len(pending), sum(task.lines for task in pending)) as meter:
        if pending:
            for tally, ends in work_off(pending, work, console):
                meter.add(tally, ends)
    total = Tally()
    total.add(before)
    total.add(meter.tally)
    parts = _parts(work.output, todo)
    _tables(target, parts, with_truth=bool(total.errors))
    work.output.clear(keep=parts)
    result = {
        **plan,
        "htr_ray": htr_ray.__version__,
        **figures(total),
        "parts": len(parts),
        "resumed_lines": before.lines,
        "seconds": round(time.monotonic() - began, 2),
        "lines_per_second": round(meter.tally.read / max(meter.seconds, 1e-3), 1),
        "output": target,
    }
    storage.write_json(place, result)
    return result


def figures(total: Tally) -> dict[str, Any]:
    """Counts and error rates, as JSON has them."""
    told: dict[str, Any] = {
        "lines": total.lines,
        "read": total.read,
        "unreadable": total.unreadable,
        "unreadable_reasons": dict(sorted(total.reasons.items(), key=lambda item: -item[1])),
        "truths_left_out": total.truths_left_out,
        "pages_written": total.pages,
        "pages_unwritten": total.pages_unwritten,
    }
    everything = total.errors_of()
    if everything is not None:
        rates = {name: total.errors_of(name) for name in sorted(total.errors)}
        told |= {"cer": everything.cer, "wer": everything.wer, "lines_with_truth": everything.lines}
        told["splits"] = {
            name: {"cer": rate.cer, "wer": rate.wer, "lines": rate.lines}
            for name, rate in rates.items()
            if rate and name
        }
    return told


def _refuse_nested(asked: Request, source: str, target: str) -> None:
    """Never write over the input, nor where the next run would read it."""
    single = storage.exists(source) and not storage.is_dir(source)
    base, place = (storage.without_query(uri).rstrip("/") + "/" for uri in (base_of(source), target))
    into = not single and place.startswith(base)
    if into or any(base.startswith(f"{place}{folder}/") for folder in (LINES, PAGES)):
        raise UserError(
            f"--output {asked.output}: --input {asked.input} is inside of what would be written, or the other way"
            " round; choose an --output beside the input"
        )


def _plan(asked: Request, source: str, format: str, bundle: Bundle, language: str | None) -> dict[str, Any]:
    facts = bundle.facts
    settings = asked.settings.model_dump(mode="json")
    defaults = ImportOptions()
    return {
        "model": {
            "name": bundle.name,
            "digest": bundle.digest,
            "decoder": facts["decoder"],
            "characters": len(facts["alphabet"]),
            "direction": facts.get("direction", "ltr"),
        },
        "input": source,
        "format": format,
        "splits": list(asked.splits),
        "options": {key: value for key, value in asdict(asked.options).items() if value != getattr(defaults, key)},
        "language_digest": language,
        "settings": {key: settings[key] for key in _DECIDING},
    }


def _claim(target: str, plan: dict[str, Any], named: str) -> None:
    """Refuse an output that another request began: its parts would be taken for ours."""
    started = storage.join(target, STARTED)
    if not storage.exists(started):
        return
    there = storage.read_json(started)
    there = there if isinstance(there, dict) else {}
    differing = [
        f"{label} was {old!r}, now {new!r}"
        for label, old, new in _pairs(there, plan)
        if old != new and not label.endswith(" name")
    ]
    if differing:
        raise UserError(
            f"--output {named}: holds a transcription of another request ({'; '.join(differing)}); choose another"
            " --output, or delete that one"
        )


def _pairs(there: dict[str, Any], plan: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, value in plan.items():
        old = there.get(key)
        if isinstance(value, dict):
            old = old if isinstance(old, dict) else {}
            # Options that are as they always are do not stand in the file.
            for inner in dict.fromkeys([*value, *old]):
                yield f"{key} {inner}", old.get(inner), value.get(inner)
        else:
            yield key, old, value


def _announce(console: Console, format: str, plan: dict[str, Any], before: Tally, pending: Sequence[Task]) -> None:
    about = sum(task.lines for task in pending)
    again = f"; {before.lines:,} lines were finished before" if before.lines else ""
    console.print(
        f"{plan['model']['name']} ({plan['model']['digest']}) reads {plan['input']} as {format}: about {about:,} lines"
        f" in {len(pending):,} parts{again}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _parts(output: Output, todo: Sequence[Task]) -> list[str]:
    """All part files, in the order of the input. Raises UserError when one is missing."""
    done = output.done()
    missing = [task.name for task in todo if task.name not in done]
    if missing:
        raise UserError(
            f"{output.uri}: {len(missing)} parts are missing, for instance part-{missing[0]}; were they deleted? Run"
            " the same command again"
        )
    return [part for task in todo for part in done[task.name]]


def _tables(target: str, parts: Sequence[str], with_truth: bool) -> None:
    """Put the parts together to the two tables for people, some thousand lines at a time."""
    with ExitStack() as stack:
        read = stack.enter_context(storage.open_output(storage.join(target, TABLE)))
        unreadable = stack.enter_context(storage.open_output(storage.join(target, UNREADABLE)))
        truth = ["truth"] if with_truth else []
        read.write(_tsv(["id", "page", "text", "confidence", "scores", *truth]))
        unreadable.write(_tsv(["id", "reason", "detail"]))
        for part in parts:
            for row in _rows(part):
                if row["text"] is None:
                    unreadable.write(_tsv([row["id"], row["reason"], row["detail"]]))
                else:
                    scores = " ".join(f"{score:.3f}" for score in row["scores"])
                    values = [row["id"], row["page"], row["text"], f"{row['confidence']:.4f}", scores]
                    read.write(_tsv(values + [row[name] for name in truth]))


def _rows(part: str) -> Iterator[dict[str, Any]]:
    with damage(part), storage.open_input(part) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(_BATCH, columns=list(_COLUMNS), use_threads=False):
            yield from batch.to_pylist()


def _tsv(values: Sequence[str | None]) -> bytes:
    cells = ((value or "").replace("\t", " ").replace("\n", " ").replace("\r", " ") for value in values)
    return ("\t".join(cells) + "\n").encode("utf-8", "replace")
