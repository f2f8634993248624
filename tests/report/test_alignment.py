"""Alignment: the edit script is minimal and complete, letters stay whole, mistakes are counted."""

from __future__ import annotations

import itertools

import editdistance
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.errors import UserError
from htr_ray.report.alignment import Confusion, align, confusions, letters, visible
from htr_ray.train.metrics import count_errors

# Few letters, so that texts have much in common; marks, so that letters have parts.
texts = st.text(alphabet="abe \u0301\u0308שׁ\u200d", max_size=12) | st.text(max_size=12)


def unequal(pairs: list[tuple[str, str]]) -> int:
    return sum(expected != read for expected, read in pairs)


@given(texts, texts)
def test_an_edit_script_is_complete_and_minimal(truth: str, reading: str) -> None:
    pairs = align(truth, reading)
    assert "".join(expected for expected, _ in pairs) == truth
    assert "".join(read for _, read in pairs) == reading
    assert all(len(expected) <= 1 and len(read) <= 1 and (expected or read) for expected, read in pairs)
    assert unequal(pairs) == editdistance.eval(truth, reading)


@given(texts, texts)
def test_letters_spell_both_texts_and_split_no_grapheme(truth: str, reading: str) -> None:
    pairs = align(truth, reading)
    joined = letters(pairs)
    assert "".join(expected for expected, _ in joined) == truth
    assert "".join(read for _, read in joined) == reading
    assert len(joined) <= len(pairs) and unequal(joined) <= unequal(pairs)
    assert (unequal(joined) == 0) == (truth == reading)
    for text, side in ((truth, 0), (reading, 1)):
        cuts = set(itertools.accumulate(len(pair[side]) for pair in joined))
        assert cuts <= {0} | set(itertools.accumulate(len(letter) for letter in regex.findall(r"\X", text)))


def test_marks_stay_with_their_letter() -> None:
    assert letters(align("re\u0301sume", "resume")) == [("r", "r"), ("e\u0301", "e"), *((c, c) for c in "sume")]
    assert letters(align("a\u0308b", "a\u0301b")) == [("a\u0308", "a\u0301"), ("b", "b")]
    assert letters(align("ab", "a\u0301b")) == [("a", "a\u0301"), ("b", "b")]


@given(st.lists(st.tuples(texts, texts), max_size=6))
def test_every_wrong_letter_is_counted_once(pairs: list[tuple[str, str]]) -> None:
    readings = [{"id": str(i), "truth": truth, "reading": read} for i, (truth, read) in enumerate(pairs)]
    found = confusions(readings, top=None)
    assert sum(confusion.count for confusion in found) == sum(unequal(letters(align(*pair))) for pair in pairs)
    assert [c.count for c in found] == sorted((c.count for c in found), reverse=True)
    assert found[:2] == confusions(readings, top=2)


def test_mistakes_with_counts_and_examples() -> None:
    readings = [
        {"id": "a", "truth": "nun", "reading": "mum"},
        {"id": "b", "truth": "an einem", "reading": "am einem"},
        {"id": "c", "truth": "zu ihm", "reading": "zuihm"},
        {"id": "d", "truth": "Haus", "reading": "Hauss"},
    ]
    assert confusions(readings) == [
        Confusion("n", "m", 3, ("a", "b")),
        Confusion("", "s", 1, ("d",)),
        Confusion(" ", "", 1, ("c",)),
    ]
    # Where all is plain characters, wrong letters are the edits of the CER.
    count = count_errors((r["truth"], r["reading"]) for r in readings)
    assert sum(c.count for c in confusions(readings)) == count.character_edits


def test_examples_are_few_and_different() -> None:
    readings = [{"id": f"l{i // 2}", "truth": "a", "reading": "b"} for i in range(40)]
    (only,) = confusions(readings)
    assert only.count == 40 and only.examples == ("l0", "l1", "l2", "l3", "l4")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "∅"),
        (" ", "␣"),
        ("a", "a"),
        ("\t", "U+0009"),
        ("\u00a0", "U+00A0"),
        ("\u00ad", "U+00AD"),
        ("\u0301", "◌\u0301"),
        ("e\u0301", "e\u0301"),
        ("ש", "ש"),
    ],
)
def test_everything_is_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_reading_without_truth_is_named() -> None:
    good = {"id": "a", "truth": "a", "reading": ""}
    with pytest.raises(UserError, match="entry 1 has no text in 'truth'.*run the grid again"):
        confusions([good, {"id": "b", "reading": "x"}])
