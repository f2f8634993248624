"""Run the whole grid: pre-train every encoder once, fine-tune every cell, test, compare.

    python jobs/full_grid.py                                   the embedded sample corpus, minutes on a laptop
    python jobs/full_grid.py --dry-run corpora=[URI] preset=small
                                                               what would run, on what, for how long
    python jobs/full_grid.py --config grid.yaml seeds=[0,1,2]  settings from a file, some overridden
    python jobs/full_grid.py --resume NAME --max-hours 12      go on with a grid, for half a day at the most
    python jobs/full_grid.py "search.finetune={finetune.learning_rate: [0.001, 0.002, 0.005]}"
    ray job submit --working-dir . -- python jobs/full_grid.py --config cluster/grid.yaml

The same command again continues an interrupted grid: finished trials are kept, others go on
from their last checkpoint, newly asked cells are added. Results: a table here, MLflow runs,
and checkpoints under storage/name. Settings are layered: preset < --config < HTR_RAY_...
environment (HTR_RAY_FINETUNE__MAX_EPOCHS=50) < key=value.
"""

from __future__ import annotations

import sys

import _root  # noqa: F401

from htr_ray.cli import main, parser
from htr_ray.config import BudgetSettings, GridSettings, load

if __name__ == "__main__":
    made = parser(__doc__ or "", GridSettings)
    made.add_argument("--dry-run", action="store_true", help="print the plan (trials, resources, time) and stop")
    made.add_argument("--resume", metavar="NAME", help="continue the grid NAME with the settings it was started with")
    for name, field in BudgetSettings.model_fields.items():
        unit = "PRICE" if name in ("max_cost", "gpu_hour_price") else "HOURS"
        flag = f"--{name.replace('_', '-')}"
        made.add_argument(flag, type=float, metavar=unit, help=f"budget.{name}: {field.description}")
    asked = made.parse_intermixed_args()
    # Last, so that they win.
    asked.settings += [
        f"budget.{name}={value}" for name in BudgetSettings.model_fields if (value := getattr(asked, name)) is not None
    ]

    def run() -> dict:
        from htr_ray.sweep.run import load_settings, run_grid

        base = None
        if asked.resume:
            place = load(GridSettings, file=asked.config, overrides=asked.settings).storage
            base = load_settings(asked.resume, place).model_dump(mode="json")
        return run_grid(
            load(GridSettings, file=asked.config, overrides=asked.settings, base=base), dry_run=asked.dry_run
        )

    sys.exit(main(run, asked))
