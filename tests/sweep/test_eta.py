"""How well a grid's end is told after a tenth of its time (the whole distribution: tests/benchmarks/eta.py)."""

from __future__ import annotations

import math
import statistics

import pytest
from grid_simulation import KINDS, errors

from htr_ray.config import SearchSettings
from htr_ray.sweep.eta import Shares, time_left
from htr_ray.sweep.plan import raced_share
from htr_ray.sweep.progress import TrialProgress

SEEDS = range(3)


def test_after_a_tenth_of_the_time_the_median_error_is_below_a_fifth() -> None:
    found, elsewhere = [], []
    for kind in KINDS[:-1]:  # the paper-sized one is slow, and easier
        for seed in SEEDS:
            error, others = errors(kind, seed)
            found.append(abs(error))
            elsewhere += others
    assert not any(map(math.isnan, found)), "something is said in every grid"
    assert statistics.median(found) < 0.2
    assert max(found) < 1.5, "nothing absurd"
    known = [share for share in elsewhere if not math.isnan(share)]
    assert all(0 <= share < 4 for share in known)


def trial(key: str, **about: object) -> TrialProgress:
    given = {"stage": "finetune", "corpus": "c", "pretext": "none", "seed": 0, "decoder": "ctc", "label_fraction": 1.0}
    given |= {"protocol": "frozen", "waits_for": None, "takes": None, "group": None, "choice": None, "probe": False}
    given |= {"cpus": 1.0, "gpus": 0.0, "planned": 100.0, "guessed": False, "expected": 1.0, "max_epochs": 10}
    return TrialProgress(key=key, **(given | about))  # type: ignore[arg-type]


def test_trials_queue_for_places_in_order_and_behind_their_encoders() -> None:
    encoder = trial("e", stage="pretrain", planned=200.0)
    cells = [trial(f"c{n}", waits_for="e" if n < 2 else None) for n in range(4)]
    edges = 6 + 2
    # The encoder and one cell side by side, then the second free cell; the two behind the encoder after it.
    assert time_left([encoder, *cells], 0.0, None, 2) == pytest.approx(200 + 2 * edges + 100, rel=0.05)
    assert time_left([encoder, *cells], 0.0, None, 1) == pytest.approx(600 + 5 * edges)
    assert time_left([encoder, *cells], 0.0, None, 9) == pytest.approx(300 + 2 * edges)


def test_what_takes_the_winner_of_a_search_waits_for_all_its_choices() -> None:
    choices = [trial(f"g{n}", group="g", choice=n, planned=100.0 * (n + 1)) for n in range(3)]
    follower = trial("f", takes="g")
    assert time_left([*choices, follower], 0.0, None, 9) == pytest.approx(300 + 100 + 2 * 8)


def test_those_that_still_run_keep_early_ends_from_looking_like_the_rule() -> None:
    early = [trial(f"e{n}", state="done", progress=0.2) for n in range(2)]
    running = [trial(f"r{n}", state="training", progress=0.6) for n in range(8)]
    share = Shares([*early, *running]).expected(trial("next"))
    assert 0.75 < share < 0.95, "eight of ten are beyond 0.6 already; the mean of those that ended is 0.2"
    assert Shares([*early, *running]).expected(running[0]) > 0.9


@pytest.mark.parametrize(("choices", "share"), [(1, 1.0), (8, 0.254), (100, 0.237)])
def test_halving_is_expected_to_spare_most(choices: int, share: float) -> None:
    assert raced_share(choices, SearchSettings()) == pytest.approx(share, abs=0.02)
