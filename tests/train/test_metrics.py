"""Error rates."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.train.metrics import ErrorCount, count_errors, grapheme_error_rate

words = st.text("abc ", max_size=15)


@pytest.mark.parametrize(
    ("truth", "reading", "cer", "wer"),
    [
        ("abcd", "abcd", 0.0, 0.0),
        ("abcd", "abxd", 25.0, 100.0),  # one substitution
        ("abcd", "abd", 25.0, 100.0),  # one deletion
        ("abcd", "abccd", 25.0, 100.0),  # one insertion
        ("abcd", "", 100.0, 100.0),
        ("ab", "wxyz", 200.0, 100.0),  # more errors than characters
        ("the old house", "the house", 100 * 4 / 13, 100 / 3),
        ("the old house", "theold house", 100 / 13, 200 / 3),  # a lost space spoils two words
        ("the  old", "the old", 12.5, 0.0),  # words are parted by any white space
        ("naïve", "naive", 20.0, 100.0),
    ],
)
def test_hand_counted(truth: str, reading: str, cer: float, wer: float) -> None:
    count = count_errors([(truth, reading)])
    assert count.cer == pytest.approx(cer) and count.wer == pytest.approx(wer)


def test_micro_average() -> None:
    """Errors over characters of all lines: a short line with an error does not weigh as much as a long one."""
    count = count_errors([("a", "b"), ("abcdefghi", "abcdefghi")])
    assert count.cer == pytest.approx(10.0)  # the mean of the lines' rates would be 50
    assert count.wer == pytest.approx(50.0)
    assert count.lines == 2


def test_nothing_to_read() -> None:
    assert count_errors([]).cer == 0.0 and count_errors([("", "")]).wer == 0.0
    invented = count_errors([("", "ab"), ("abcd", "abcd")])
    assert invented.cer == pytest.approx(50.0), "characters read where there are none count"


@given(words)
def test_equal_is_zero(text: str) -> None:
    count = count_errors([(text, text)])
    assert count.cer == count.wer == 0.0


@given(words, words)
def test_edits_are_symmetric_and_bounded(a: str, b: str) -> None:
    there, back = ErrorCount(), ErrorCount()
    edits = there.add(a, b)
    assert edits == back.add(b, a) == there.character_edits
    assert there.word_edits == back.word_edits
    assert abs(len(a) - len(b)) <= edits <= max(len(a), len(b))
    assert (edits == 0) == (a == b)


@given(st.lists(st.tuples(words, words), max_size=6), st.integers(0, 6))
def test_parts_add_up(pairs: list[tuple[str, str]], cut: int) -> None:
    """Workers count their own lines; sums of their counts give the same rates."""
    parts = [count_errors(pairs[:cut]).as_list(), count_errors(pairs[cut:]).as_list()]
    total = ErrorCount(*[sum(column) for column in zip(*parts, strict=True)])
    assert total == count_errors(pairs)


@pytest.mark.parametrize(
    ("truth", "reading", "gcer"),
    [
        ("abcd", "abxd", 25.0),
        ("caffè", "caffe", 20.0),  # a wrong accent is one wrong letter
        ("caffe\u0300", "caffè", 0.0),  # in any normal form
        ("q\u0303d", "qd", 50.0),  # also where no composed character exists
        ("q\u0303\u0323d", "q\u0323\u0303d", 0.0),  # the order of marks above and below means nothing
        ("שָׁם", "שם", 50.0),
        ("", "", 0.0),
        ("ab", "", 100.0),
    ],
)
def test_graphemes_by_hand(truth: str, reading: str, gcer: float) -> None:
    assert grapheme_error_rate([(truth, reading)]) == pytest.approx(gcer)


def test_graphemes_are_averaged_over_letters() -> None:
    pairs = [("a", "b"), ("abcdefghi", "abcdefghi")]
    assert grapheme_error_rate(pairs) == pytest.approx(10.0) and grapheme_error_rate([]) == 0.0


accented = st.text("aáä bq\u0303\u0301\u0323", max_size=12)


@given(accented, accented)
def test_graphemes_do_not_depend_on_the_normal_form(truth: str, reading: str) -> None:
    composed, decomposed = (
        [(unicodedata.normalize(form, truth), unicodedata.normalize(form, reading))] for form in ("NFC", "NFD")
    )
    assert grapheme_error_rate(composed) == pytest.approx(grapheme_error_rate(decomposed))


@given(words, words)
def test_without_marks_graphemes_are_characters(truth: str, reading: str) -> None:
    assert grapheme_error_rate([(truth, reading)]) == pytest.approx(count_errors([(truth, reading)]).cer)
