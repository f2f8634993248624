"""Right-to-left text: every line comes back, and looks as Unicode says it does."""

from __future__ import annotations

import pytest
from bidi import get_display
from hypothesis import example, given
from hypothesis import strategies as st

from htr_ray.corpus.direction import MIRRORED, direction_of, direction_of_counts, order, reorder

HEBREW, ARABIC = "אבגדהוזחטיכםל", "ابتثجحخدسش"
POINTS = "\u05b8\u05bc\u05c1\u064e\u0651\u0301"
# Letters of all directions, both kinds of digits, separators, signs, units, brackets, marks, invisible controls.
MIXED = HEBREW + ARABIC + POINTS + "abcZ0159٣٩۴ .,:/-+%$()[]«»<>\n'\"־׳\u200c\u200e\u200f\u202b\u2067"


@given(st.text(MIXED, max_size=40))
@example("0Z%\u200f")
@example("־%<0<Z")
@example("א abc (def)) (ב")
def test_every_line_comes_back(text: str) -> None:
    visual = reorder(text)
    assert reorder(visual) == text
    assert len(visual) == len(text)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert reorder(reorder(text)) == text


@given(st.text(MIXED, max_size=40), st.sets(st.sampled_from("([{<«")))
def test_comes_back_with_some_brackets_only(text: str, lefts: set[str]) -> None:
    """As in an alphabet that lacks the partners of the others."""
    some = {c: m for c, m in MIRRORED.items() if c in lefts or m in lefts}
    assert reorder(reorder(text, some), some) == text


@given(st.one_of(st.text(), st.text(MIXED, max_size=40)))
def test_order_says_where_each_character_comes_from(text: str) -> None:
    positions = order(text)
    assert sorted(positions) == list(range(len(text)))
    for i, character in zip(positions, reorder(text), strict=True):
        assert character in (text[i], MIRRORED.get(text[i]))


def test_order_by_hand() -> None:
    assert order("א 12 ב") == [5, 4, 2, 3, 1, 0]
    assert order("שָׁל") == [3, 0, 1, 2]
    assert order("aab") == [0, 1, 2]


@pytest.mark.parametrize(
    ("logical", "visual"),
    [
        ("שלום", "םולש"),
        ("שָׁלוֹם", "םוֹלשָׁ"),  # points stay behind their letter
        ("بَيْت", "تيْبَ"),
        ("א 1914 ב", "ב 1914 א"),
        ("א 12 34 ב", "ב 34 12 א"),  # two numbers: the first is further to the right
        ("א 1914-18 ב", "ב 1914-18 א"),
        ("א 1,234.5 ב", "ב 1,234.5 א"),
        ("א 50% ב", "ב 50% א"),
        ("١٩١٤-١٨ ا", "ا ١٨-١٩١٤"),  # a hyphen parts Arabic numbers
        ("א Jean Paul ב", "ב Jean Paul א"),
        ("א p. 12, b ב", "ב p. 12, b א"),
        ("(א) ב", "ב (א)"),  # what opens stands at the right
        ("א (Jean) ב", "ב (Jean) א"),
        ("א Jean (1914) ב", "ב Jean (1914) א"),
        ("(א p. 12) ב", "ב (p. 12 א)"),
        ("א Jean.", ".Jean א"),
        ("Jean Paul.", "Jean Paul."),  # a line without a right-to-left letter
        ("12.", ".12"),
        ("\u0301א", "\u0301א"),  # a mark without a letter
        ("", ""),
    ],
)
def test_by_hand(logical: str, visual: str) -> None:
    assert reorder(logical) == visual
    assert reorder(visual) == logical


def _lines(letters: str, inserts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Right-to-left words with numbers and Latin phrases between them."""
    words = st.text(letters, min_size=1, max_size=5)
    between = st.sampled_from([" ", ", ", ". ", " - ", ": ", "; "])
    bracketed = st.one_of(inserts, inserts.map("({})".format), inserts.map('"{}"'.format))
    part = st.tuples(between, bracketed, between, words).map("".join)
    return st.tuples(words, st.lists(st.one_of(part, st.tuples(between, words).map("".join)), max_size=4)).map(
        lambda line: line[0] + "".join(line[1])
    )


NUMBERS = st.from_regex(r"[0-9]{1,4}([.,:/][0-9]{1,3})?%?", fullmatch=True)
SIGNED = st.from_regex(r"[0-9]{1,4}[-+][0-9]{1,3}", fullmatch=True)
LATIN = st.from_regex(r"[A-Za-zé]{1,5}([ .,]{1,2}([a-z]{1,4}|[0-9]{1,3})){0,2}", fullmatch=True)
ARABIC_NUMBERS = st.from_regex(r"[٠-٩]{1,4}([.,:/-][٠-٩]{1,3})?", fullmatch=True)


@given(st.one_of(_lines(HEBREW, st.one_of(NUMBERS, SIGNED, LATIN)), _lines(ARABIC, st.one_of(NUMBERS, ARABIC_NUMBERS))))
def test_as_the_bidirectional_algorithm(line: str) -> None:
    """The usual kinds of lines look as python-bidi, an implementation of UAX #9, orders them; it mirrors nothing."""
    assert reorder(line, {}) == get_display(line, base_dir="R")


def test_direction_of() -> None:
    assert direction_of([]) == direction_of(["12 (3)"]) == "ltr"
    assert direction_of(["שלום Jean", "שלום"]) == "rtl"
    assert direction_of(["في p."]) == "rtl" and direction_of(["في page"]) == "ltr"
    assert direction_of(["naïve", "ש"]) == "ltr"
    assert direction_of_counts({"ש": 2, "a": 1, "1": 99, "\u0301": 99}) == "rtl"
