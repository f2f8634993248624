"""The summary never claims more than the numbers say."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray.report.analysis import Analysis, analyse
from htr_ray.report.cells import NONE
from htr_ray.report.results import GridResults, TrialResult
from htr_ray.report.words import summary
from htr_ray.train.metrics import count_errors

TRUTHS = [f"line {n} of {n * 7919 % 1000}" for n in range(25)]
State = Literal["done", "failed", "missing"]


def finetuning(
    pretext: str, share: float, *, seed: int = 0, fraction: float = 1.0, decoder: str = "ctc", state: State = "done"
) -> TrialResult:
    rng = random.Random(f"{pretext} {seed} {fraction} {decoder}")
    lines = [
        {"id": f"l{n}", "truth": t, "reading": "".join("x" if rng.random() < share else c for c in t)}
        for n, t in enumerate(TRUTHS)
    ]
    errors = count_errors((line["truth"], line["reading"]) for line in lines)
    result: dict[str, Any] = {"test_cer": errors.cer, "test_wer": errors.wer, "val_cer": errors.cer}
    return TrialResult(
        key=f"finetune/wills/semi_supervised/{decoder}/{fraction:g}/{pretext}/seed{seed}",
        stage="finetune",
        corpus="wills",
        pretext=pretext,
        seed=seed,
        decoder=decoder,
        label_fraction=fraction,
        protocol="semi_supervised",
        state=state,
        failure="out of luck" if state == "failed" else None,
        result=result | {"lines": round(1000 * fraction)} if state == "done" else {},
        readings=lines if state == "done" else None,
    )


def pretraining(pretext: str, accuracy: float = 60.0, state: State = "done") -> TrialResult:
    result = {"val_accuracy": accuracy, "chance": 25.0, "minutes": 1.0} if state == "done" else {}
    about = (f"pretrain/wills/{pretext}/seed0", "pretrain", "wills", pretext, 0, None, None, None)
    return TrialResult(*about, state=state, failure=None, result=result, readings=None)


def analysed(*trials: TrialResult, writers: int = 0) -> Analysis:
    known = {"wills": {f"l{n}": f"w{n % writers}" for n in range(len(TRUTHS))}} if writers else {}
    return analyse(GridResults("g", {}, list(trials), {"wills": {}}), known)


def told(*trials: TrialResult, writers: int = 0) -> str:
    return flat(analysed(*trials, writers=writers))


def flat(made: Analysis) -> str:
    return "\n".join(" ".join([p.lead, p.text, *p.points]) for p in summary(made))


SHARES = st.floats(0.0, 0.6)
TRIALS = st.lists(
    st.builds(
        finetuning,
        st.sampled_from([NONE, "flip", "sorting"]),
        SHARES,
        seed=st.integers(0, 1),
        fraction=st.sampled_from([0.1, 1.0]),
        decoder=st.sampled_from(["ctc", "transformer"]),
        state=st.sampled_from(["done", "done", "done", "failed", "missing"]),
    ),
    max_size=12,
    unique_by=lambda trial: trial.key,
)


@settings(max_examples=60)
@given(TRIALS, st.integers(0, 5))
def test_claims_rest_on_significant_tests_alone(trials: list[TrialResult], writers: int) -> None:
    made = analysed(*trials, writers=writers)
    text = flat(made)
    verdicts = {c.verdict for c in made.comparisons}
    for claim in ("better", "worse"):
        assert (re.search(rf"\b{claim}\b", text) is not None) <= (claim in verdicts), text
    savings = [s for s in made.savings if s.verdict == "better" and s.equal.kind != "fewer"]
    assert (re.search(r"with [\d,]+ labels reads (about )?as", text) is not None) == bool(savings)
    if not made.comparisons:
        assert "clear difference" not in text
    assert not re.search(r"\bnan\b|\binf\b|None|-0\.0", text)


@settings(max_examples=40)
@given(TRIALS)
def test_what_failed_or_is_missing_is_named(trials: list[TrialResult]) -> None:
    text = told(*trials)
    left = [trial for trial in trials if trial.state != "done"]
    for state in ("failed", "missing"):
        number = sum(trial.state == state for trial in left)
        assert not number or f"{number} {state}" in text
    assert sum(trial.key in text for trial in left) == min(len(left), 6)
    assert ("All are finished" in text) == (bool(trials) and not left)


def test_a_clear_difference_is_told_with_its_size() -> None:
    text = told(finetuning(NONE, 0.5), finetuning("flip", 0.05))
    assert "wills, semi_supervised: of 1 comparison with no pre-training, pre-training was better in 1." in text
    assert re.search(r"flip: better in 1 of 1 comparison; its largest clear difference is a CER \d+\.\d perc", text)
    assert "Every cell was trained once (one seed)" in text
    assert (
        "flip with 1,000 labels reads as more labels from scratch than the 1,000 that were measured, how many" in text
    )


def test_a_task_that_harms_is_told() -> None:
    text = told(finetuning(NONE, 0.05), finetuning("flip", 0.5))
    assert "pre-training was worse in 1." in text
    assert "The tests bear out no saving." in text


def test_no_difference_is_told_as_such() -> None:
    same = finetuning(NONE, 0.3)
    text = told(same, replace(finetuning("flip", 0.3), readings=same.readings, result=same.result))
    assert "no clear difference to no pre-training, in 1 comparison" in text
    assert "flip: no clear difference in 1 comparison." in text


def test_several_seeds_are_no_single_seed() -> None:
    trials = [finetuning(p, share, seed=s) for p, share in ((NONE, 0.4), ("flip", 0.1)) for s in range(3)]
    text = told(*trials)
    assert "one seed" not in text
    assert "means over seeds, 3 at the fewest" in text
    assert "what other seeds change" in text and "reaches 0" not in text


def test_seeds_that_disagree_are_told() -> None:
    trials = [finetuning(NONE, 0.3, seed=0), finetuning(NONE, 0.3, seed=1)]
    trials += [finetuning("flip", 0.0, seed=0), finetuning("flip", 0.35, seed=1)]
    text = told(*trials)
    assert "better in 1" in text
    assert "In 1 of the 1 clear difference not all seeds show the same direction." in text
    assert "In 1 of the 1 clear difference the interval over lines and seeds reaches 0" in text


def test_few_writers_are_told() -> None:
    trials = [finetuning(NONE, 0.4), finetuning("flip", 0.1)]
    assert "25 test lines by only 3 writers; lines of one hand are alike" in told(*trials, writers=3)
    assert "whose writers are not known" in told(*trials)
    assert "25 test lines by 25 writers." in told(*trials, writers=25)


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ([finetuning("flip", 0.1)], "This grid cannot say: it has no cell without pre-training"),
        ([finetuning(NONE, 0.1)], "This grid cannot say: it has no cell with pre-training"),
        ([finetuning(NONE, 0.1), finetuning("flip", 0.1, state="failed")], "This cannot be said yet: no cell with"),
        ([pretraining("flip")], "This cannot be said yet: the grid asks for no recognizer."),
        ([finetuning(NONE, 0.1, state="missing")], "This cannot be said yet: no recognizer has been trained."),
    ],
)
def test_what_cannot_be_said_is_not_said(trials: list[TrialResult], says: str) -> None:
    text = told(*trials)
    assert says in text
    assert "better" not in text and "worse" not in text


def test_a_task_that_was_not_learnt_is_told() -> None:
    text = told(pretraining("jigsaw", 26.0), pretraining("flip", 70.0), pretraining("sorting", state="missing"))
    assert "jigsaw: 26.0 % (guessing gives 25.0 %), hardly above guessing." in text
    assert "flip: 70.0 % (guessing gives 25.0 %)." in text
    assert "1 missing): pretrain/wills/sorting/seed0 (missing)" in text


def test_decoders_are_told_apart_only_by_a_test() -> None:
    trials = [finetuning(p, s, decoder=d) for p in (NONE, "flip") for d, s in (("ctc", 0.1), ("transformer", 0.5))]
    text = told(*trials)
    assert re.search(r"transformer was worse than ctc with 100 % of the labels, by \d+\.\d percentage points", text)


def test_nothing_is_said_to_beat_labels_that_it_was_not_tested_against() -> None:
    """A tenth of the labels with pre-training has about the CER of all of them without: no more is claimed."""
    trials = [finetuning(NONE, 0.6, fraction=0.1), finetuning(NONE, 0.2)]
    for seed in range(40):
        changed = finetuning("flip", 0.16, fraction=0.1, seed=seed)
        made = analysed(*trials, replace(changed, seed=0))
        (saving,) = made.savings
        if saving.equal.kind == "more" and saving.low.kind == "measured":
            break
    else:
        pytest.fail("no such case was drawn")
    text = flat(made)
    assert "flip with 100 labels reads about as the 1,000 labels from scratch do that were measured at most, or" in text
    assert "to more than 1,000)" in text
    assert "reads as more labels" not in text


def test_what_was_run_counts_all_trials() -> None:
    """Also those of earlier runs, which the settings do not ask for any more."""
    assert "The grid g has 1 pre-training and 2 fine-tunings on 1 corpus" in told(
        pretraining("flip"), finetuning(NONE, 0.3), finetuning("flip", 0.3)
    )
