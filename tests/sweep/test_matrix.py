"""The board as a picture of text: all states, whatever the terminal's size."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from htr_ray.sweep.matrix import View, rows_of
from htr_ray.sweep.progress import Attempt, GridProgress, Session, TrialProgress, Use
from htr_ray.sweep.waiting import stall, waiting_lines

NOW = 1_000_000.0
PRETEXTS = ["none", "rotation", "flip", "jigsaw", "sorting"]


def trial(key: str, **about: object) -> TrialProgress:
    made = TrialProgress(
        key=key,
        stage="finetune",
        corpus="dhsd",
        pretext="none",
        seed=0,
        decoder="ctc",
        label_fraction=1.0,
        protocol="semi_supervised",
        waits_for=None,
        takes=None,
        group=None,
        choice=None,
        probe=False,
        cpus=2,
        gpus=0,
        planned=100.0,
        guessed=False,
        expected=1.0,
        max_epochs=50,
    )
    return replace(made, **about)  # type: ignore[arg-type]


def grid(trials: list[TrialProgress], **about: object) -> GridProgress:
    session = Session(NOW - 3600, None, "driver", 7)
    made = GridProgress("paper", NOW, 10.0, (session,), tuple(trials), (), Use(2, 20, 0, 0, 0), None, 5000.0)
    return replace(made, **about)  # type: ignore[arg-type]


def paper() -> list[TrialProgress]:
    """5 pretexts x 2 decoders x 3 fractions x 3 corpora x 3 seeds behind 36 pre-trainings, in all states."""
    rng = random.Random(1)
    trials = []
    for corpus in ("dhsd", "testaments", "a-corpus-with-a-very-long-name"):
        for pretext in PRETEXTS:
            for seed in range(3):
                encoder = None if pretext == "none" else f"pretrain/{corpus}/{pretext}/seed{seed}"
                about = {"corpus": corpus, "pretext": pretext, "seed": seed}
                if encoder:
                    made = trial(encoder, **about, stage="pretrain", decoder=None, label_fraction=None, protocol=None)
                    figures = {"val_accuracy": rng.uniform(30, 100)}
                    state = "done" if corpus == "dhsd" else "training" if corpus == "testaments" else "waiting"
                    attempts = (Attempt(NOW - 900, 0.1),)
                    trials.append(replace(made, state=state, figures=figures, progress=0.4, epoch=4, attempts=attempts))
                for decoder in ("ctc", "transformer"):
                    for fraction in (0.05, 0.1, 1.0):
                        key = f"finetune/{corpus}/semi_supervised/{decoder}/{fraction:g}/{pretext}/seed{seed}"
                        cell = trial(key, **about, decoder=decoder, label_fraction=fraction, waits_for=encoder)
                        if corpus == "dhsd":
                            state = rng.choice(["done", "done", "training", "waiting", "failed"])
                            cell = replace(
                                cell,
                                state=state,
                                progress=rng.random(),
                                epoch=rng.randrange(50),
                                figures={"val_cer": rng.uniform(5, 110), "test_cer": rng.uniform(5, 110)},
                                failure="Traceback\nno space left" if state == "failed" else None,
                                attempts=(Attempt(NOW - 800, 0.1),),
                            )
                        trials.append(cell)
    return trials


def drawn(progress: GridProgress, width: int, height: int, whole: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(View(progress, NOW, whole=whole))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (120, 40), (200, 60), (40, 12)])
def test_a_paper_sized_grid_fits_the_terminal(width: int, height: int) -> None:
    lines = drawn(grid(paper()), width, height)
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert len(lines) < max(height, 20)
    text = "\n".join(lines)
    assert "paper: " in lines[0] and "training" in text and "failed finetune/dhsd" in text
    if height < 40:
        assert "more row" in text, "what is not shown is counted"
    if width >= 80:
        for pretext in PRETEXTS:
            assert pretext in text
        assert "✓" in text and "✗" in text and "·" in text and any(bar in text for bar in "▁▂▃▄▅▆▇█")


def test_nothing_is_left_out_of_a_text_dump() -> None:
    progress = grid(paper())
    lines = drawn(progress, 120, 10, whole=True)
    assert sum(" ctc " in line for line in lines) == 9 and sum("pre-training " in line for line in lines) >= 3
    assert len(rows_of(progress.trials)) == 3 * 7
    assert not any("more row" in line for line in lines)


def test_a_field_tells_of_its_seeds_and_choices() -> None:
    done = [trial(f"s{n}", seed=n, state="done", figures={"test_cer": 10.0 + 2 * n}) for n in range(3)]
    assert "12.0 ±2.0" in "\n".join(drawn(grid(done), 100, 30))
    part = [done[0], replace(done[1], state="training", progress=0.5, epoch=11), replace(done[2], state="waiting")]
    assert "epoch 12 10.0 ✓▅·" in "\n".join(drawn(grid(part), 100, 30))
    choices = [
        trial("c0", group="g", choice=0, state="training", progress=0.3, epoch=3, figures={"val_cer": 33.0}),
        trial("c1", group="g", choice=1, state="halved"),
        trial("c2", group="g", choice=2, state="failed", failure="too high a rate", attempts=(Attempt(NOW, 1),)),
        trial("c3", group="g", choice=3),
    ]
    text = "\n".join(drawn(grid(choices), 100, 30))
    assert "epoch 4 33.0 ▃ 2/4 choices" in text, "one unit, not four"
    won = [replace(choices[0], state="done", figures={"val_cer": 9.0, "test_cer": 11.0}), choices[1], choices[2]]
    assert "11.0" in "\n".join(drawn(grid(won), 100, 30)) and "✗" not in drawn(grid(won), 100, 20)[3]


def test_what_it_waits_for_is_said() -> None:
    encoder = trial("pretrain/a", stage="pretrain", state="training", epoch=6, max_epochs=30)
    cells = [trial(f"cell{n}", waits_for="pretrain/a") for n in range(12)]
    (line,) = waiting_lines(grid([encoder, *cells]), NOW)
    assert line == "12 trials wait for pretrain/a (epoch 7 of 30)"
    full = [trial(f"t{n}", state="training", gpus=1.0, attempts=(Attempt(NOW, 0.5),)) for n in range(2)]
    use = Use(1, 16, 2, 12, 0)
    (line,) = waiting_lines(grid([*full, trial("big", gpus=2.0)], use=use), NOW)
    assert line == "1 trial is ready and waits for 2 GPUs: all in use"
    search = [trial("c0", group="g", state="training"), trial("c1", group="g", state="done"), trial("s1", takes="g")]
    (line,) = waiting_lines(grid(search), NOW)
    assert line == "1 trial waits for the search g (1 of 2 trials over)"


def test_a_grid_that_stands_still_says_what_is_missing() -> None:
    ready = grid([trial("big", gpus=1.0)], use=Use(3, 64, 4, 1.5, 0.5))
    assert stall(replace(ready, sessions=(Session(NOW - 30, None, "d", 1),)), NOW) is None, "it has only begun"
    assert stall(ready, NOW) == (
        "nothing has started for 60 min: big needs 2 CPUs and 1 GPU, the cluster has 1.5 and 0.5 free of 64 and 4"
    )
    running = trial("other", state="training", cpus=64, attempts=(Attempt(NOW - 3000, 1.0),))
    assert stall(grid([running, trial("big")], use=Use(3, 64, 4, 0, 4)), NOW) is None, "it waits for the other"
