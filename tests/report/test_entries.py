"""Which lines a sheet shows, and what befell their letters."""

from __future__ import annotations

from typing import Any

import editdistance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.errors import UserError
from htr_ray.report.entries import Entry, choose

texts = st.text(alphabet="abe \u0301", max_size=10)


def line(name: str, truth: str, reading: str, confidence: float | None = 0.5) -> dict[str, Any]:
    return {"id": name, "truth": truth, "reading": reading, "confidence": confidence, "edits": 0}


def ids(chosen: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {heading.split()[0]: [found["id"] for found in lines] for heading, lines in chosen.items()}


def spoilt(count: int, length: int = 100) -> list[dict[str, Any]]:
    """Lines 0, 1, 2, ... with as many edits each, shuffled."""
    lines = [line(str(i), "a" * length, "a" * (length - i) + "b" * i) for i in range(count)]
    return lines[1::2] + lines[::2]


@given(texts, texts)
def test_parts_spell_both_texts_in_runs_of_one_kind(truth: str, reading: str) -> None:
    entry = Entry(line("a", truth, reading))
    assert "".join(part.truth for part in entry.parts) == truth
    assert "".join(part.reading for part in entry.parts) == reading
    kinds = [part.kind for part in entry.parts]
    assert all(one != other for one, other in zip(kinds, kinds[1:], strict=False))
    for part in entry.parts:
        assert (part.kind == "same") == (part.truth == part.reading)
        assert (part.kind == "missed") == (part.reading == "")
        assert (part.kind == "added") == (part.truth == "")
    assert entry.edits == editdistance.eval(truth, reading)


def test_worst_best_and_a_sample_of_the_others() -> None:
    chosen = ids(choose(spoilt(30), 9))
    assert chosen["Worst"] == ["29", "28", "27"] and chosen["Best"] == ["0", "1", "2"]
    assert len(set(chosen["A"])) == 3 and set(chosen["A"]) <= {str(i) for i in range(3, 27)}
    assert chosen["A"] == ids(choose(spoilt(30), 9))["A"]


@given(st.integers(0, 25), st.integers(0, 25))
def test_as_many_as_asked_for_and_none_twice(count: int, lines: int) -> None:
    chosen = [name for names in ids(choose(spoilt(count), lines)).values() for name in names]
    assert len(chosen) == len(set(chosen)) == min(count, lines)


def test_few_lines_are_all_shown_worst_first() -> None:
    assert ids(choose(spoilt(5), 5)) == {"All": ["4", "3", "2", "1", "0"]}
    assert choose([]) == {}


def test_the_best_line_is_a_long_one_read_without_error() -> None:
    lines = [line("short", "a", "a"), line("long", "abcdef", "abcdef"), line("wrong", "abcdefghij", "abcdefghi")]
    assert ids(choose(lines, 3)) == {"All": ["wrong", "short", "long"]}


def test_cer_of_lines_without_truth_or_reading() -> None:
    assert Entry(line("a", "", "xyz")).cer == 300 and Entry(line("a", "xyz", "")).cer == 100
    assert Entry(line("a", "", "")).cer == 0


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        (line("a", "abcd", "abxd"), "CER 25 %, 1 edit on 4 characters, confidence 50 %"),
        (line("a", "a", "xy", None), "CER 200 %, 2 edits on 1 character"),
        (line("a", "Lübbow", "Göbschelwitz", 0.99), "10 edits on 6 characters, confidence 99 %; is the truth right?"),
        (line("a", "Lübbow", "Göbschelwitz", 0.4), "CER 167 %, 10 edits on 6 characters, confidence 40 %"),
        (line("a", "Lübbow", "", 0.99), "CER 100 %, 6 edits on 6 characters, confidence 99 %"),
    ],
)
def test_facts(entry: dict[str, Any], facts: str) -> None:
    assert Entry(entry).facts.endswith(facts)


def test_direction_is_that_of_truth_and_reading_together() -> None:
    assert Entry(line("a", "שלום", "")).direction == "rtl"
    assert Entry(line("a", "", "abc")).direction == "ltr"


def test_a_line_without_truth_is_named() -> None:
    with pytest.raises(UserError, match="entry 0 has no text in 'truth'"):
        choose([{"id": "a", "truth": None, "reading": ""}])
