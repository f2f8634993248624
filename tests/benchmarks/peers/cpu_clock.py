"""CPU seconds of a command and of all that it starts, and an end to it when they are spent.

The clock is a control group of Linux (cgroup v1, controller cpuacct), which a process cannot leave by forking: workers
of a data loader count, and so does a Ray that was started inside. Whoever runs this must be able to make such a group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/cpuacct")
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Spent:
    """What a command cost."""

    cpu_seconds: float
    """Of all its processes, user and system, until it ended or was told to."""
    wall_seconds: float
    exit_code: int | None
    """None: it was stopped because its budget was spent."""


class CpuClock:
    """A control group; use as a context, and run commands in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def seconds(self) -> float:
        """CPU seconds of everything that ran in it so far."""
        return int((self._folder / "cpuacct.usage").read_text()) / 1e9

    def run(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        budget: float | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> Spent:
        """Run ``command`` until it ends or has used ``budget`` CPU seconds; its output goes to ``log``.

        ``watch`` is called with the CPU seconds so far, about twice a second and once more at the end.
        """
        began, wall = self.seconds, time.monotonic()
        entry = self._folder / "cgroup.procs"
        with log.open("wb") as output:
            process = subprocess.Popen(
                # The shell joins the group before it becomes the command, so that nothing is missed.
                ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(entry), *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=cwd,
            )
            code: int | None = None
            spent = 0.0
            try:
                while code is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = process.wait(0.5)
                    spent = self.seconds - began
                    if watch is not None:
                        watch(spent)
                    if code is None and budget is not None and spent >= budget:
                        break
                duration = time.monotonic() - wall
            finally:
                self._end(process)
        return Spent(spent, duration, code)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the command to end, then make whatever is left in the group."""
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        for _ in range(100):
            left = [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.1)
        process.wait()


@contextlib.contextmanager
def cpu_clock() -> Iterator[CpuClock]:
    """A clock in a control group of its own, which is removed afterwards. Raises SystemExit where none can be made."""
    if not os.access(ROOT, os.W_OK):
        raise SystemExit(
            f"{ROOT}: not there or not writable; CPU time is counted by cgroup v1 (run as root, or mount it)"
        )
    folder = Path(tempfile.mkdtemp(prefix="htr-ray-peers-", dir=ROOT))
    try:
        yield CpuClock(folder)
    finally:
        folder.rmdir()
