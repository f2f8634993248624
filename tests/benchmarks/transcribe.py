"""Reading many lines: how fast, and in how much memory.

    python tests/benchmarks/transcribe.py MODEL CORPUS [SPLIT ...] [-- key=value ...]

Runs jobs/transcribe.py on a corpus (or pages, or images) in a process of its own, watches the memory of its process
tree twice a second, and prints one JSON object. Seconds of wall clock depend on who else uses the machine; seconds
of CPU hardly do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

JOB = Path(__file__).resolve().parents[2] / "jobs" / "transcribe.py"


def private(process: psutil.Process) -> float:
    """Memory of a process in MB, without what it shares with others (libraries, the object store)."""
    memory = process.memory_info()
    return (memory.rss - memory.shared) / 1e6


def watch(command: list[str]) -> tuple[list[dict[str, float]], float]:
    """Run a command; memory over time, and CPU seconds of all its processes."""
    process = psutil.Popen(command, env={**os.environ, "RAY_ADDRESS": "local"})
    began = time.monotonic()
    curve: list[dict[str, float]] = []
    cpu: dict[int, float] = {}
    while process.poll() is None:
        point = {"seconds": time.monotonic() - began, "job": 0.0, "readers": 0.0}
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.Error:
            break
        for one in family:
            try:
                times = one.cpu_times()
                cpu[one.pid] = times.user + times.system
                name = " ".join(one.cmdline()[:1])
                if one.pid == process.pid:
                    point["job"] += private(one)
                elif name.startswith("ray::"):
                    point["readers"] = max(point["readers"], private(one))
            except psutil.Error:
                continue
        curve.append({key: round(value) for key, value in point.items()})
        time.sleep(0.5)
    if process.wait() != 0:
        sys.exit(f"the job failed: {process.returncode}")
    return curve, sum(cpu.values())


def main() -> None:
    arguments, settings = sys.argv[1:], []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, settings = arguments[:cut], arguments[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("splits", nargs="*")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="htr-ray-read-") as folder:
        command = [sys.executable, str(JOB), "--model", asked.model, "--input", asked.input]
        command += ["--output", f"{folder}/out", "--json", f"{folder}/told.json"]
        command += [word for split in asked.splits for word in ("--split", split)] + settings
        curve, cpu = watch(command)
        told = json.loads(Path(f"{folder}/told.json").read_text())
    result = told["result"]
    print(
        json.dumps(
            {
                "lines": result["read"],
                "cer": result.get("cer"),
                "seconds": round(told["seconds"], 1),
                "lines_per_second": result["lines_per_second"],
                "cpu_seconds": round(cpu, 1),
                "lines_per_cpu_second": round(result["read"] / cpu, 1),
                "peak_mb_of_the_job": max(point["job"] for point in curve),
                "peak_mb_of_one_reader": max(point["readers"] for point in curve),
                "load": os.getloadavg()[0],
                "curve": curve[:: max(1, len(curve) // 10)],
            }
        )
    )


if __name__ == "__main__":
    main()
