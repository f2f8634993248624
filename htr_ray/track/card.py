"""Model cards: what a registered model is, what it was made from, its numbers, and where they end.

Markdown, written from figures alone: a figure that is missing is left out or said to be missing, never guessed.
"""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from htr_ray.corpus.schema import CorpusInfo

LIMIT = 5000
"""Characters that MLflow's databases keep of a description (``String(5000)``, model_registry/dbmodels/models.py)."""
_FEW_WRITERS = 10
_TABLE_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is written from."""

    uri: str
    """``models:/NAME/VERSION``."""
    best_uri: str
    """``models:/NAME@ALIAS``: where the best one is found."""
    corpus: str
    info: CorpusInfo | None
    """None: the corpus cannot be read any more."""
    grid: str
    key: str
    """Of the trial."""
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    """The trial's ``result.json``."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The grid's finished fine-tunings on the corpus: decoder, protocol, label_fraction, pretext, seed, test_cer."""


def recognizer_card(facts: Facts) -> str:
    """The card of a recognizer; at most ``LIMIT`` characters."""
    name, p = _text(facts.corpus), facts.params
    pretext = p.get("pretext", "unknown")
    made = [
        f"decoder `{_code(p.get('decoder', 'unknown'))}`",
        "trained from scratch, without pre-training"
        if pretext == "none"
        else f"encoder pre-trained with `{_code(pretext)}` on the training images, without their texts",
        *_protocol(p, pretext),
        _labels(facts),
        f"seed {_code(p.get('seed', 'unknown'))}",
        *_size(facts),
    ]
    return _fitted(
        [
            f"# Recognizer of {name}",
            f"Reads images of single handwritten lines like those of the corpus **{name}**. "
            f"From grid `{_code(facts.grid)}`, trial `{_code(facts.key)}`.",
            _figures(facts),
            "## Data",
            _data(facts),
            "## How it was made",
            _bullets(made),
            *_by_fraction(facts.rows),
            "## Alphabet",
            _alphabet(facts.info),
            "## Intended use",
            "First transcriptions of lines from the same collection or one much like it (same script, language, time "
            "and kind of scan), to be searched or to be corrected by people.",
            "## Limits",
            _bullets(_limits(facts)),
            "## How to use it",
            _use_recognizer(facts),
        ]
    )


def encoder_card(facts: Facts) -> str:
    """The card of a pre-trained encoder; at most ``LIMIT`` characters."""
    name, pretext = _text(facts.corpus), _code(facts.params.get("pretext", "unknown"))
    accuracy, chance = _number(facts.metrics, "val_accuracy"), _number(facts.metrics, "chance")
    limits = ["It reads nothing by itself: fine-tune it with labelled lines first."]
    if accuracy is not None and chance is not None and accuracy <= chance:
        limits.insert(0, "**Not better than guessing** at its own task: nothing shows that it has learnt anything.")
    limits.append("Being good at the pretext task does not mean that reading improves; only the CER shows that.")
    seeds = sorted({str(row.get("seed")) for row in facts.rows})
    if len(seeds) == 1:
        limits.append("The grid has one seed: how much chance plays in its figures is not known.")
    figures = ["| held-out lines | % |", "|---|--:|"]
    figures += [f"| accuracy | {accuracy:.1f} |"] if accuracy is not None else []
    figures += [f"| chance | {chance:.1f} |"] if chance is not None else []
    return _fitted(
        [
            f"# Encoder of {name}, pre-trained with {pretext}",
            f"Turns a line image into feature vectors. Taught by the pretext task `{pretext}` on the training images "
            f"of the corpus **{name}**, without their texts. "
            f"From grid `{_code(facts.grid)}`, trial `{_code(facts.key)}`.",
            "\n".join(figures) if len(figures) > 2 else "The accuracy on held-out lines was not logged.",
            "## Data",
            _data(facts),
            *_by_fraction(facts.rows),
            "## Intended use",
            "The start of a recognizer where labels are few; features for search or clustering of lines.",
            "## Limits",
            _bullets(limits),
            "## How to use it",
            _use_encoder(facts),
        ]
    )


def _figures(facts: Facts) -> str:
    rows = []
    for split, prefix in (("validation", "val"), ("test", "test")):
        cer, wer = _number(facts.metrics, f"{prefix}_cer"), _number(facts.metrics, f"{prefix}_wer")
        if cer is not None:
            rows.append(f"| {split}{_split_size(facts.info, prefix)} | {cer:.1f} | {_or_dash(wer)} |")
    if not rows:
        return "Error rates were not logged."
    table = "\n".join(["| lines | CER, % | WER, % |", "|---|--:|--:|", *rows])
    return table + "\n\nValidation chose this recognizer, so its figure is a little too good; test chose nothing."


def _split_size(info: CorpusInfo | None, split: Any) -> str:
    counts = None if info is None else info.counts.get(split)
    if counts is None:
        return ""
    writers = f", {_count(counts.writers, 'writer')}" if counts.writers else ""
    return f" ({_count(counts.labelled, 'labelled line')}{writers})"


def _data(facts: Facts) -> str:
    info = facts.info
    if info is None:
        return f"Corpus **{_text(facts.corpus)}**; its `corpus.json` could not be read when this was written."
    train = info.counts.get("train")
    told = [f"Corpus **{_text(info.name)}**"]
    if train is not None:
        writers = f" of {_count(train.writers, 'writer')}" if train.writers else ", writers not known"
        told[0] += f": {_count(train.lines, 'training line')}{writers}, {train.labelled:,} of them labelled"
    told.append(f"Split by: {_text(info.split_by)}" if info.split_by else "Split: how is not recorded")
    told.append(f"Licence of the data: {_text(info.licence, 200) or 'not stated'}")
    told += [f"Source: {_text(info.source, 200)}"] if info.source else []
    told += [f"Cite: {_text(info.citation, 500)}"] if info.citation else []
    return _bullets(told)


def _protocol(params: Mapping[str, str], pretext: str) -> list[str]:
    if params.get("protocol") != "frozen":
        return []
    return ["the encoder stayed fixed, only the decoder learnt" + (" (a random encoder)" if pretext == "none" else "")]


def _labels(facts: Facts) -> str:
    used, share = _number(facts.metrics, "lines"), facts.params.get("label_fraction")
    percent = f"{100 * float(share):g} % of the labels" if share and _is_number(share) else "labels"
    return f"{percent}: {_count(int(used), 'labelled line')}" if used is not None else percent


def _size(facts: Facts) -> list[str]:
    parameters, gflops = _number(facts.result, "parameters"), _number(facts.result, "gflops")
    told = [f"{parameters / 1e6:.1f} million parameters"] if parameters else []
    return told + ([f"{gflops:.1f} GFLOP for a line four times as wide as high"] if gflops else [])


def _by_fraction(rows: list[dict[str, Any]]) -> list[str]:
    """CER on test by share of labels, a column for each pretext task; mean over seeds."""
    cells: dict[tuple[str, str, float], dict[str, list[float]]] = {}
    for row in rows:
        cer, share = row.get("test_cer"), row.get("label_fraction")
        if cer is None or share is None or math.isnan(float(cer)):
            continue
        place = (str(row.get("protocol")), str(row.get("decoder")), float(share))
        cells.setdefault(place, {}).setdefault(str(row.get("pretext")), []).append(float(cer))
    if not cells:
        return []
    pretexts = sorted({pretext for cell in cells.values() for pretext in cell}, key=lambda name: (name != "none", name))
    seeds = {len(values) for cell in cells.values() for values in cell.values()}
    many = max(seeds) > 1
    table = [
        "| labels | decoder | protocol | " + " | ".join(_text(name) for name in pretexts) + " |",
        "|--:|---|---|" + "--:|" * len(pretexts),
    ]
    for protocol, decoder, share in sorted(cells)[:_TABLE_ROWS]:
        found = cells[protocol, decoder, share]
        texts = [_cell(found.get(pretext, []), many) for pretext in pretexts]
        table.append(f"| {100 * share:g} % | {_text(decoder)} | {_text(protocol)} | " + " | ".join(texts) + " |")
    if len(cells) > _TABLE_ROWS:
        table.append("\nThe other rows: `summary.csv` of the grid's run.")
    of_what = "mean over seeds (how many)" if many else "one seed"
    return [
        "## Test CER by share of labels, in %",
        f"All recognizers of this grid on this corpus; {of_what}.\n\n" + "\n".join(table),
    ]


def _cell(values: list[float], many: bool) -> str:
    if not values:
        return "-"
    return f"{statistics.fmean(values):.1f}" + (f" ({len(values)})" if many else "")


def _alphabet(info: CorpusInfo | None) -> str:
    if info is None:
        return "See `artifacts/recognizer/model.json` in the model's files."
    shown = info.alphabet if len(info.alphabet) <= 250 else f"{info.alphabet[:250]}..."
    told = f"{_count(len(info.alphabet), 'character')}: " if shown else ""
    return f"{told}{_code_span(shown)}" if shown else "Empty."


def _limits(facts: Facts) -> Iterable[str]:
    info = facts.info
    yield "Lines only: a page must be cut into lines first. The confidence is the model's own opinion, not calibrated."
    if info is not None:
        known = scripts(info.alphabet)
        if known:
            yield (
                f"Its letters are {', '.join(known)}: a character outside the alphabet, and so any other script, "
                "cannot come out; it is misread without a warning."
            )
        if info.alphabet_unseen:
            yield f"Test has characters that it cannot know: {_code_span(info.alphabet_unseen[:60])}."
        test = info.counts.get("test")
        if (
            test is not None
            and test.writers
            and info.split_by in ("writer", "official")
            and test.writers < _FEW_WRITERS
        ):
            yield f"Test holds {_count(test.writers, 'writer')}: another hand may be read much better or worse."
        if test is not None and not test.writers:
            yield "Writers are not known: test may hold hands that training has seen, and flatter."
        if info.set_aside:
            total = sum(info.set_aside.values())
            reasons = ", ".join(f"{_text(reason, 60)} {count:,}" for reason, count in list(info.set_aside.items())[:4])
            yield (
                f"{_count(total, 'line')} set aside when the corpus was made ({reasons}): "
                "the figures say nothing of such lines."
            )
    for name, what in (("unreadable", "could not be decoded"), ("set_aside", "had characters outside the alphabet")):
        lines = facts.result.get(name) or []
        if lines:
            yield f"{_count(len(lines), 'line')} took no part because they {what}."
    yield _seeds(facts)
    test_cer = _number(facts.metrics, "test_cer")
    if test_cer is not None and test_cer >= 50:
        yield "At this CER most of its text is wrong: not of use for reading yet."


def _seeds(facts: Facts) -> str:
    place = ("decoder", "protocol", "label_fraction", "pretext")
    mine = [
        float(row["test_cer"])
        for row in facts.rows
        if row.get("test_cer") is not None and all(str(row.get(key)) == str(facts.params.get(key)) for key in place)
    ]
    if len(mine) > 1:
        low, high = min(mine), max(mine)
        return f"Its recipe was trained with {len(mine)} seeds; their test CER runs from {low:.1f} to {high:.1f} %."
    told = "was trained with one seed" if mine else "may have been trained with one seed alone"
    return f"Its recipe {told}: how much chance plays in its figures is not known."


def _use_recognizer(facts: Facts) -> str:
    return (
        f"Set `MLFLOW_TRACKING_URI` to this MLflow. The best one is always `{facts.best_uri}`.\n\n"
        "```python\n"
        f'model = mlflow.pyfunc.load_model("{facts.uri}")\n'
        'model.predict(["line-1.png", "line-2.png"])  # text, confidence, error\n'
        "```\n"
        "```sh\n"
        f"mlflow models serve -m {facts.uri} --port 5001 --env-manager local\n"
        'echo "{\\"inputs\\": [\\"$(base64 -w0 line.png)\\"]}" | curl -d @- \\\n'
        "  -H 'Content-Type: application/json' localhost:5001/invocations\n"
        f"python jobs/transcribe.py --model {facts.uri} --input LINES --output TEXTS\n"
        "```"
    )


def _use_encoder(facts: Facts) -> str:
    return (
        f"Set `MLFLOW_TRACKING_URI` to this MLflow. The best one is always `{facts.best_uri}`.\n\n"
        "```python\n"
        f'model = mlflow.pyfunc.load_model("{facts.uri}")\n'
        'model.predict(["line-1.png", "line-2.png"])["features"]  # a vector for each line\n\n'
        "from htr_ray.model.files import load_encoder\n"
        f'folder = mlflow.artifacts.download_artifacts("{facts.uri}")\n'
        'encoder = load_encoder(folder + "/artifacts/encoder")  # a torch module\n'
        "```\n"
        "```sh\n"
        "python jobs/finetune.py --corpus CORPUS --encoder FOLDER/artifacts/encoder --output OUT\n"
        "```"
    )


def scripts(alphabet: str) -> list[str]:
    """Scripts of the letters, by their Unicode names: ``"aßж"`` -> ``["Cyrillic", "Latin"]``."""
    names = {unicodedata.name(c, "").partition(" ")[0] for c in alphabet if unicodedata.category(c).startswith("L")}
    return sorted(name.title() for name in names if name and name not in ("MODIFIER", "FEMININE", "MASCULINE"))


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return None if value is None or math.isnan(float(value)) else float(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _text(value: str, limit: int = 120) -> str:
    """Foreign text in one line, harmless to Markdown and its tables."""
    line = " ".join(str(value).split())
    line = line if len(line) <= limit else f"{line[: limit - 3]}..."
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", line)


def _code(value: str) -> str:
    """Foreign text between backticks that the caller writes."""
    return " ".join(str(value).replace("`", "'").replace("|", "/").split())[:120]


def _code_span(text: str) -> str:
    """Text as it is, in a code span: the fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    # A span that starts and ends with a space loses both; the alphabet often starts with one.
    return f"{fence} {text} {fence}"


def _fitted(parts: list[str]) -> str:
    text = "\n\n".join(parts) + "\n"
    if len(text) <= LIMIT:
        return text
    note = "\n\n(cut here: MLflow keeps 5000 characters)\n"
    return text[: LIMIT - len(note)].rpartition("\n")[0] + note
