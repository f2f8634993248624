"""How far is a grid? The board of a grid that runs, has finished or was interrupted, from any shell or machine.

    python jobs/status.py dhsd-ssl                              the grid dhsd-ssl under ./runs, once
    python jobs/status.py dhsd-ssl --watch                      the same, live until its driver ends
    python jobs/status.py dhsd-ssl storage=s3://bucket/runs     kept elsewhere
    python jobs/status.py s3://bucket/runs/dhsd-ssl             by the URI of its folder
    python jobs/status.py dhsd-ssl --json out.json              counts, ETA and failures for scripts

Cells as a matrix (a sign per seed: waiting, training with epoch and validation CER, done with test CER, failed), what
the grid waits for, CPUs and GPUs in use, faults, time gone and time left. The driver (jobs/full_grid.py) writes all
this to progress.json in the grid's folder every ten seconds, so nothing is asked of Ray or of the driver. When that
file is old, the driver is gone: the same full_grid.py command again continues the grid.
"""

from __future__ import annotations

import sys

import _root  # noqa: F401

from htr_ray.cli import grid_parser, main, storage_of

if __name__ == "__main__":
    made = grid_parser(__doc__ or "")
    made.add_argument("--watch", action="store_true", help="stay, and show what changes until the driver ends")
    asked = made.parse_intermixed_args()

    def run() -> dict:
        import time

        from rich.console import Console

        from htr_ray.sweep import status

        place = storage_of(asked)
        console = Console()
        if asked.watch:
            seen = status.watch(lambda: status.status_of(asked.name, place), console)
        else:
            seen = status.status_of(asked.name, place)
            status.show(seen, console)
        return status.summary(seen, time.time())

    sys.exit(main(run, asked))
