"""What share of the device's arithmetic a training step gets, and what each of the usual switches is worth to it.

    python tests/benchmarks/step_ceiling.py [--shapes 64x256x64 64x1024x16] [--rounds 5] [--json FILE] [key=value ...]

Needs torch and htr_ray alone: random lines of the shapes HEIGHTxWIDTHxBATCH, the recognizer of a preset
(``preset=paper``, ``decoder=transformer``, ...), and a step as ``train/fit.py`` makes it: autocast, clipping, AdamW.
Each switch changes one thing about it. On a GPU if there is one, else on a core with one thread.

The ceiling is measured: a large matrix product in the same type, by ``torch.mm`` and as a 1x1 convolution, whichever is
faster (on CPUs two libraries do them). A step counts as three forward passes, the usual reckoning; a first layer whose
input needs no gradient makes it a little less. Clocks are the wall on a GPU, which is waited for, and CPU time on a
CPU. Switches take turns, and medians over the rounds are printed; a switch that fails says why, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from htr_ray.config import Precision, RunSettings, load
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.model.cost import cost
from htr_ray.model.recognizer import Recognizer
from htr_ray.model.resnet import FRAME_WIDTH
from htr_ray.train.worker import autocast_dtype, local_device, set_threads

ALPHABET = Alphabet("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-äöüß")
WARM = 3
"""Steps before the clock starts, the first of which may compile."""
BATCHES = 4
"""Batches that take turns, so that no step finds its images in a cache."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A step that differs from the one of ``train/fit.py`` in what is given."""

    channels_last: bool = True
    fused: bool = True
    precision: Precision = "auto"
    compiled: str | None = None
    """A mode of torch.compile for the convolutions."""
    asking: bool = False
    """Widths, lengths and the gradient's norm are asked of the device in every step, as most loops do."""

    def multiplies(self, device: torch.device) -> torch.dtype:
        """The type that its convolutions and matrix products work in."""
        return autocast_dtype(self.precision, device) or torch.float32


GPU_ONLY = ("bfloat16", "torch.compile, CUDA graphs")
"""Of the switches, those that a CPU is not tried with unless asked."""
SWITCHES = {
    "as trained": Switch(),
    "channels first": Switch(channels_last=False),
    "optimizer not fused": Switch(fused=False),
    "asks the device": Switch(asking=True),
    "float32": Switch(precision="float32"),
    "bfloat16": Switch(precision="bfloat16"),
    "torch.compile": Switch(compiled="default"),
    "torch.compile, CUDA graphs": Switch(compiled="reduce-overhead"),
}


@dataclass(frozen=True)
class Shape:
    height: int
    width: int
    batch: int

    @classmethod
    def of(cls, text: str) -> Shape:
        try:
            height, width, batch = (int(number) for number in text.split("x"))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTHxBATCH, as 64x1024x16") from None
        return cls(height, width, batch)

    @property
    def characters(self) -> int:
        """Of a text: one in four frames."""
        return max(1, self.width // (4 * FRAME_WIDTH))

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.batch}"


class Step:
    """A training step on random lines, as ``train/fit.py`` makes it but for the switch."""

    def __init__(self, settings: RunSettings, switch: Switch, shape: Shape, device: torch.device) -> None:
        self._device, stage = device, settings.finetune
        self._switch = switch
        self._dtype = autocast_dtype(switch.precision, device)
        self._clip = stage.clip_norm
        torch.manual_seed(0)
        self.model = Recognizer(settings.model, settings.decoder, ALPHABET).to(device)
        self.model.train()
        if not switch.channels_last:
            self.model.to(memory_format=torch.contiguous_format)
            self.model.encoder.resnet.register_forward_pre_hook(_channels_first)
        if switch.compiled is not None:
            self.model.encoder.resnet.compile(mode=switch.compiled, dynamic=False)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-5, weight_decay=stage.weight_decay, fused=switch.fused
        )
        self._batches = [_batch(shape, device, switch.asking) for _ in range(BATCHES)]
        self._number = 0

    def __call__(self) -> None:
        batch = self._batches[self._number % BATCHES]
        self._number += 1
        with torch.autocast(self._device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None):
            loss = self.model(batch).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        bad = ~torch.isfinite(norm)
        if self._switch.asking:
            if bad:
                raise RuntimeError("the gradient is not finite")
        elif self._switch.fused:  # the other kind cannot look for itself
            self._optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        self._optimizer.step()


def _channels_first(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = given
    # An image of one channel is both at once for torch, and only its strides tell which one is meant.
    return (images.clone(memory_format=torch.contiguous_format), *rest)


def _batch(shape: Shape, device: torch.device, asking: bool) -> dict[str, torch.Tensor]:
    """Random lines, most of them a little narrower than the batch, as they are where like widths share one."""
    widths = torch.randint(int(0.95 * shape.width), shape.width + 1, (shape.batch,))
    widths[0] = shape.width
    found = {
        "images": torch.randint(0, 256, (shape.batch, 1, shape.height, shape.width), dtype=torch.uint8),
        "widths": widths,
        "targets": torch.randint(1, len(ALPHABET), (shape.batch, shape.characters)),
        "lengths": torch.full((shape.batch,), shape.characters),
    }
    there = found if asking else ("images", "targets")
    return {name: tensor.to(device) if name in there else tensor for name, tensor in found.items()}


def seconds(run: Callable[[], object], times: int, device: torch.device) -> float:
    """Of one call, over ``times`` of them: by the wall with the GPU waited for, or of CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    for _ in range(times):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - began) / times


def ceiling(dtype: torch.dtype, device: torch.device, size: int) -> dict[str, float]:
    """GFLOP/s of products of square matrices of ``size``: ``{"mm": ..., "1x1 convolution": ...}``."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    # [1, size, 1, size]: channels are one side of the product, columns the other.
    image = a.t()[None, :, None].contiguous(memory_format=torch.channels_last)
    kernel = b[:, :, None, None].contiguous(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], object]] = {
        "mm": lambda: torch.mm(a, b),
        "1x1 convolution": lambda: nn.functional.conv2d(image, kernel),
    }
    found = {}
    for name, run in runs.items():
        seconds(run, 2, device)
        found[name] = 2 * size**3 / statistics.median(seconds(run, 3, device) for _ in range(5)) / 1e9
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| lines | step | steps/s | lines/s | GFLOP/s | of the ceiling, % | over as trained | memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['shape']} | {row['switch']} | failed: {row['failed']} | | | | | |")
            continue
        ratio = f"{row['over_as_trained']:.2f}" if "over_as_trained" in row else ""
        lines.append(
            f"| {row['shape']} | {row['switch']} | {row['steps_per_second']:.2f} | {row['lines_per_second']:.0f} "
            f"| {row['gflops']:,.0f} | {100 * row['share']:.0f} | {ratio} "
            f"| {row.get('memory_mb', '')} |"
        )
    return "\n".join(lines)


def measure(
    settings: RunSettings, shape: Shape, switches: dict[str, Switch], device: torch.device, rounds: int, long: float
) -> list[dict[str, Any]]:
    """A row for each switch; ``long``: seconds that a round of one takes, about."""
    rows: dict[str, dict[str, Any]] = {name: {"shape": str(shape), "switch": name} for name in switches}
    steps: dict[str, Step] = {}
    times: dict[str, int] = {}
    for name, switch in switches.items():
        try:
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
                held = torch.cuda.memory_allocated(device)
            step = Step(settings, switch, shape, device)
            seconds(step, WARM, device)
            one = seconds(step, 1, device)
            if device.type == "cuda":
                rows[name]["memory_mb"] = (torch.cuda.max_memory_allocated(device) - held) // 2**20
            print(f"{shape}, {name}: {one:.3f} s a step, before the rounds", file=sys.stderr)
        except Exception as error:  # a compiler that is missing, a card that is too small: the others go on
            said = str(error).strip().partition("\n")[0]
            rows[name]["failed"] = f"{type(error).__name__}: {said[:120]}"
            continue
        steps[name], times[name] = step, max(1, round(long / one))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds):
        # Back and forth, so that a machine that slows down is no one's disadvantage.
        for name in sorted(steps, reverse=bool(number % 2)):
            found[name].append(seconds(steps[name], times[name], device))
    classes, length = len(ALPHABET), shape.characters
    part = cost(settings.model, settings.decoder, shape.height, shape.width, classes=classes, length=length)
    for name, measured in found.items():
        one = statistics.median(measured)
        rows[name] |= {
            "steps_per_second": 1 / one,
            "lines_per_second": shape.batch / one,
            "gflops": 3 * part.gflops * shape.batch / one,
            "spread": (max(measured) - min(measured)) / one,
        }
        if "as trained" in found:
            pairs = zip(found["as trained"], measured, strict=True)
            rows[name]["over_as_trained"] = statistics.median(a / b for a, b in pairs)
    return list(rows.values())


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What the benchmarks of a step are asked: rounds, a file, settings."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--json", type=Path)
    made.add_argument("settings", nargs="*", default=[], metavar="key=value")
    return made


def begin(given: argparse.Namespace) -> tuple[RunSettings, torch.device]:
    """The settings that were asked for, and the device: a GPU, or a CPU with one thread."""
    settings: RunSettings = load(RunSettings, overrides=given.settings, environment={})
    set_threads(1, 1)
    return settings, local_device()


def main() -> None:
    asked = arguments(__doc__)
    asked.add_argument("--shapes", type=Shape.of, nargs="+", default=[Shape.of("64x256x64"), Shape.of("64x1024x16")])
    asked.add_argument(
        "--switches",
        nargs="+",
        choices=list(SWITCHES),
        metavar="SWITCH",
        help=f"of {', '.join(SWITCHES)}; on a CPU without those of {', '.join(GPU_ONLY)}",
    )
    asked.add_argument("--seconds", type=float, default=3.0, help="how long a round of one switch takes, about")
    asked.add_argument("--matrix", type=int, help="rows of the ceiling's matrices (8192 on a GPU, 1024 on a CPU)")
    given = asked.parse_intermixed_args()
    settings, device = begin(given)
    chosen = given.switches or [name for name in SWITCHES if device.type == "cuda" or name not in GPU_ONLY]
    # "as trained" leads: the others are told as ratios to it.
    switches = {name: SWITCHES[name] for name in SWITCHES if name in chosen}
    size = given.matrix or (8192 if device.type == "cuda" else 1024)
    types = {switch.multiplies(device) for switch in switches.values()}
    ceilings = {dtype: ceiling(dtype, device, size) for dtype in types}
    rows: list[dict[str, Any]] = []
    for shape in given.shapes:
        rows += measure(settings, shape, switches, device, given.rounds, given.seconds)
    for row in rows:
        if "failed" not in row:
            row["share"] = row["gflops"] / max(ceilings[SWITCHES[row["switch"]].multiplies(device)].values())
    result = {
        "preset": settings.preset,
        "decoder": settings.decoder,
        "settings": given.settings,
        "ceiling_gflops": {str(dtype).removeprefix("torch."): found for dtype, found in ceilings.items()},
        "matrix": size,
        "rows": rows,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, one thread",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2))
    print(table(rows))


if __name__ == "__main__":
    main()
