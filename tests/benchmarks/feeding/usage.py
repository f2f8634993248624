"""CPU time and memory of a whole tree of processes, Ray's included, by control groups (v1)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
VARIABLE = "FEEDING_GROUP"
SAMPLE_SECONDS = 0.25


class Group:
    """A control group for one contender; the process that is started in it hands it on to its children."""

    def __init__(self, name: str) -> None:
        self.name = f"{name}-{os.getpid()}"
        self.folders = [ROOT / kind / self.name for kind in ("cpuacct", "memory")]
        for folder in self.folders:
            folder.mkdir()
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def enter(self) -> None:
        """For ``preexec_fn``: what is started belongs to the group."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, memory(self.name))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for folder in self.folders:
            for _ in range(50):  # a process that ends lingers for a moment
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.1)


def memory(name: str) -> int:
    """Bytes in use: anonymous memory and shared memory (the object store); not the kernel's cache of files."""
    with (ROOT / "memory" / name / "memory.stat").open() as lines:
        stat = dict(line.split() for line in lines)
    return int(stat["total_rss"]) + int(stat["total_shmem"])


def cpu_seconds() -> float:
    """CPU time of the group of this process so far."""
    return int((ROOT / "cpuacct" / os.environ[VARIABLE] / "cpuacct.usage").read_text()) / 1e9


def memory_now() -> int:
    return memory(os.environ[VARIABLE])
