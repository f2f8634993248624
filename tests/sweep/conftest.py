"""Grids for the tests: settings from overrides."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from htr_ray.config import GridSettings, load


@pytest.fixture(scope="session")
def grid() -> Callable[..., GridSettings]:
    """``grid("seeds=[0,1]", ...)``: validated settings, whatever the environment holds."""

    def make(*overrides: str) -> GridSettings:
        return load(GridSettings, overrides=overrides, environment={})

    return make
