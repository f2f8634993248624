"""The embedded sample corpus: the same every time, split by writer, written in letters that it draws."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.sample import write_sample
from htr_ray.corpus.sample_draw import HEIGHT, draw_line
from htr_ray.corpus.sample_glyphs import ASCENT, DESCENT, X_HEIGHT, accent, glyphs
from htr_ray.corpus.sample_hand import STYLES, make_hand
from htr_ray.corpus.sample_text import (
    ALPHABET,
    FIRST_NAMES,
    LAST_NAMES,
    LONGEST,
    MONTHS,
    PHRASES,
    PLACES,
    PREPOSITIONS,
    SHORTEST,
    draw_texts,
)
from htr_ray.corpus.schema import SPLITS
from htr_ray.errors import UserError


def read(uri: str) -> dict[str, list[dict]]:
    corpus = Corpus.open(uri)
    columns = ["id", "image", "width", "height", "text", "writer", "page"]
    found: dict[str, list[dict]] = {}
    for split in SPLITS:
        places = corpus.index(split, columns=("id",))
        groups = sorted(set(zip(places["file"].to_pylist(), places["row_group"].to_pylist(), strict=True)))
        files = corpus.files(split)
        tables = [corpus.read_row_group(files[file], group, columns) for file, group in groups]
        found[split] = [row for table in tables for row in table.to_pylist()]
    return found


def digest(uri: str) -> str:
    lines = sorted((row for rows in read(uri).values() for row in rows), key=lambda row: row["id"])
    content = hashlib.blake2b()
    for row in lines:
        content.update(f"{row['id']} {row['text']} {row['width']} ".encode())
        content.update(decode_grey(row["image"]).tobytes())
    return content.hexdigest()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_sample(str(tmp_path_factory.mktemp("sample")), lines=120, writers=10, seed=7)


def test_lines_are_whole_and_dealt_evenly(small: str) -> None:
    rows = [row for split in read(small).values() for row in split]
    assert len(rows) == len({row["id"] for row in rows}) == 120
    per_writer = Counter(row["writer"] for row in rows)
    assert set(per_writer.values()) == {12} and len(per_writer) == 10
    for row in rows:
        image = decode_grey(row["image"])
        assert image.shape == (row["height"], row["width"]) == (HEIGHT, row["width"])
        assert SHORTEST <= len(row["text"]) <= LONGEST
        assert row["text"] == unicodedata.normalize("NFC", row["text"])
        assert row["page"].startswith(row["writer"])


def test_no_writer_is_on_two_sides(small: str) -> None:
    writers = [{row["writer"] for row in rows} for rows in read(small).values()]
    assert all(writers)
    assert sum(map(len, writers)) == len(set.union(*writers))
    assert Corpus.open(small).info.split_by == "writer"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_train_has_every_character_of_val_and_test(tmp_path: Path, seed: int) -> None:
    # Few lines: many characters are missing in train.
    rows = read(write_sample(str(tmp_path), lines=24, writers=3, seed=seed))
    train = set("".join(row["text"] for row in rows["train"]))
    assert train < ALPHABET  # else this would prove nothing
    for split in ("val", "test"):
        assert train.issuperset("".join(row["text"] for row in rows[split]))


def test_same_parameters_same_pixels_other_seed_other_lines(small: str, tmp_path: Path) -> None:
    again = write_sample(str(tmp_path / "again"), lines=120, writers=10, seed=7)
    other = write_sample(str(tmp_path / "other"), lines=120, writers=10, seed=8)
    assert digest(again) == digest(small) != digest(other)


def test_is_made_once_and_again_when_parameters_change(tmp_path: Path) -> None:
    uri = write_sample(str(tmp_path), lines=24, writers=3)
    info = Path(uri.removeprefix("file://")) / "corpus.json"
    before = info.stat().st_mtime_ns
    assert write_sample(str(tmp_path), lines=24, writers=3) == uri
    assert info.stat().st_mtime_ns == before
    write_sample(str(tmp_path), lines=32, writers=3)
    assert sum(counts.lines for counts in Corpus.open(uri).info.counts.values()) == 32


def test_a_damaged_sample_is_made_anew(tmp_path: Path) -> None:
    uri = write_sample(str(tmp_path), lines=24, writers=3)
    (Path(uri.removeprefix("file://")) / "corpus.json").write_text('{"schema_version": 1}')
    write_sample(str(tmp_path), lines=24, writers=3)
    assert len(read(uri)["train"]) > 0


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"writers": 2}, "writers = 2"),
        ({"lines": 30, "writers": 4}, "lines = 30"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_impossible_parameters_are_named(tmp_path: Path, wrong: dict[str, int], names: str) -> None:
    with pytest.raises(UserError, match=names):
        write_sample(str(tmp_path), **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "sample").exists()


def test_vocabulary_keeps_to_the_alphabet() -> None:
    words = [*FIRST_NAMES, *LAST_NAMES, *PLACES, *PREPOSITIONS]
    words += [month for months in MONTHS.values() for month in months]
    words += [word for row in PHRASES for column in row for word in column]
    assert {word for word in words if not ALPHABET.issuperset(word)} == set()
    assert len(set(words)) > 300


def test_a_default_sample_uses_the_whole_alphabet_often_enough_to_learn() -> None:
    text = "".join(draw_texts(1200, np.random.default_rng(0)))
    assert {character for character in ALPHABET if text.count(character) < 15} == set()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_texts_are_words_of_allowed_length(seed: int) -> None:
    for text in draw_texts(10, np.random.default_rng(seed)):
        assert SHORTEST <= len(text) <= LONGEST
        assert ALPHABET.issuperset(text)
        assert re.fullmatch(r"\S+( \S+)*", text)


def test_texts_of_too_few_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="xyz"):
        draw_texts(1, np.random.default_rng(0), known=set("xyz"))


def test_every_letter_is_drawn_in_both_faces() -> None:
    for face in ("cursive", "print"):
        letters = glyphs(face)  # type: ignore[arg-type]
        for character in ALPHABET - {" "}:
            base, marks = accent(character)
            glyph = letters[base]
            low, high = glyph.points[:, 1].max(), glyph.points[:, 1].min()
            assert -ASCENT - 3 < high < low < DESCENT + 3, (face, character)
            assert (character == base) == (not marks)
            if character in "acemnorsuvwx":  # these fill the height of small letters
                assert high == pytest.approx(-X_HEIGHT, abs=1.5), (face, character)
                assert low == pytest.approx(0, abs=1.5), (face, character)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.integers(0, 1000), st.sampled_from(["Köln 1867", "jung", "le 3 février"]))
@example(405, 321, "jung")  # the broadest pen, low down
def test_ink_is_dark_on_light_paper_and_inside(number: int, seed: int, text: str) -> None:
    hand = make_hand(number, 0)
    image = draw_line(text, hand, np.random.default_rng(seed))
    assert image.dtype == np.uint8 and image.shape[0] == HEIGHT and 40 < image.shape[1] < 700
    paper = float(np.median(image))
    dark = image < paper - 60
    assert paper > 175
    assert 0.015 < dark.mean() < 0.35
    # Nothing is cut off: a broad pen's soft edge may touch the border, its stroke not (half ink is a stroke's edge).
    stroke = image < (paper + hand.ink) / 2
    assert not stroke[[0, -1]].any() and not stroke[:, [0, -1]].any()
    assert np.array_equal(image, draw_line(text, hand, np.random.default_rng(seed)))


def test_writers_differ_and_a_writer_resembles_himself() -> None:
    """Lines of one hand agree in tone and width more than lines of different hands."""
    text, hands = "der alte Garten", [make_hand(number, 0) for number in range(24)]
    features = np.array(
        [
            [
                [image.shape[1], np.median(image), image.min(), (image < np.median(image) - 50).mean()]
                for image in (draw_line(text, hand, np.random.default_rng([n, turn])) for turn in range(4))
            ]
            for n, hand in enumerate(hands)
        ]
    )
    within, between = features.std(axis=1).mean(axis=0), features.mean(axis=1).std(axis=0)
    assert (between > 2 * within).all(), (between, within)
    assert len({(hand.slant, hand.width, hand.pen, hand.paper) for hand in hands}) == 24


def test_small_corpora_have_hands_of_all_styles() -> None:
    hands = [make_hand(number, 0) for number in range(len(STYLES))]
    assert {(hand.small, hand.capitals) for hand in hands} == {
        ("cursive", "cursive"),
        ("cursive", "print"),
        ("print", "print"),
    }


def test_joined_hands_join_and_printed_ones_do_not() -> None:
    """Counts pieces of ink: 'nun' is one stroke in a school hand and at least three letters in print."""

    def pieces(number: int) -> float:
        images = (draw_line("nun mein", make_hand(number, 0), np.random.default_rng(n)) for n in range(8))
        inks = ((image < np.median(image) - 45).astype(np.uint8) for image in images)
        return float(np.mean([cv2.connectedComponents(ink)[0] - 1 for ink in inks]))

    assert pieces(STYLES.index("cursive")) < 6  # two words, a dot, a break now and then
    assert pieces(STYLES.index("print")) > 6  # seven letters and a dot, some of which touch
