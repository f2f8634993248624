"""Characters as numbers."""

from __future__ import annotations

import json
import pickle
import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.direction import MIRRORED, reorder
from htr_ray.errors import UserError


@given(st.text())
def test_round_trip(text: str) -> None:
    alphabet = Alphabet(text)
    numbers = alphabet.encode(text)
    assert alphabet.decode(numbers) == text
    assert all(1 <= n < len(alphabet) for n in numbers)
    assert len(alphabet) == len(set(text)) + 1
    assert alphabet.covers(text) == set()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json(text: str) -> None:
    alphabet = Alphabet(text)
    assert Alphabet.from_json(json.loads(json.dumps(alphabet.to_json()))) == alphabet


def test_code_point_order_and_blank() -> None:
    alphabet = Alphabet("baäb")
    assert alphabet.to_json() == ["a", "b", "ä"]
    assert alphabet.encode("äab") == [3, 1, 2]
    assert alphabet.decode([0, 1, 0, 0, 1, 3]) == "aaä"
    assert alphabet == Alphabet(["ä", "a", "b"]) != Alphabet("ab")
    assert "a" in alphabet and "c" not in alphabet


def test_unknown_character() -> None:
    alphabet = Alphabet("ab")
    assert alphabet.covers("abſc") == {"ſ", "c"}
    with pytest.raises(UserError, match=r"U\+017F.*'abſ'"):
        alphabet.encode("abſ")


@given(st.text(), st.sampled_from(["ltr", "rtl"]))
def test_order_of_what_goes_with_the_characters(text: str, direction: Literal["ltr", "rtl"]) -> None:
    alphabet = Alphabet(text + "()", direction)
    numbers = [number for n in alphabet.encode(text) for number in (0, n)]
    positions = alphabet.order(numbers)
    assert sorted(positions) == [i for i, number in enumerate(numbers) if number]
    for i, character in zip(positions, alphabet.decode(numbers), strict=True):
        alone = alphabet.characters[numbers[i] - 1]
        assert character in (alone, MIRRORED.get(alone))


def test_order_by_hand() -> None:
    assert Alphabet("ab").order([0, 2, 0, 1]) == [1, 3]
    alphabet = Alphabet("12אב", "rtl")
    assert alphabet.decode([1, 2, 0, 4, 3]) == "אב12"
    assert alphabet.order([1, 2, 0, 4, 3]) == [4, 3, 0, 1]


def test_errors() -> None:
    with pytest.raises(ValueError, match="3 is no class"):
        Alphabet("ab").decode([3])
    with pytest.raises(ValueError, match="-1 is no class"):
        Alphabet("ab").decode([-1])
    with pytest.raises(UserError, match="'ab' is not a single character"):
        Alphabet(["ab"])
    for changed in (["b", "a"], ["a", "a"]):
        with pytest.raises(UserError, match="code point order"):
            Alphabet.from_json(changed)


# --- right to left ----------------------------------------------------------------------------------------

RTL_TEXTS = ("שָׁלוֹם (עולם)", "בשנת 1914-18, ראה Jean (p. 12)", "في سنة ١٩١٤ م.", "Jean Paul")


@given(st.text())
def test_round_trip_right_to_left(text: str) -> None:
    alphabet = Alphabet(text, "rtl")
    assert alphabet.decode(alphabet.encode(text)) == text


@pytest.mark.parametrize("text", RTL_TEXTS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_right_to_left_numbers_are_those_of_the_visual_order(text: str, form: Literal["NFC", "NFD"]) -> None:
    text = unicodedata.normalize(form, text)
    plain, alphabet = Alphabet(text), Alphabet(text, "rtl")
    assert alphabet.to_json() == plain.to_json() and len(alphabet) == len(plain)
    assert plain.decode(alphabet.encode(text)) == reorder(text)
    assert alphabet.decode(alphabet.encode(text)) == text


def test_brackets_turn_only_into_classes() -> None:
    alphabet = Alphabet("אב)", "rtl")
    assert alphabet.decode(alphabet.encode("אב)")) == "אב)"
    assert Alphabet("אב()", "rtl").encode("(א)") == [1, 3, 2]


def test_direction_is_part_of_an_alphabet() -> None:
    left, right = Alphabet("אב"), Alphabet("אב", "rtl")
    assert (left.direction, right.direction) == ("ltr", "rtl")
    assert left != right == Alphabet.from_json(right.to_json(), "rtl")
    assert len({left, right, Alphabet("אב", "rtl")}) == 2
    assert pickle.loads(pickle.dumps(right)).encode("אב") == [2, 1] == right.encode("אב")
    with pytest.raises(UserError, match="'אבx'"):  # the text as it was written
        right.encode("אבx")


@given(st.text(st.sampled_from("eéẽaäñ\u0303\u0301\u0308 ꝑ"), max_size=20))
def test_any_normal_form(text: str) -> None:
    """A mark is a character: what is decomposed stays so."""
    for form in ("NFC", "NFD"):
        normal = unicodedata.normalize(form, text)
        alphabet = Alphabet(normal)
        assert alphabet.decode(alphabet.encode(normal)) == normal
        assert len(alphabet.encode(normal)) == len(normal)
