"""The numbers of a report, against hand-computed ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grid_on_disk import write_grid

from htr_ray.report.analysis import analyse
from htr_ray.report.cells import NONE, Place
from htr_ray.report.results import GridResults, TrialResult
from htr_ray.report.statistics import bootstrap_sums, interval
from htr_ray.sweep.results import load_grid

PLACE = Place("wills", "semi_supervised", "ctc", 1.0)


def trial(pretext: str, seed: int, readings: list[str], truths: list[str], **changes: Any) -> TrialResult:
    from htr_ray.train.metrics import count_errors

    lines = [
        {"id": f"l{n:03d}", "truth": truth, "reading": read}
        for n, (truth, read) in enumerate(zip(truths, readings, strict=True))
    ]
    errors = count_errors((line["truth"], line["reading"]) for line in lines)
    fraction = changes.pop("fraction", 1.0)
    key = f"finetune/wills/semi_supervised/ctc/{fraction:g}/{pretext}/seed{seed}"
    result = {"test_cer": errors.cer, "test_wer": errors.wer, "val_cer": errors.cer, "lines": round(1000 * fraction)}
    about = (key, "finetune", "wills", pretext, seed, "ctc", fraction, "semi_supervised", "done", None)
    return replace(TrialResult(*about, result | {"minutes": 30.0, "parameters": 10, "gflops": 1.0}, lines), **changes)


def grid(*trials: TrialResult) -> GridResults:
    return GridResults("g", {"pretexts": ["flip", NONE]}, list(trials), {"wills": {}})


TRUTHS = ["abcdefghij"] * 40
GOOD = ["abcdefghij"] * 30 + ["abcdefghiX"] * 10  # 10 of 400 letters
POOR = ["abcdefghXX"] * 40  # 80 of 400


def test_the_mean_over_seeds_and_the_comparison() -> None:
    made = analyse(
        grid(
            trial(NONE, 0, POOR, TRUTHS),
            trial(NONE, 1, POOR, TRUTHS),
            trial("flip", 0, GOOD, TRUTHS),
            trial("flip", 1, POOR, TRUTHS),
        ),
        {},
    )
    assert made.pretexts == [NONE, "flip"]
    scratch, flip = made.cells[PLACE, NONE], made.cells[PLACE, "flip"]
    assert scratch.cer == pytest.approx(20.0)
    assert flip.cer == pytest.approx((2.5 + 20.0) / 2)
    assert flip.best and not scratch.best
    assert scratch.cer_interval is not None and flip.cer_interval is not None
    assert (scratch.cer_interval.low, scratch.cer_interval.high) == pytest.approx((20.0, 20.0)), "all lines are alike"
    # Drawing seeds: both are the good one, both the poor one, or one of each.
    assert flip.cer_interval.low < 5.0 and flip.cer_interval.high == pytest.approx(20.0)
    (comparison,) = made.comparisons
    assert comparison.difference == pytest.approx(flip.cer - 20.0)
    assert (comparison.lines, comparison.seeds, comparison.seeds_agreeing) == (40, 2, 1)
    assert comparison.verdict == "better"


def test_only_seeds_that_both_have_are_compared() -> None:
    made = analyse(
        grid(trial(NONE, 0, POOR, TRUTHS), trial("flip", 0, POOR, TRUTHS), trial("flip", 1, GOOD, TRUTHS)), {}
    )
    (comparison,) = made.comparisons
    assert comparison.seeds == 1
    assert comparison.difference == 0.0
    assert comparison.verdict == "no clear difference"
    assert made.cells[PLACE, "flip"].cer == pytest.approx((2.5 + 20.0) / 2), "the table's mean has all"


def test_nothing_is_compared_without_a_common_seed() -> None:
    made = analyse(grid(trial(NONE, 0, POOR, TRUTHS), trial("flip", 1, GOOD, TRUTHS)), {})
    assert made.comparisons == []


def test_every_test_is_corrected_for() -> None:
    close = ["abcdefghij"] * 34 + ["abcdefghXX"] * 6
    trials = [trial(NONE, 0, ["abcdefghij"] * 40, TRUTHS), trial("flip", 0, close, TRUTHS)]
    alone = analyse(grid(*trials), {}).comparisons[0]
    assert alone.p == alone.p_corrected == pytest.approx(2 / 2**6)
    assert alone.verdict == "worse"
    more = [trial(p, 0, close, TRUTHS) for p in ("sorting", "jigsaw")]
    among = analyse(grid(*trials, *more), {}).comparisons
    assert [c.p_corrected for c in among] == pytest.approx([3 * 2 / 2**6] * 3)
    assert {c.verdict for c in among} == {"no clear difference"}


def test_writers_that_agree_are_counted() -> None:
    writers = {f"l{n:03d}": "one" if n < 30 else "two" for n in range(40)}
    good = ["abcdefghij"] * 30 + ["abcdeXXXXX"] * 10
    made = analyse(grid(trial(NONE, 0, POOR, TRUTHS), trial("flip", 0, good, TRUTHS)), {"wills": writers})
    (comparison,) = made.comparisons
    assert (comparison.writers, comparison.writers_agreeing) == (2, 1)
    by_writer = made.cells[PLACE, "flip"].cer_by_writer
    assert by_writer is not None and (by_writer.low, by_writer.high) == pytest.approx((0.0, 50.0))
    assert made.test_writers == {"wills": 2}


def test_labels_saved_gain_and_cost() -> None:
    ten = ["abcdeXXXXX"] * 40  # 50 %
    half = ["abcdefghXX"] * 20 + ["abcdeXXXXX"] * 20  # 35 %: half of the way from 50 to 20
    pretraining = TrialResult(
        *("pretrain/wills/flip/seed0", "pretrain", "wills", "flip", 0, None, None, None, "done", None),
        result={"val_accuracy": 80.0, "chance": 25.0, "minutes": 60.0},
        readings=None,
        gpus=1.0,
    )
    made = analyse(
        grid(
            pretraining,
            trial(NONE, 0, ten, TRUTHS, fraction=0.1, gpus=0.5),
            trial(NONE, 0, POOR, TRUTHS, gpus=0.5),
            trial("flip", 0, half, TRUTHS, fraction=0.1, gpus=0.5),
            trial("flip", 0, GOOD, TRUTHS, gpus=None),
        ),
        {},
    )
    few, all_ = made.savings
    assert (few.labels, few.equal.kind, few.verdict) == (100, "measured", "better")
    assert few.equal.labels == pytest.approx((100 * 1000) ** 0.5)
    assert few.low.labels <= few.equal.labels <= few.high.labels
    assert (all_.labels, all_.equal.kind, all_.equal.labels) == (1000, "more", 1000)
    assert [(g.accuracy, g.gain) for g in made.gains] == [(80.0, pytest.approx(15.0)), (80.0, pytest.approx(17.5))]
    costs = {(c.pretext, c.place.fraction): c for c in made.costs}
    assert costs[NONE, 0.1].minutes == 30.0
    assert costs["flip", 0.1].minutes == 90.0
    assert costs["flip", 0.1].gpu_hours == pytest.approx(1.0 + 0.25)
    assert costs[NONE, 1.0].gpu_hours == pytest.approx(0.25)
    assert costs["flip", 1.0].gpu_hours is None, "not recorded is not nothing"


def test_decoders_are_compared_over_the_pretexts_that_both_have(tmp_path: Path) -> None:
    made = analyse(load_grid(write_grid(tmp_path, "decoders=[ctc,transformer]", lines=60)), {})
    decoders = [c for c in made.comparisons if c.kind == "decoder"]
    assert [(c.name, c.reference, c.fraction, c.verdict) for c in decoders] == [
        ("transformer", "ctc", 0.1, "worse"),
        ("transformer", "ctc", 1.0, "worse"),
    ]
    for comparison in decoders:
        means = [
            sum(
                made.cells[Place("wills", "semi_supervised", name, comparison.fraction), p].cer or 0
                for p in made.pretexts
            )
            / len(made.pretexts)
            for name in ("transformer", "ctc")
        ]
        assert comparison.difference == pytest.approx(means[0] - means[1])


def test_what_is_tested_is_the_difference_that_is_told() -> None:
    """Two seeds, of which one has more pretexts: each seed counts the same, in the difference and in the test."""

    def one(decoder: str, pretext: str, seed: int, readings: list[str]) -> TrialResult:
        made = trial(pretext, seed, readings, TRUTHS)
        return replace(made, key=made.key.replace("ctc", decoder), decoder=decoder)

    whole, slip = ["abcdefghij"] * 40, ["abcdefghiX"] * 40
    trials = [one("ctc", p, 0, slip) for p in (NONE, "flip", "sorting")] + [one("ctc", NONE, 1, whole)]
    trials += [one("transformer", p, 0, whole) for p in (NONE, "flip", "sorting")]
    trials += [one("transformer", NONE, 1, ["abcdefghXX"] * 40)]
    (found,) = [c for c in analyse(grid(*trials), {}).comparisons if c.kind == "decoder"]
    # Seed 0: 10 points lower, three times; seed 1: 20 points higher, once. On the mean that is higher in every line.
    assert found.difference == pytest.approx((-10.0 + 20.0) / 2)
    assert found.p == pytest.approx(2 / 2**40, rel=1e-3) and found.verdict == "worse"
    fewer = analyse(grid(*trials[:-1], one("transformer", NONE, 1, slip)), {}).comparisons
    assert [c.p for c in fewer if c.kind == "decoder"] == [1.0], "10 lower and 10 higher"


def test_the_champion_is_chosen_on_validation() -> None:
    lucky = trial("flip", 0, GOOD, TRUTHS)
    lucky.result["val_cer"] = 90.0
    made = analyse(grid(trial(NONE, 0, POOR, TRUTHS), lucky), {})
    assert made.champions["wills"].pretext == NONE


def test_figures_stand_without_readings() -> None:
    trials = [trial(NONE, 0, POOR, TRUTHS), trial("flip", 0, GOOD, TRUTHS)]
    made = analyse(grid(*(replace(one, readings=None) for one in trials)), {})
    assert made.cells[PLACE, "flip"].cer == pytest.approx(2.5)
    assert made.cells[PLACE, "flip"].best
    assert made.cells[PLACE, "flip"].cer_interval is None
    assert made.comparisons == []
    assert [s.equal.kind for s in made.savings] == ["more"]


def test_lines_are_drawn_once_for_all_intervals_of_a_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So the interval of a difference is of the very lines on which the figures of the table rest."""
    drawn = []

    def counted(values: Any, clusters: Any = None) -> Any:
        drawn.append("lines" if clusters is None else "writers")
        return bootstrap_sums(values, clusters)

    monkeypatch.setattr("htr_ray.report.statistics.bootstrap_sums", counted)
    writers = {f"line{n:03d}": f"w{n % 4}" for n in range(60)}
    made = analyse(load_grid(write_grid(tmp_path, "decoders=[ctc,transformer]", lines=60)), {"wills": writers})
    assert len(made.comparisons) > 8
    assert drawn == ["lines", "writers"]
    for comparison in (c for c in made.comparisons if c.kind == "pretext"):
        a, b = (made.cells[comparison.place, name].cer_samples for name in (comparison.name, comparison.reference))
        assert a is not None and b is not None
        expected = interval(a - b)
        assert (comparison.interval.low, comparison.interval.high) == pytest.approx((expected.low, expected.high))


def test_a_seed_without_any_difference_agrees_with_none() -> None:
    """The same number of errors is a difference of exactly 0, however they lie over the lines."""
    turned = POOR[:3] + ["abcdefghij"] + ["abcdefXXXX"] + POOR[5:]
    trials = [trial(NONE, seed, POOR, TRUTHS) for seed in (0, 1)]
    (found,) = analyse(grid(*trials, trial("flip", 0, turned, TRUTHS), trial("flip", 1, GOOD, TRUTHS)), {}).comparisons
    assert (found.seeds, found.seeds_agreeing) == (2, 1)
