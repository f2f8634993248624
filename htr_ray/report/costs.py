"""What one trial of a cell takes, pre-training included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from htr_ray.report.cells import NONE, Cells, Place
from htr_ray.report.gains import Pretraining
from htr_ray.report.means import gpu_hours, mean


@dataclass(frozen=True)
class Cost:
    """What one trial of a cell takes, means over seeds."""

    place: Place
    pretext: str
    pretrain_minutes: float | None
    """Of its encoder, which other cells share; 0 from scratch."""
    finetune_minutes: float | None
    gpu_hours: float | None
    """Both stages; 0 on CPUs, None where it was not recorded."""
    parameters: float | None
    gflops: float | None

    @property
    def minutes(self) -> float | None:
        if self.pretrain_minutes is None or self.finetune_minutes is None:
            return None
        return self.pretrain_minutes + self.finetune_minutes


def costs_of(cells: Cells, pretrainings: Sequence[Pretraining]) -> list[Cost]:
    """Of every cell with a finished trial."""
    encoders = {(made.corpus, made.pretext): made for made in pretrainings}
    costs = []
    for (place, pretext), cell in cells.items():
        if not cell.done:
            continue
        encoder = encoders.get((place.corpus, pretext))
        scratch = pretext == NONE
        shares = [gpu_hours(cell.done), 0.0 if scratch else encoder.gpu_hours if encoder else None]
        costs.append(
            Cost(
                place,
                pretext,
                pretrain_minutes=0.0 if scratch else encoder.minutes if encoder else None,
                finetune_minutes=mean(trial.result.get("minutes") for trial in cell.done),
                gpu_hours=None if None in shares else sum(share or 0.0 for share in shares),
                parameters=mean(trial.result.get("parameters") for trial in cell.done),
                gflops=mean(trial.result.get("gflops") for trial in cell.done),
            )
        )
    return costs
