"""A team's MLflow: 4 drivers with 25 trials each log at once, the server is killed for a minute; then all is counted.

    python tests/benchmarks/team_server.py [--drivers 4] [--trials 25] [--epochs 20] [--away 60] [--out FILE.md]

PostgreSQL (a real one, in a temporary folder), an S3 server (moto), an MLflow server with four workers that keeps
artifacts in S3, and drivers as processes of their own. Exits with an error when anything is lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "track"))

from team_services import audit, outage, postgres_programs, start_driver, team_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=25, help="of each driver, all at once")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="that an epoch takes")
    parser.add_argument("--every", type=int, default=5, help="one trial in so many logs a model")
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the server is away")
    parser.add_argument("--out", type=Path, help="Markdown file for the figures")
    asked = parser.parse_args()
    programs = postgres_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (apt-get install postgresql)")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    grids = [f"team-{number}" for number in range(asked.drivers)]
    with tempfile.TemporaryDirectory(prefix="htr-ray-team-") as name, team_server(Path(name), programs) as services:
        server, endpoint = services
        folder = Path(name)
        how = {key: getattr(asked, key) for key in ("trials", "epochs", "seconds", "every")}
        began = time.monotonic()
        drivers = [start_driver(server.uri, grid, folder, **how) for grid in grids]
        # Killed when half of the trials are known to it, and all drivers are in the midst of logging.
        killer = threading.Thread(target=outage, args=(server, asked.drivers * asked.trials // 2, asked.away))
        if asked.away:
            killer.start()
        lost: list[str] = []
        for grid, driver in zip(grids, drivers, strict=True):
            told = driver.communicate()[0]
            if driver.returncode:
                raise SystemExit(f"driver {grid} failed:\n{(folder / f'{grid}.log').read_text()[-3000:]}")
            lost += json.loads(told.strip().splitlines()[-1])
        if asked.away:
            killer.join()
        seconds = time.monotonic() - began
        told = [(folder / f"{grid}.log").read_text() for grid in grids]
        counts = audit(server.uri, endpoint, grids, asked.trials, asked.epochs, asked.every)
    noticed = sum("MLflow is away" in text and "MLflow is back" in text for text in told)
    figures = {
        "drivers x trials": f"{asked.drivers} x {asked.trials}, each trial in a thread of its own",
        "server killed (SIGKILL) for": f"{asked.away:g} s; {noticed} of {asked.drivers} drivers had to wait for it",
        "runs, each once": counts["runs"],
        "metric points, each once": f"{counts['points']:,}",
        "objects in S3": f"{counts['files']:,}",
        "models, READY, each once": counts["models"],
        "registered versions": counts["versions"],
        "entries that a driver gave up": len(lost),
        "seconds from the first driver's start to the last one's end": f"{seconds:.0f}",
    }
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {words} | {value} |" for words, value in figures.items())])
    print(table)
    if asked.out:
        asked.out.write_text(f"{asked.out.read_text().partition('| | |')[0] if asked.out.exists() else ''}{table}\n")
    if lost:
        raise SystemExit("lost: " + "; ".join(lost))


if __name__ == "__main__":
    main()
