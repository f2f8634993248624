"""How fast each convolution of the encoder runs: forward, gradient of its input, gradient of its weights.

    python tests/benchmarks/convolutions.py [--shape 32x272x8] [--rounds 5] [--json FILE] [key=value ...]

Each convolution is taken out of a training step (:mod:`step_ceiling`) with the maps that it is given there, in their
layout, and run by itself, in float32 on one core or, on a GPU, in bfloat16. Medians of the rounds, in milliseconds and
GFLOP/s, the same operations being counted for all three. Run by itself it finds its maps in the cache more often than
within a step.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from step_ceiling import Shape, Step, Switch, arguments, begin, seconds
from torch import nn

REPEATS = 10


@dataclass(frozen=True)
class Timed:
    """A convolution: its name in the ResNet, what it maps to what, 10^9 operations, and milliseconds of each part."""

    name: str
    maps: str
    gflop: float
    forward: float
    by_input: float | None
    by_weights: float


def timed(name: str, conv: nn.Conv2d, given: torch.Tensor, device: torch.device, rounds: int) -> Timed:
    """``given``: [B, inputs, H, W], as the convolution was given it. The first one's input needs no gradient."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    x, weight = given.to(dtype), conv.weight.detach().to(dtype)
    how = (conv.stride, conv.padding, conv.dilation)
    y = nn.functional.conv2d(x, weight, None, *how)
    gradient = torch.randn_like(y)

    def backward(by_input: bool, by_weights: bool) -> Any:
        return torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *how, False, (0, 0), 1, [by_input, by_weights, False]
        )

    def median(run: Any) -> float:
        seconds(run, 3, device)
        return 1e3 * statistics.median(seconds(run, REPEATS, device) for _ in range(rounds))

    return Timed(
        name=name,
        maps=f"{x.shape[1]} -> {y.shape[1]}, {y.shape[2]}x{y.shape[3]}",
        gflop=2 * y.numel() * weight[0].numel() / 1e9,
        forward=median(lambda: nn.functional.conv2d(x, weight, None, *how)),
        by_input=median(lambda: backward(True, False)) if conv.in_channels > 1 else None,
        by_weights=median(lambda: backward(False, True)),
    )


def every(step: Step, device: torch.device, rounds: int) -> list[Timed]:
    """All convolutions of the step's encoder, from the image on."""
    given: dict[str, tuple[nn.Conv2d, torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda conv, maps, name=name: given.update({name: (conv, maps[0].detach())}))
        for name, module in step.model.encoder.resnet.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    step()
    for hook in hooks:
        hook.remove()
    return [timed(name, conv, maps, device, rounds) for name, (conv, maps) in given.items()]


def table(rows: list[Timed]) -> str:
    def cell(ms: float | None, gflop: float) -> str:
        return "" if ms is None else f"{ms:.2f} ms, {gflop / ms * 1e3:,.0f}"

    lines = ["| convolution | maps | GFLOP | forward | by its input | by its weights |", "|---|---|---|---|---|---|"]
    for row in rows:
        parts = [cell(ms, row.gflop) for ms in (row.forward, row.by_input, row.by_weights)]
        lines.append(f"| {row.name} | {row.maps} | {row.gflop:.3f} | {' | '.join(parts)} |")
    gflop = sum(row.gflop for row in rows)
    inner = sum(row.gflop for row in rows if row.by_input is not None)
    parts = [
        cell(sum(row.forward for row in rows), gflop),
        cell(sum(row.by_input or 0.0 for row in rows), inner),
        cell(sum(row.by_weights for row in rows), gflop),
    ]
    return "\n".join([*lines, f"| all | | {gflop:.3f} | {' | '.join(parts)} |"])


def main() -> None:
    asked = arguments(__doc__)
    asked.add_argument("--shape", type=Shape.of, default=Shape.of("32x272x8"), help="HEIGHTxWIDTHxBATCH")
    given = asked.parse_intermixed_args()
    settings, device = begin(given)
    rows = every(Step(settings, Switch(), given.shape, device), device, given.rounds)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(f"{given.shape}, {settings.preset}, milliseconds and GFLOP/s\n\n{table(rows)}")


if __name__ == "__main__":
    main()
