"""The steps that are compared are the steps that are meant, and what fails is told."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from convolutions import every
from step_ceiling import SWITCHES, Shape, Step, Switch, ceiling, main, measure, table
from torch import nn

from htr_ray.config import RunSettings, load
from htr_ray.model.cost import cost

CPU = torch.device("cpu")
SHAPE = Shape(32, 64, 3)


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return load(RunSettings, overrides=["preset=tiny"], environment={})


@pytest.mark.parametrize(
    ("switch", "layout"),
    [(Switch(), torch.channels_last), (Switch(channels_last=False), torch.contiguous_format)],
)
def test_layout_of_the_maps(settings: RunSettings, switch: Switch, layout: torch.memory_format) -> None:
    step = Step(settings, switch, SHAPE, CPU)
    maps: list[torch.Tensor] = []
    convolutions = [module for module in step.model.encoder.resnet.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        module.register_forward_hook(lambda _, __, made: maps.append(made))
    step()
    assert len(maps) == len(convolutions) > 10
    assert all(made.is_contiguous(memory_format=layout) for made in maps)
    # Only a map of one row or one channel is both.
    assert sum(made.is_contiguous() and made.is_contiguous(memory_format=torch.channels_last) for made in maps) < 3


def test_every_step_learns_and_from_other_lines(settings: RunSettings) -> None:
    step = Step(settings, Switch(fused=False, precision="float32"), SHAPE, CPU)
    before = [p.detach().clone() for p in step.model.parameters()]
    for _ in range(3):  # residual blocks start as identities: the first step moves one parameter of each
        step()
    still = [name for (name, p), old in zip(step.model.named_parameters(), before, strict=True) if torch.equal(p, old)]
    assert not still
    assert len({batch["images"].sum().item() for batch in step._batches}) == len(step._batches)


def test_a_switch_that_fails_says_why_and_the_others_go_on(settings: RunSettings) -> None:
    switches = {"as trained": Switch(), "broken": Switch(compiled="no such mode")}
    good, bad = measure(settings, SHAPE, switches, CPU, rounds=1, long=0.05)
    assert good["over_as_trained"] == 1.0 and good["lines_per_second"] == pytest.approx(3 * good["steps_per_second"])
    assert "no such mode" in bad["failed"]
    assert "no such mode" in table([{**good, "share": 0.5}, bad])


def test_without_the_step_as_trained_there_is_no_ratio(settings: RunSettings) -> None:
    (row,) = measure(settings, SHAPE, {"float32": Switch(precision="float32")}, CPU, rounds=1, long=0.05)
    assert "over_as_trained" not in row
    assert table([{**row, "share": 0.5}]).splitlines()[2].endswith("| 50 |  |  |")


def test_ceiling_of_two_ways() -> None:
    assert min(ceiling(torch.float32, CPU, 64).values()) > 0


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    given = ["--shapes", "32x64x2", "32x96x1", "--switches", "as trained", "float32", "--rounds", "1"]
    given += ["--seconds", "0.05", "--matrix", "64", "--json", str(tmp_path / "out.json"), "preset=tiny"]
    monkeypatch.setattr(sys, "argv", ["step_ceiling.py", *given])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        main()
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["shape"], row["switch"]) for row in rows] == [
        (shape, switch) for shape in ("32x64x2", "32x96x1") for switch in ("as trained", "float32")
    ]
    assert all(row["share"] > 0 and row["gflops"] > 0 for row in rows)
    assert "| 32x96x1 | float32 |" in capsys.readouterr().out


def test_shapes_are_told_apart_from_other_words() -> None:
    assert Shape.of("64x1024x16") == Shape(64, 1024, 16)
    with pytest.raises(argparse.ArgumentTypeError, match="HEIGHTxWIDTHxBATCH"):
        Shape.of("64x1024")
    assert "as trained" in SWITCHES


def test_every_convolution_is_timed(settings: RunSettings) -> None:
    step = Step(settings, Switch(), SHAPE, CPU)
    rows = every(step, CPU, rounds=1)
    convolutions = [name for name, m in step.model.encoder.resnet.named_modules() if isinstance(m, nn.Conv2d)]
    assert sorted(row.name for row in rows) == sorted(convolutions)
    assert [row.by_input is None for row in rows] == [True] + [False] * (len(rows) - 1)
    forward = cost(settings.model, "convolution", SHAPE.height, SHAPE.width).gflops * SHAPE.batch
    assert sum(row.gflop for row in rows) == pytest.approx(forward, rel=1e-6)
    assert all(row.forward > 0 and row.by_weights > 0 for row in rows)
