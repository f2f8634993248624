"""Word lists: what costs, what is free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.wordlist import WordList

ALPHABET = Alphabet("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüß .,-'’0123456789")


def cost(model: WordList, text: str) -> float:
    total, state = 0.0, model.start()
    for character in text:
        added, state = model.step(state, character)  # type: ignore[assignment]
        total -= added
    return total - model.end(state)


@pytest.fixture(scope="module")
def model() -> WordList:
    return WordList.train(["Straße am Zoo", "der Platz, l'eau 1914"], ALPHABET, penalty=3.0)


@pytest.mark.parametrize(
    "text",
    ["", "Straße", "am Zoo", "Am Zoo.", "AM ZOO", "der-Platz", "l'eau", "L'eau", "12. am 3", "...", "am-", "am1914am"],
)
def test_words_of_the_list_are_free(model: WordList, text: str) -> None:
    assert cost(model, text) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [("Strasse", 1), ("Stra", 1), ("Straßen", 1), ("am Zo", 1), ("Zo am", 1), ("x", 1), ("xyz am qqq", 2),
     ("straße", 1), ("zOO", 1), ("1914x", 1), ("ama", 1), ("Platzx. Stra", 2)],
)  # fmt: skip
def test_leaving_the_list_costs_once_a_word(model: WordList, text: str, words: int) -> None:
    assert cost(model, text) == pytest.approx(3.0 * words)


@given(st.lists(st.text("abcß'", min_size=1, max_size=5), min_size=1, max_size=6), st.text("abcß' .A", max_size=20))
def test_as_a_set_of_words_would_say(words: list[str], text: str) -> None:
    model = WordList.train(words, ALPHABET, penalty=1.0)
    forms = {form for word in words for form in (word, word[0].upper() + word[1:], word.upper())}
    expected = sum(word not in forms for word in text.replace(".", " ").split())
    assert cost(model, text) == expected


def test_right_to_left_words_are_met_from_their_end() -> None:
    alphabet = Alphabet("שלוםאב 12", "rtl")
    model = WordList.train(["שלום אב"], alphabet, penalty=2.0)
    assert model.direction == "rtl"
    assert cost(model, alphabet.visual("אב שלום 12")) == 0
    assert cost(model, "שלום") == 2.0


def test_nothing_to_list() -> None:
    with pytest.raises(UserError, match="no word"):
        WordList.train(["12 - 3", ""], ALPHABET)
