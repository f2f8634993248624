"""Model cards: they say what the numbers say, fit MLflow's column, and break no Markdown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.schema import CorpusInfo, SplitCounts
from htr_ray.track.card import LIMIT, Facts, encoder_card, recognizer_card, scripts

ROW = {"decoder": "ctc", "protocol": "semi_supervised", "label_fraction": "0.1", "pretext": "flip", "seed": "0"}
METRICS = {
    "val_cer": 9.04,
    "val_wer": 40.0,
    "test_cer": 12.34,
    "test_wer": 54.4,
    "lines": 471.0,
}


def info(**changes: Any) -> CorpusInfo:
    counts = {
        "train": SplitCounts(lines=4709, labelled=4709, writers=29),
        "val": SplitCounts(lines=605, labelled=600, writers=4),
        "test": SplitCounts(lines=625, labelled=625, writers=4),
    }
    fields: dict[str, Any] = {
        "name": "dhsd",
        "licence": "CC-BY-4.0",
        "citation": "Doe et al. 2024",
        "counts": counts,
        "alphabet": " -.ABab`äß",
        "files": {},
        "split_by": "writer",
    }
    return CorpusInfo(**{**fields, **changes})


def facts(**changes: Any) -> Facts:
    fields: dict[str, Any] = {
        "uri": "models:/htr-ray-dhsd/3",
        "best_uri": "models:/htr-ray-dhsd@champion",
        "corpus": "dhsd",
        "info": info(),
        "grid": "dhsd-ssl",
        "key": "finetune/dhsd/semi_supervised/ctc/0.1/flip/seed0",
        "params": ROW,
        "metrics": METRICS,
        "result": {"parameters": 44_300_000, "gflops": 20.2},
        "rows": [{**ROW, "test_cer": 12.34}, {**ROW, "pretext": "none", "test_cer": 20.0}],
    }
    return Facts(**{**fields, **changes})


def test_a_recognizer_s_card_has_all_that_a_user_asks() -> None:
    card = recognizer_card(facts())
    for told in (
        "| validation (600 labelled lines, 4 writers) | 9.0 | 40.0 |",
        "| test (625 labelled lines, 4 writers) | 12.3 | 54.4 |",
        "4,709 training lines of 29 writers",
        "Licence of the data: CC-BY-4.0",
        "Cite: Doe et al. 2024",
        "decoder `ctc`",
        "pre-trained with `flip`",
        "10 % of the labels: 471 labelled lines",
        "44.3 million parameters",
        "| labels | decoder | protocol | none | flip |",
        "| 10 % | ctc | semi\\_supervised | 20.0 | 12.3 |",
        "10 characters: ``  -.ABab`äß ``",
        "Its letters are Latin",
        "Test holds 4 writers",
        "one seed",
        'load_model("models:/htr-ray-dhsd/3")',
        "mlflow models serve -m models:/htr-ray-dhsd/3",
        "jobs/transcribe.py --model models:/htr-ray-dhsd/3",
        "models:/htr-ray-dhsd@champion",
    ):
        assert told in card, told
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        "# Recognizer of dhsd",
        "## Data",
        "## How it was made",
        "## Test CER by share of labels, in %",
        "## Alphabet",
        "## Intended use",
        "## Limits",
        "## How to use it",
    ]


def test_limits_come_from_the_numbers() -> None:
    plain = recognizer_card(facts())
    assert "cannot know" not in plain and "set aside" not in plain and "took no part" not in plain
    assert "most of its text is wrong" not in plain and "Writers are not known" not in plain

    counts = {split: SplitCounts(lines=100, labelled=100) for split in ("train", "val", "test")}
    worse = facts(
        info=info(counts=counts, alphabet_unseen="+ë", set_aside={"empty text": 3, "no image": 4}, split_by="line"),
        metrics={**METRICS, "test_cer": 60.7},
        result={"unreadable": ["a"], "set_aside": ["b", "c"]},
    )
    card = recognizer_card(worse)
    for told in (
        "cannot know: ` +ë `",
        "7 lines set aside",
        "empty text 3, no image 4",
        "1 line took no part because they could not be decoded",
        "2 lines took no part",
        "most of its text is wrong",
        "Writers are not known",
        "Split by: line",
    ):
        assert told in card, told
    assert "Test holds" not in card


def test_seeds_are_told() -> None:
    assert "was trained with one seed" in recognizer_card(facts())
    rows = [{**ROW, "seed": str(seed), "test_cer": 12.0 + seed} for seed in range(3)]
    card = recognizer_card(facts(rows=rows))
    assert "trained with 3 seeds; their test CER runs from 12.0 to 14.0 %" in card
    assert "| 10 % | ctc | semi\\_supervised | 13.0 (3) |" in card and "mean over seeds" in card
    assert "may have been trained with one seed" in recognizer_card(facts(rows=[]))


def test_from_scratch_and_frozen() -> None:
    assert "from scratch, without pre-training" in recognizer_card(facts(params={**ROW, "pretext": "none"}))
    assert "only the decoder learnt" in recognizer_card(facts(params={**ROW, "protocol": "frozen"}))


def test_what_is_missing_is_said_to_be_missing_or_left_out() -> None:
    card = recognizer_card(facts(info=None, metrics={}, rows=[], params={}))
    assert "Error rates were not logged." in card and "could not be read" in card
    assert "by share of labels" not in card and "Licence" not in card
    card = recognizer_card(facts(info=info(licence="", citation="", split_by=None)))
    assert "Licence of the data: not stated" in card and "Cite" not in card and "not recorded" in card


def test_an_encoder_s_card() -> None:
    params = {"pretext": "flip", "seed": "0"}
    card = encoder_card(facts(params=params, metrics={"val_accuracy": 55.2, "chance": 25.0}))
    for told in ("| accuracy | 55.2 |", "| chance | 25.0 |", "pretext task `flip`", "load_encoder(", "--encoder"):
        assert told in card, told
    assert "Not better than guessing" not in card
    card = encoder_card(facts(params=params, metrics={"val_accuracy": 24.0, "chance": 25.0}))
    assert "**Not better than guessing**" in card


@pytest.mark.parametrize("make", [recognizer_card, encoder_card])
@given(
    name=st.text(max_size=300),
    alphabet=st.text(max_size=20000),
    licence=st.text(max_size=3000),
    citation=st.text(max_size=9000),
    cells=st.integers(0, 60),
)
def test_any_card_fits_and_keeps_its_table_whole(
    make: Any, name: str, alphabet: str, licence: str, citation: str, cells: int
) -> None:
    known = info(name=name, alphabet=alphabet, alphabet_unseen=alphabet, licence=licence, citation=citation)
    rows = [{**ROW, "label_fraction": str(cell / 60), "test_cer": 1.0, "pretext": name or "x"} for cell in range(cells)]
    card = make(facts(info=known, corpus=name, key=name, rows=rows))
    assert len(card) <= LIMIT
    tables = [line for line in card.splitlines() if line.startswith("| ") and line.endswith(" |")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in tables if " % |" in line and "CER, %" not in line}
    assert len(columns) <= 1


def test_scripts() -> None:
    assert scripts("aß 1-ª") == ["Latin"]
    assert scripts("aжאش") == ["Arabic", "Cyrillic", "Hebrew", "Latin"]
    assert scripts("") == scripts(" 12.-") == []
