"""No task may be solved from the accidents of a scan; every unguarded one can be (so the probes work)."""

from __future__ import annotations

import numpy as np
import pytest
from tempting_lines import cheap_features, probe, streaks, tempting_line

from htr_ray.config import PretextSettings
from htr_ray.pretext import make
from htr_ray.pretext.flip import flip
from htr_ray.pretext.rotation import turn
from htr_ray.pretext.sorting import Sorting
from htr_ray.pretext.tiles import assemble, cut, inverse, shuffled

HEIGHT = 36  # no multiple of 8, so that mirroring moves the JPEG grid
VIEWS = 1500
LUCK = 0.07  # more than three standard deviations of the accuracy of guessing among 500
TRACE = 0.11  # dots, heavily compressed and fading to a third, keep a trace of where they were


def lines(ink: bool, count: int = VIEWS) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [tempting_line(rng, HEIGHT, ink=ink) for _ in range(count)]


@pytest.fixture(scope="module")
def blank() -> list[np.ndarray]:
    return lines(ink=False)


@pytest.fixture(scope="module")
def dotted() -> list[np.ndarray]:
    return lines(ink=True)


def accuracy_of_probe(name: str, images: list[np.ndarray], adaptation: str) -> float:
    task = make(name, PretextSettings(adaptation=adaptation), HEIGHT)  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    pairs = [task.view(image, rng) for image in images]
    features = np.stack([cheap_features(view) for view, _ in pairs])
    return probe(features, np.array([target[0] for _, target in pairs]), task.classes)


@pytest.mark.parametrize("adaptation", ["window", "resize"])
@pytest.mark.parametrize("name", ["rotation", "flip"])
def test_blank_lines_give_no_answer(name: str, adaptation: str, blank: list[np.ndarray]) -> None:
    assert accuracy_of_probe(name, blank, adaptation) < 0.25 + LUCK


@pytest.mark.parametrize("adaptation", ["window", "resize"])
def test_dots_do_not_give_the_flip_away(adaptation: str, dotted: list[np.ndarray]) -> None:
    assert accuracy_of_probe("flip", dotted, adaptation) < 0.25 + TRACE


@pytest.mark.parametrize("adaptation", ["window", "resize"])
def test_rotation_tells_only_the_direction_of_dots(adaptation: str, dotted: list[np.ndarray]) -> None:
    # Writing along or across the view is visible by right; which of the two turns is not.
    assert accuracy_of_probe("rotation", dotted, adaptation) < 0.5 + TRACE


def test_the_probe_solves_the_unguarded_tasks(blank: list[np.ndarray], dotted: list[np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    answers = rng.integers(4, size=VIEWS)
    for images in (blank, dotted):
        for transform in (flip, turn):
            views = [transform(image, k) for image, k in zip(images, answers, strict=True)]
            assert probe(np.stack([cheap_features(v) for v in views]), answers, 4) > 0.9


def piece_features(view: np.ndarray, pieces: int) -> np.ndarray:
    return np.stack([cheap_features(piece) for piece in cut(view, 1, pieces)])


@pytest.mark.parametrize("ink", [False, True])
def test_pieces_of_a_line_without_letters_cannot_be_sorted(
    ink: bool, blank: list[np.ndarray], dotted: list[np.ndarray]
) -> None:
    images = (dotted if ink else blank)[:500]
    task = Sorting(PretextSettings(), HEIGHT)
    rng = np.random.default_rng(5)
    guarded, naive, answers = [], [], []
    for image in images:
        view, order = task.view(image, rng)
        guarded.append(piece_features(view, task.classes))
        whole = image[:, : image.shape[1] // task.classes * task.classes]
        naive.append(piece_features(assemble(shuffled(cut(whole, 1, 5), order), 1, 5), 5))
        answers.append(order)
    target = np.concatenate(answers)
    assert probe(np.concatenate(guarded), target, 5) < 0.2 + 0.06
    assert probe(np.concatenate(naive), target, 5) > 0.6


def test_tiles_without_letters_do_not_name_the_permutation(dotted: list[np.ndarray]) -> None:
    task = make("jigsaw", PretextSettings(), HEIGHT)
    rng = np.random.default_rng(5)
    pairs = [task.view(image, rng) for image in dotted]
    features = np.stack([piece_features(view, 4).ravel() for view, _ in pairs])
    assert probe(features, np.array([t[0] for _, t in pairs]), task.classes) < task.chance + 0.04


def neighbours_found(view: np.ndarray, order: np.ndarray) -> float:
    """Follow strokes over the cuts: share of pieces whose true right neighbour matches best."""
    pieces = shuffled(cut(view, 1, len(order)), inverse(order))
    right = np.stack([piece[:, -1] for piece in pieces]).astype(np.float32)
    left = np.stack([piece[:, 0] for piece in pieces]).astype(np.float32)
    cost = np.abs(right[:, None] - left[None]).mean(-1) + np.diag(np.full(len(order), np.inf))
    # Ties (two blank borders) are broken at random, as a guess would be.
    cost += np.random.default_rng(0).uniform(0, 1e-3, cost.shape)
    return float((cost[:-1].argmin(1) == np.arange(1, len(order))).mean())


def test_strokes_do_not_run_on_across_a_cut() -> None:
    rng = np.random.default_rng(3)
    task = Sorting(PretextSettings(), 48)
    guarded, naive = [], []
    for _ in range(150):
        image = streaks(rng, 48, 480)
        view, order = task.view(image, rng)
        guarded.append(neighbours_found(view, order))
        naive.append(neighbours_found(assemble(shuffled(cut(image, 1, 5), order), 1, 5), order))
    assert np.mean(guarded) < 0.25 + 0.1
    assert np.mean(naive) > 0.8
