"""What a finished trial leaves for MLflow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from htr_ray.track.files import File


@dataclass(frozen=True, kw_only=True)
class Ending:
    """All that is logged when a trial has finished."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Its results, logged at the last epoch's step."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Facts of the trial that are known at its end only, for MLflow's columns and search."""
    history: Sequence[tuple[int, Mapping[str, float]]] = ()
    """Metrics by epoch; what MLflow has of them already is not logged again."""
    files: Mapping[str, File] = field(default_factory=dict)
    """Artifact path -> content (bytes, text) or a local file or folder (Path)."""
    model_dir: Path | str | None = None
    """Folder written by ``save_recognizer`` or ``save_encoder``: a local one (Path) or a URI (str)."""
    note: str = ""
    """Markdown, the description of its run."""
    complete: bool = True
    """False: something could not be made; the next run of the grid tries again."""


class Later:
    """An ending that is read when it is needed, in the thread that logs, and once."""

    def __init__(self, load: Callable[[], Ending]) -> None:
        self._load = load
        self._ending: Ending | None = None
        self._lock = threading.Lock()

    def get(self) -> Ending:
        """The ending; raises what reading it raises, and reads again the next time."""
        with self._lock:
            if self._ending is None:
                self._ending = self._load()
            return self._ending

    def forget(self) -> None:
        """Free its memory; the next :meth:`get` reads it again."""
        with self._lock:
            self._ending = None
