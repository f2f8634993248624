"""How many of a stream's CPU workers are busy from an execution's start on: with tasks that sleep instead of decoding.

    python tests/benchmarks/stream_workers.py [--workers 8] [--tasks 32] [--seconds 0.3] [--rounds 3] [--json FILE]

The execution is that of ``htr_ray/stream/pipeline.py`` (of another checkout with ``PYTHONPATH=CHECKOUT``), on a Ray of
its own that claims a CPU for each worker, whatever the machine has. At the best, all tasks take ``tasks / workers *
seconds``. "busy" is the share of the workers that had a task within the first second.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from htr_ray.config import StreamSettings
from htr_ray.machine import cores
from htr_ray.stream.pipeline import _start


def execution(workers: int, tasks: int, seconds: float) -> dict[str, float]:
    """One execution: seconds to its first task and to its end, and how many workers were busy in its first second."""

    def sleep(item: pa.Table) -> pa.Table:
        began = time.time()
        time.sleep(seconds)
        return pa.table({"began": [began], "ended": [time.time()]})

    settings = StreamSettings(workers=workers)  # type: ignore[call-arg]
    asked = time.time()
    work = [{"number": number} for number in range(tasks)], tasks
    started = _start(work, make=sleep, settings=settings, placement="SPREAD", prefetch=4)
    assert started is not None
    spans = [(row["began"][0].as_py(), row["ended"][0].as_py()) for row in started[0]]
    end = time.time()
    first = min(began for began, _ in spans)
    busy = sum(max(0.0, min(ended, first + 1.0) - began) for began, ended in spans)
    return {"first task": first - asked, "all": end - asked, "busy": busy / workers}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--workers", type=int, default=8)
    asked.add_argument("--tasks", type=int, default=32)
    asked.add_argument("--seconds", type=float, default=0.3)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--json", type=Path)
    given = asked.parse_args()
    ray.init(
        address="local", num_cpus=given.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    found = [execution(given.workers, given.tasks, given.seconds) for _ in range(given.rounds + 1)]
    result: dict[str, Any] = {
        # In new processes, whose start it is most of.
        "first execution": {name: round(value, 2) for name, value in found[0].items()},
        "later ones": {name: round(statistics.median(one[name] for one in found[1:]), 2) for name in found[0]},
        "at the best": round(given.tasks / given.workers * given.seconds, 2),
        "asked": {name: getattr(given, name) for name in ("workers", "tasks", "seconds", "rounds")},
        "machine": f"{platform.processor() or platform.machine()}, {cores()} core(s)",
        "versions": {"ray": ray.__version__, "python": platform.python_version()},
    }
    print(json.dumps(result, indent=2))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
