"""Character n-grams: probabilities that add up, NLTK's own where it has them, states, both directions."""

from __future__ import annotations

import math
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.lm import NgramCounter, Vocabulary
from nltk.lm.models import InterpolatedLanguageModel
from nltk.lm.smoothing import WittenBell

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.ngrams import END, START, CharacterNgrams

ALPHABET = Alphabet("abcd ")
TEXTS = st.lists(st.text("abcd ", min_size=1, max_size=12), min_size=1, max_size=8)


def state_after(model: CharacterNgrams, text: str) -> Hashable:
    state: Hashable = model.start()
    for character in text:
        state = model.step(state, character)[1]  # type: ignore[arg-type]
    return state


def log_prob(model: CharacterNgrams, text: str) -> float:
    total, state = 0.0, model.start()
    for character in text:
        added, state = model.step(state, character)
        total += added
    return total + model.end(state)


@settings(max_examples=60)
@given(TEXTS, st.integers(1, 5), st.text("abcdx", max_size=8))
def test_probabilities_of_what_follows_add_up_to_one(texts: list[str], order: int, before: str) -> None:
    model = CharacterNgrams.train(texts, ALPHABET, order)
    state = state_after(model, before)
    known = set("".join(texts))
    total = sum(math.exp(model.step(state, c)[0]) for c in known) + math.exp(model.end(state))  # type: ignore[arg-type]
    unknown = math.exp(model.step(state, "y")[0])  # type: ignore[arg-type]
    assert total + unknown == pytest.approx(1.0)
    assert 0 < unknown < 1


@settings(max_examples=40)
@given(TEXTS, st.integers(2, 5), st.text("abcd ", max_size=8))
def test_as_nltk_interpolates(texts: list[str], order: int, text: str) -> None:
    """With the whole context instead of the states, character by character, from the sentences themselves."""

    def sentence(t: str) -> list[str]:
        return [START] * (order - 1) + [*t, END]

    def ngrams(t: str) -> list[tuple[str, ...]]:
        padded = sentence(t)
        return [tuple(padded[i - n + 1 : i + 1]) for i in range(order - 1, len(padded)) for n in range(1, order + 1)]

    class Smoothing(WittenBell):
        def unigram_score(self, word: str) -> float:
            kinds, total = len(self.counts.unigrams), self.counts.unigrams.N()
            uniform = 1 / (kinds + 1)
            return kinds / (kinds + total) * uniform + total / (kinds + total) * self.counts.unigrams.freq(word)

    counter = NgramCounter([ngrams(t) for t in texts])
    reference = InterpolatedLanguageModel(Smoothing, order, vocabulary=Vocabulary(counter.unigrams), counter=counter)
    padded = sentence(text)
    expected = sum(
        math.log(reference.unmasked_score(padded[i], tuple(padded[i - order + 1 : i])))
        for i in range(order - 1, len(padded))
    )
    assert log_prob(CharacterNgrams.train(texts, ALPHABET, order), text) == pytest.approx(expected, rel=1e-9)


def test_knows_what_it_has_seen() -> None:
    model = CharacterNgrams.train(["abba", "abca", "", "ab"], ALPHABET, 3)
    assert log_prob(model, "abba") > log_prob(model, "abda") > log_prob(model, "dcdc")
    assert math.exp(model.step(model.start(), "a")[0]) > 0.6
    # START START a is where all three lines begin: "b" follows in all.
    after_a = model.step(model.start(), "a")[1]
    assert max("abcd", key=lambda c: model.step(after_a, c)[0]) == "b"


def test_by_hand() -> None:
    """Bigrams of "aa": unigrams a a END; Witten-Bell with 2 kinds of 3, a third kind for the unknown."""
    model = CharacterNgrams.train(["aa"], ALPHABET, 2)
    unigram = {"a": 3 / 5 * 2 / 3 + 2 / 5 / 3, END: 3 / 5 / 3 + 2 / 5 / 3}
    first, state = model.step(model.start(), "a")  # START is followed by one kind, once
    assert math.exp(first) == pytest.approx(1 / 2 + 1 / 2 * unigram["a"])
    assert math.exp(model.end(state)) == pytest.approx(2 / 4 * 1 / 2 + 2 / 4 * unigram[END])


def test_what_is_at_hand_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["abcdabdc", "ddcba ab"]
    roomy = log_prob(CharacterNgrams.train(texts, ALPHABET, 5), "abcddcba ab")
    monkeypatch.setattr("htr_ray.model.ngrams.ROWS", 3)
    model = CharacterNgrams.train(texts, ALPHABET, 5)
    assert log_prob(model, "abcddcba ab") == roomy
    assert 0 < len(model._rows) <= 3


def test_states_keep_no_more_than_matters() -> None:
    model = CharacterNgrams.train(["abcabc", "ccb"], ALPHABET, 4)
    assert state_after(model, "aaaaabca") == state_after(model, "ddbca") == ("b", "c", "a")
    assert state_after(model, "abcd") == ()
    assert state_after(model, "dx") == state_after(model, "abcz") == ()


def test_right_to_left_is_learnt_as_it_stands_on_the_line() -> None:
    texts = ["שלום 12 (אב)", "שלום"]
    alphabet = Alphabet("".join(texts), "rtl")
    model = CharacterNgrams.train(texts, alphabet, 3)
    mirror = CharacterNgrams.train([alphabet.visual(text) for text in texts], Alphabet("".join(texts)), 3)
    assert (model.direction, mirror.direction) == ("rtl", "ltr")
    assert model.counts == mirror.counts
    assert log_prob(model, "םולש") > log_prob(model, "שלום")
    assert alphabet.visual(alphabet.visual(texts[0])) == texts[0]


@pytest.mark.parametrize(("texts", "order", "message"), [([], 3, "no text"), ([""], 3, "no text"), (["a"], 0, "order")])
def test_nothing_to_learn(texts: list[str], order: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CharacterNgrams.train(texts, ALPHABET, order)


def test_text_that_looks_like_the_marks_of_the_edges() -> None:
    model = CharacterNgrams.train(["<s>a</s>"], Alphabet("<s>a/"), 4)
    assert log_prob(model, "<s>a</s>") > log_prob(model, "a")
