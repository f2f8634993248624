"""Errors line by line, on the lines that trials have in common."""

from __future__ import annotations

import numpy as np

from htr_ray.report.counts import count
from htr_ray.train.metrics import count_errors


def reading(line_id: str, truth: str, read: str) -> dict[str, str]:
    return {"id": line_id, "truth": truth, "reading": read}


LINES = [reading("b", "alte Gasse", "alte Gase"), reading("a", "Markt", "Merkur"), reading("c", "Ufer", "Ufer")]


def test_counts_by_hand() -> None:
    counts = count({"x": LINES}, {"a": "anna", "b": "berta", "c": "anna"})
    assert counts is not None
    assert counts.ids == ["a", "b", "c"]
    assert counts.characters.tolist() == [5, 10, 4]
    assert counts.words.tolist() == [1, 2, 1]
    assert counts.character_edits["x"].tolist() == [3, 1, 0]
    assert counts.word_edits["x"].tolist() == [1, 1, 0]
    assert counts.writers == ["anna", "berta", "anna"]


def test_the_sums_are_the_cer_and_wer_of_the_trainer() -> None:
    counts = count({"x": LINES}, {})
    assert counts is not None
    errors = count_errors((line["truth"], line["reading"]) for line in LINES)
    assert 100 * counts.character_edits["x"].sum() / counts.characters.sum() == errors.cer
    assert 100 * counts.word_edits["x"].sum() / counts.words.sum() == errors.wer


def test_writers_are_all_known_or_not_used() -> None:
    counts = count({"x": LINES}, {"a": "anna", "b": "berta"})
    assert counts is not None and counts.writers is None


def test_only_lines_in_common_are_compared() -> None:
    many = [reading(f"{n:02d}", "abc", "abd") for n in range(20)]
    counts = count({"x": many, "y": many, "z": many[1:]}, {})
    assert counts is not None
    assert len(counts.ids) == 19
    assert counts.left_out_lines == 1
    assert counts.left_out_trials == []
    np.testing.assert_array_equal(counts.character_edits["z"], np.ones(19))


def test_a_trial_that_read_other_lines_is_left_out_rather_than_the_lines() -> None:
    many = [reading(f"{n:02d}", "abc", "abd") for n in range(20)]
    corrected = [{**line, "truth": "abd"} for line in many]
    counts = count({"x": many, "y": many, "odd": many[:5], "corrected": corrected}, {})
    assert counts is not None
    assert len(counts.ids) == 20
    assert counts.left_out_trials == ["odd", "corrected"]
    assert set(counts.character_edits) == {"x", "y"}


def test_no_lines_are_no_counts() -> None:
    assert count({"x": []}, {}) is None
    assert count({}, {}) is None
