"""Where the files of cluster/ are."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster(repository: Path) -> Path:
    """The folder cluster/."""
    return repository / "cluster"
