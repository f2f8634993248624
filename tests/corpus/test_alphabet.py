"""Characters as numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.alphabet import Alphabet
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
