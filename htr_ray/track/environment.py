"""What a grid ran on: versions, machine and cluster, so that a result can be made again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import htr_ray

PACKAGES = ("htr-ray", "torch", "ray", "mlflow", "numpy", "pyarrow", "opencv-python-headless", "safetensors")


def environment(cluster: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Versions and machine of this process, and the resources of each node of the Ray cluster (``cluster``)."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None,
        "system": platform.platform(),
        "machine": {
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": gpus,
        },
        "cluster": [dict(node) for node in cluster],
    }


def environment_digest(found: Mapping[str, Any]) -> str:
    """Short name of an environment: the same for the same versions and machine."""
    return hashlib.blake2b(json.dumps(found, sort_keys=True).encode(), digest_size=4).hexdigest()


def revision() -> str | None:
    """Git commit of this code, with ``-dirty`` where it was changed since; None outside a checkout."""
    package = Path(htr_ray.__file__).resolve()
    try:
        ours = subprocess.run(
            ["git", "-C", str(package.parent), "ls-files", "--error-unmatch", str(package)],
            capture_output=True,
            timeout=20,
        )
        if ours.returncode:  # installed into an environment that lies in another project's checkout
            return None
        told = subprocess.run(
            ["git", "-C", str(package.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or a file system that does not answer
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None


def requirements() -> str:
    """Every installed distribution as ``pip freeze`` would list it, read without pip; ``pip install -r`` takes it."""
    lines = {}
    for found in metadata.distributions():
        name = found.metadata["Name"]
        if name is None:  # what a half removed package leaves behind
            continue
        lines[name.lower()] = _requirement(name, found)
    # Builds of torch for one kind of hardware are not on PyPI.
    build = (_version("torch") or "").partition("+")[2]
    index = f"--extra-index-url https://download.pytorch.org/whl/{build}\n" if build else ""
    return index + "".join(f"{lines[name]}\n" for name in sorted(lines))


def command() -> str:
    """The command line of this process, as a person would type it again."""
    words = [sys.argv[0] or "python", *sys.argv[1:]]
    return shlex.join(["python", *words] if words[0].endswith(".py") else words)


def _requirement(name: str, found: metadata.Distribution) -> str:
    """``name==version``, or where it was installed from when that was not an index (PEP 610)."""
    told = found.read_text("direct_url.json")
    if told:
        place = json.loads(told)
        if "vcs_info" in place:
            return f"{name} @ {place['vcs_info']['vcs']}+{place['url']}@{place['vcs_info']['commit_id']}"
        if place.get("dir_info", {}).get("editable"):
            return f"# editable: {name}=={found.version}"
    return f"{name}=={found.version}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The CPU's name; Linux keeps it where the platform module does not look."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
