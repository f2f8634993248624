"""Notes what happens when in the processes of a job: Ray loads it into every worker before that takes work.

    RAY_preload_python_modules=start_probe START_PROBE=FOLDER PYTHONPATH=tests/benchmarks ...

Every process appends to ``FOLDER/PID.jsonl``: ``what`` happened ``at`` (seconds since 1970), after so many seconds of
CPU time (``cpu``). Code of the project is not changed for it: functions are wrapped as their modules are imported.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# Module -> function (or class.method) -> what to note when it is called, and when it has returned.
CALLS: dict[str, dict[str, tuple[str | None, str | None]]] = {
    "htr_ray.sweep.searcher": {"GridSearcher.suggest": (None, "scheduled")},
    "htr_ray.sweep.callbacks": {"GridCallback.on_trial_result": ("told", None)},
    "htr_ray.train.single": {"run_single": ("scheduled", None)},
    "htr_ray.sweep.trainable": {"run_trial": ("called", None)},
    "htr_ray.train.launch": {"_worker_loop": ("called", None), "_open": ("opening", "opened")},
    "htr_ray.train.data": {"open_data": ("opening", "opened")},
    "htr_ray.train.finetune": {"build": ("building", "built")},
    "htr_ray.train.fit": {"to_tensors": ("batch", None)},
    "htr_ray.stream.pipeline": {"_make_batches": ("making", None)},
    "htr_ray.stream.batch": {"BatchMaker.__call__": (None, "made")},
}
# Packages whose import is timed, those that they import in turn included.
PACKAGES = ("torch", "ray.data", "ray.tune", "ray.train", "pandas", "mlflow", "matplotlib", "cv2")
# Noted once for each trial: these repeat with every batch or report.
ONCE = {"batch", "step", "told", "making", "made"}


class Notes:
    def __init__(self, folder: str) -> None:
        self._file = (Path(folder) / f"{os.getpid()}.jsonl").open("a", buffering=1)
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def add(self, what: str, at: float | None = None) -> None:
        with self._lock:
            if what in ("called", "scheduled"):  # the next trial of the process
                self._seen.clear()
            if what in ONCE and what in self._seen:
                return
            self._seen.add(what)
            entry = {"pid": os.getpid(), "what": what, "at": at or time.time(), "cpu": time.process_time()}
            self._file.write(json.dumps(entry) + "\n")


class Watch:
    """A finder of modules that leaves the finding to others and adds its wrappers to what they found."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._busy: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if (name not in CALLS and name not in PACKAGES) or name in self._busy:
            return None
        self._busy.add(name)
        try:
            for finder in sys.meta_path:
                if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                    if spec.loader is not None:
                        spec.loader.exec_module = functools.partial(self._run, spec.loader.exec_module)
                    return spec
        finally:
            self._busy.discard(name)
        return None

    def _run(self, real: Callable[[ModuleType], None], module: ModuleType) -> None:
        name = module.__name__
        if name in PACKAGES:
            self._notes.add(f"import {name}")
        real(module)
        if name in PACKAGES:
            self._notes.add(f"imported {name}")
        if name == "torch":
            from torch.optim.optimizer import register_optimizer_step_post_hook

            register_optimizer_step_post_hook(lambda *_: self._notes.add("step"))
        for function, (before, after) in CALLS.get(name, {}).items():
            place, _, attribute = function.rpartition(".")
            owner = getattr(module, place) if place else module
            if not hasattr(owner, attribute):  # another version of the project
                continue
            setattr(owner, attribute, self._wrapped(getattr(owner, attribute), before, after))

    def _wrapped(self, real: Any, before: str | None, after: str | None) -> Any:
        notes = self._notes

        @functools.wraps(real)
        def call(*args: Any, **named: Any) -> Any:
            if before is not None:
                notes.add(before)
            found = real(*args, **named)
            if after is not None and (after != "scheduled" or isinstance(found, dict)):
                notes.add(after)
            return found

        return call


def born() -> float:
    """When this process was started, seconds since 1970, to a hundredth."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def watch(folder: str) -> None:
    notes = Notes(folder)
    notes.add("born", born())
    notes.add("ready")
    sys.meta_path.insert(0, Watch(notes))  # type: ignore[arg-type]


if "START_PROBE" in os.environ:
    watch(os.environ["START_PROBE"])
