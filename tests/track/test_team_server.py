"""Server mode: several drivers log at once to MLflow on PostgreSQL and S3, and the server is killed meanwhile.

The whole of it, a hundred trials and a minute, is ``tests/benchmarks/team_server.py``.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from team_services import audit, outage, postgres_programs, start_driver, team_server

DRIVERS, TRIALS, EPOCHS, EVERY = 2, 6, 6, 6
AWAY = float(os.environ.get("HTR_RAY_TEST_OUTAGE_SECONDS", "3"))


def test_drivers_of_a_team_lose_and_double_nothing(tmp_path: Path) -> None:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here (apt-get install postgresql)")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    grids = [f"team-{number}" for number in range(DRIVERS)]
    with team_server(tmp_path, programs, workers=2) as (server, endpoint):
        how = {"trials": TRIALS, "epochs": EPOCHS, "seconds": 0.5, "every": EVERY}
        drivers = [start_driver(server.uri, grid, tmp_path, **how) for grid in grids]
        outage(server, TRIALS // 2, AWAY)
        for grid, driver in zip(grids, drivers, strict=True):
            told = driver.communicate()[0]
            assert driver.returncode == 0, (tmp_path / f"{grid}.log").read_text()[-3000:]
            assert json.loads(told.strip().splitlines()[-1]) == []
        counts = audit(server.uri, endpoint, grids, TRIALS, EPOCHS, EVERY)
    assert counts["runs"] == DRIVERS * (TRIALS + 1) and counts["models"] == DRIVERS
    assert any("MLflow is away" in (tmp_path / f"{grid}.log").read_text() for grid in grids)
