"""The Python versions that pyproject.toml and README name are ones that every pinned package installs on."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def test_pinned_packages_install_on_every_python_that_is_named() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    versions = [f"3.{minor}" for minor in range(30) if SpecifierSet(asked).contains(f"3.{minor}.8")]
    assert f"Python {versions[0]} to {versions[-1]}." in (ROOT / "README.md").read_text()
    pinned = {canonicalize_name(name) for name in re.findall(r"^(\S+)==", (ROOT / "constraints.txt").read_text(), re.M)}
    needs = {
        canonicalize_name(found.name): found.metadata["Requires-Python"]
        for found in distributions()
        if canonicalize_name(found.name) in pinned and "Requires-Python" in found.metadata
    }
    assert "numpy" in needs
    refusing = {
        name: need
        for name, need in needs.items()
        if not all(SpecifierSet(need).contains(f"{version}.8") for version in versions)
    }
    assert refusing == {}
