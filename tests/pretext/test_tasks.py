"""Every task: exact answers, shapes, reproducible views, and no line that breaks it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from htr_ray.config import AugmentSettings, PretextSettings
from htr_ray.pretext import PRETEXT, Pretext, make
from htr_ray.pretext.flip import FLIPS, flip
from htr_ray.pretext.guard import clean
from htr_ray.pretext.jigsaw import Jigsaw, permutation_set
from htr_ray.pretext.rotation import turn
from htr_ray.pretext.sorting import Sorting
from htr_ray.pretext.tiles import assemble, cut, detach, even_out, inverse, puzzle, shuffled
from htr_ray.stream.augment import augment, background
from htr_ray.stream.scale import MIN_WIDTH

TASKS = sorted(PRETEXT)
ADAPTATIONS = ["window", "resize"]


def script(width: int = 400, height: int = 48, seed: int = 0) -> np.ndarray:
    """Something like writing: slanted strokes on paper with a lamp and a ruling."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 220, np.uint8)
    for x in range(8, width - 12, 9):
        tall = int(rng.integers(height // 4, height // 2))
        cv2.line(image, (x, height * 3 // 4), (x + 4, height * 3 // 4 - tall), 50, 2)
    cv2.line(image, (0, height - 8), (width, height - 8), 160, 1)
    return (image * np.linspace(1.0, 0.8, width)[None]).astype(np.uint8)


def build(name: str, height: int = 48, **kind) -> Pretext:
    return make(name, PretextSettings(**kind), height)


# --- exact answers ----------------------------------------------------------------------


def twice(name: str, adaptation: str, answer: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The view that a fixed seed gives when the task is made to draw ``answer``."""
    task = build(name, adaptation=adaptation)
    module = __import__(f"htr_ray.pretext.{name}", fromlist=["x"])
    helper = {"rotation": "turn", "flip": "flip"}[name]
    original = getattr(module, helper)
    monkeypatch.setattr(module, helper, lambda image, drawn: original(image, answer))
    view, _ = task.make(clean(script()), np.random.default_rng(3))
    monkeypatch.undo()
    return view


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("answer", range(4))
def test_rotation_by_k_is_k_quarter_turns_of_the_upright_view(adaptation, answer, monkeypatch) -> None:
    upright = twice("rotation", adaptation, 0, monkeypatch)
    assert np.array_equal(twice("rotation", adaptation, answer, monkeypatch), np.rot90(upright, answer))
    assert upright.shape == (48, 48)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_flip_mirrors_the_axes_that_it_names(adaptation, monkeypatch) -> None:
    none, horizontal, vertical, both = (twice("flip", adaptation, k, monkeypatch) for k in range(4))
    assert FLIPS == ("none", "horizontal", "vertical", "both")
    assert np.array_equal(horizontal, none[:, ::-1])
    assert np.array_equal(vertical, none[::-1])
    assert np.array_equal(both, none[::-1, ::-1])
    assert len({view.tobytes() for view in (none, horizontal, vertical, both)}) == 4


@pytest.mark.parametrize("name", ["rotation", "flip"])
def test_the_answer_names_what_was_done(name: str) -> None:
    task = build(name)
    undo = {"rotation": lambda view, k: turn(view, -k), "flip": flip}[name]
    reference = None
    for _ in range(12):
        rng = np.random.default_rng(9)
        kind = None

        class Drawn:
            """The generator of seed 9, but for the answer."""

            def __getattr__(self, attribute):
                return getattr(rng, attribute)  # noqa: B023

            def integers(self, *args, **kwargs):
                nonlocal kind
                kind = int(np.random.default_rng().integers(4))
                return kind

        view, target = task.make(clean(script()), Drawn())  # type: ignore[arg-type]
        assert target.tolist() == [kind]
        upright = undo(view, kind)
        reference = upright if reference is None else reference
        assert np.array_equal(upright, reference)


@given(rows=st.integers(1, 3), columns=st.integers(1, 6), seed=st.integers(0, 99))
def test_cutting_shuffling_and_undoing_gives_the_image_back(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (rows * 5, columns * 7), dtype=np.uint8)
    order = rng.permutation(rows * columns)
    tiles = cut(image, rows, columns)
    assert np.array_equal(assemble(tiles, rows, columns), image)
    mixed = assemble(shuffled(tiles, order), rows, columns)
    restored = assemble(shuffled(cut(mixed, rows, columns), inverse(order)), rows, columns)
    assert np.array_equal(restored, image)


def test_position_k_holds_the_piece_that_the_target_names() -> None:
    # Seven-pixel pieces, each of a grey level of its own, in ink of one depth.
    image = np.full((20, 35), 200, np.uint8)
    for piece in range(5):
        image[2 + 3 * piece, 7 * piece : 7 * piece + 7] = 90
    order = np.array([3, 1, 4, 0, 2])
    mixed = puzzle(image, 1, 5, order, 0.0, 200, np.random.default_rng(0))
    for position, piece in enumerate(cut(mixed, 1, 5)):
        assert np.argmin(piece.mean(1)) == 2 + 3 * order[position]


@pytest.mark.parametrize("rows", [1, 2])
def test_the_gap_leaves_borders_blank_and_keeps_what_it_promises(rows: int) -> None:
    rng = np.random.default_rng(0)
    tile = np.zeros((40, 50), np.uint8)
    sizes = []
    for _ in range(200):
        kept = detach(tile, 0.2, 255, rows, rng) == 0
        sizes.append((kept.any(1).sum(), kept.any(0).sum()))
    assert {width for _, width in sizes} == {40}
    heights = {height for height, _ in sizes}
    assert heights == {32} if rows == 2 else min(heights) >= 36


def test_tiles_are_brought_to_one_darkness() -> None:
    tiles = [np.full((10, 10), 200, np.uint8) for _ in range(3)]
    tiles[0][:, 4] = 50
    tiles[1][:, 2:4] = 110
    evened = even_out(tiles, 200)
    assert abs(int(evened[0].min()) - int(evened[1].min())) <= 2
    assert (evened[2] == 200).all()


# --- permutations -------------------------------------------------------------------------


def least_distance(permutations: np.ndarray) -> int:
    distance = (permutations[:, None] != permutations[None]).sum(-1)
    return int((distance + 1000 * np.eye(len(permutations), dtype=int)).min())


@pytest.mark.parametrize(("tiles", "size"), [(4, 24), (3, 100), (6, 20), (9, 64), (12, 100)])
def test_permutations_are_different_valid_and_as_many_as_there_can_be(tiles: int, size: int) -> None:
    chosen = permutation_set(tiles, size)
    assert len(chosen) == min(size, {3: 6, 4: 24}.get(tiles, size))
    assert (np.sort(chosen, axis=1) == np.arange(tiles)).all()
    assert len(np.unique(chosen, axis=0)) == len(chosen)


def test_permutations_are_far_apart_and_do_not_depend_on_global_state() -> None:
    chosen = permutation_set(9, 64)
    assert least_distance(chosen) >= 7
    rng = np.random.default_rng(0)
    assert least_distance(np.argsort(rng.random((64, 9)), axis=1)) < 7
    # Four tiles: four permutations at distance 4 (a Latin square) exist, and greed finds them.
    assert least_distance(permutation_set(4, 4)) == 4
    permutation_set.cache_clear()
    np.random.seed(5)
    assert np.array_equal(permutation_set(9, 64), chosen)


def test_jigsaw_says_how_few_permutations_there_are() -> None:
    task = Jigsaw(PretextSettings(jigsaw_columns=3, jigsaw_permutations=100), 48)
    assert (task.classes, task.chance) == (6, 1 / 6)


# --- every task, every line ------------------------------------------------------------------


def check(task: Pretext, image: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    before = image.copy()
    view, target = task.view(image, np.random.default_rng(seed))
    assert np.array_equal(image, before), "the line itself must not change"
    assert view.dtype == np.uint8 and view.shape[0] == task.height and view.flags.c_contiguous
    assert view.shape[1] >= MIN_WIDTH
    assert target.dtype == np.int64 and target.shape == (task.positions,)
    assert (target >= 0).all() and (target < task.classes).all()
    return view, target


@settings(max_examples=60, deadline=None)
@given(
    image=st.integers(1, 260).flatmap(lambda w: arrays.arrays(np.uint8, (32, w))),
    name=st.sampled_from(TASKS),
    adaptation=st.sampled_from(ADAPTATIONS),
    seed=st.integers(0, 50),
    gap=st.sampled_from([0.0, 0.1, 0.4]),
    rows=st.integers(1, 3),
    columns=st.integers(2, 12),
)
def test_any_image_gives_a_view(image, name, adaptation, seed, gap, rows, columns) -> None:
    task = build(name, 32, adaptation=adaptation, jigsaw_gap=gap, jigsaw_rows=rows, jigsaw_columns=columns)
    check(task, image, seed)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("grey", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("width", [1, 2, 17, 3000])
def test_blank_lines_of_any_width_and_grey(name: str, adaptation: str, grey: int, width: int) -> None:
    check(build(name, 48, adaptation=adaptation), np.full((48, width), grey, np.uint8))


@pytest.mark.parametrize("height", [16, 32, 48, 50, 64, 256])
@pytest.mark.parametrize("name", TASKS)
def test_all_heights(name: str, height: int) -> None:
    for aspect in (0.5, 2.0, 8.0):
        check(build(name, height, window_aspect=aspect), script(6 * height, height))


@pytest.mark.parametrize("name", TASKS)
def test_views_depend_on_the_generator_alone(name: str) -> None:
    task, image = build(name), script()
    first, target = task.view(image, np.random.default_rng(4))
    np.random.seed(1)
    cv2.setRNGSeed(7)
    again, same = task.view(image, np.random.default_rng(4))
    assert np.array_equal(first, again) and np.array_equal(target, same)
    assert any(not np.array_equal(first, task.view(image, np.random.default_rng(s))[0]) for s in (5, 6))


@pytest.mark.parametrize("name", TASKS)
def test_all_answers_are_equally_frequent(name: str) -> None:
    task, rng, image = build(name), np.random.default_rng(0), script(200)
    answers = np.concatenate([task.view(image, rng)[1] for _ in range(1200 // task.positions)])
    share = np.bincount(answers, minlength=task.classes) / len(answers)
    assert share.min() > 0.5 * task.chance and share.max() < 1.6 * task.chance


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("name", TASKS)
def test_views_of_writing_show_writing_on_the_paper_it_came_on(name: str, adaptation: str) -> None:
    task = build(name, adaptation=adaptation)
    for seed in range(20):
        view, _ = check(task, script(500, seed=seed), seed)
        paper = np.percentile(view, 80)
        assert 188 <= paper <= 212
        assert 0.01 < (view < paper - 40).mean() < 0.4


@pytest.mark.parametrize("name", TASKS)
def test_a_negative_stays_one(name: str) -> None:
    task, image = build(name), script()
    positive, _ = task.view(image, np.random.default_rng(2))
    negative, _ = task.view(255 - image, np.random.default_rng(2))
    assert background(negative) < 80
    assert np.abs(255 - negative.astype(int) - positive).mean() < 3


@pytest.mark.parametrize(("name", "width"), [("rotation", 48), ("flip", 96), ("jigsaw", 96)])
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_fixed_tasks_have_one_width(name: str, width: int, adaptation: str) -> None:
    for source in (10, 60, 300, 1500):
        view, _ = check(build(name, adaptation=adaptation), script(source))
        assert view.shape == (48, width)


@pytest.mark.parametrize("source", [300, 800, 2048])
def test_sorting_keeps_the_lines_width_and_never_exceeds_it(source: int) -> None:
    task = Sorting(PretextSettings(sorting_pieces=7), 48)
    for seed in range(10):
        view, target = check(task, script(source), seed)
        assert view.shape[1] % 7 == 0 and 0.8 * source < view.shape[1] <= source
        assert sorted(target) == list(range(7))


def test_wrong_height_and_wrong_name_are_errors() -> None:
    with pytest.raises(ValueError, match=r"\[48, W\], got \[47, 20\]"):
        build("flip").view(np.zeros((47, 20), np.uint8), np.random.default_rng(0))
    with pytest.raises(ValueError, match="unknown pretext task 'colour'; known: rotation, flip"):
        make("colour", PretextSettings(), 48)


def test_preview_shows_the_line_and_the_answer() -> None:
    words = {"rotation": "degrees", "flip": "flip", "jigsaw": "tiles", "sorting": "pieces"}
    image = script()
    for name in TASKS:
        (shown, first), (view, second) = build(name).preview(image, np.random.default_rng(0))
        assert np.array_equal(shown, image) and first == "line"
        assert view.shape[0] == 48 and second.startswith(f"{name}: ") and words[name] in second


# --- loss and accuracy ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_loss_and_accuracy(name: str) -> None:
    task = build(name)
    k, c = task.positions, task.classes
    targets = torch.randint(c, (6, k), generator=torch.Generator().manual_seed(0))
    sure = 50.0 * torch.nn.functional.one_hot(targets, c)
    assert task.loss(sure, targets).shape == (6,)
    assert task.loss(sure, targets).max() < 1e-3 and task.correct(sure, targets).tolist() == [1.0] * 6
    guess = task.loss(torch.zeros(6, k, c), targets)
    torch.testing.assert_close(guess, torch.full((6,), float(-np.log(task.chance))))
    wrong = 50.0 * torch.nn.functional.one_hot((targets + 1) % c, c)
    assert task.correct(wrong, targets).sum() == 0


@pytest.mark.parametrize("name", TASKS)
def test_heads_learn_and_ignore_padding(name: str) -> None:
    torch.manual_seed(0)
    task = build(name)
    head = task.head(8)
    features, frames = torch.randn(5, 30, 8), torch.tensor([30, 21, 12, 3, 1])
    logits = head(features, frames)
    assert logits.shape == (5, task.positions, task.classes)
    for i, n in enumerate(frames.tolist()):
        features[i, n:] = 1e4
    torch.testing.assert_close(head(features, frames), logits)
    task.loss(logits, torch.zeros(5, task.positions, dtype=torch.int64)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


# --- real handwriting ------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", ["dhsd", "testaments", "copiste", "htromance_ita"])
def test_views_of_real_lines(corpus: str, handwriting) -> None:
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    group = pq.ParquetFile(handwriting / "lines" / f"{corpus}.parquet").read_row_group(0, ["image"])
    ink = {name: 0 for name in TASKS}
    for row in range(25):
        image = cv2.imdecode(np.frombuffer(group["image"][row].as_py()["bytes"], np.uint8), 0)
        assert image is not None
        grey = np.asarray(cv2.resize(image, (max(1, image.shape[1] * 48 // image.shape[0]), 48)), np.uint8)
        varied = augment(grey, AugmentSettings(), rng)
        for name in TASKS:
            view, _ = check(build(name), varied, row)
            paper = background(view)
            ink[name] += bool((np.abs(view.astype(int) - paper) > 25).mean() > 0.01)
    assert min(ink.values()) >= 23, ink  # a few lines are nearly blank
