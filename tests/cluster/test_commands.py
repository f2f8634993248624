"""Every command line of the documentation that calls our jobs is one that the job accepts."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from htr_ray import config
from htr_ray.sweep.cells import expand
from htr_ray.sweep.resources import check, need
from htr_ray.train.nodes import Node

ROOT = Path(__file__).resolve().parents[2]
# What the reader puts in place of a variable.
EXAMPLES = {"BUCKET": "my-bucket", "HOME": "/home/me", "PWD": "/home/me/htr-ray"}
JOB = re.compile(r"(?:\S*/)?jobs/(\w+)\.py")


class Parsed(Exception):
    """Carries the arguments as the job's own parser read them."""

    def __init__(self, namespace: argparse.Namespace) -> None:
        self.namespace = namespace


# What each way of the documentation has when its grid starts, without any GPU. Kubernetes and cloud VMs: a head alone.
NODES = {
    "One machine": [Node(8)],
    "Docker compose": [Node(0), Node(4), Node(4), Node(4)],
    "Kubernetes": [Node(0)],
    "rayjob.yaml": [Node(0)],
    "Cloud VMs": [Node(0)],
    "Slurm": [Node(16), Node(16)],
    "slurm.sh": [Node(16), Node(16)],
}


def commands_of_markdown(text: str) -> list[str]:
    """Command lines of the fenced shell blocks, with continuation lines joined."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def job_call(line: str) -> tuple[str, list[str]] | None:
    """``(job, arguments)`` of a command line that calls one of jobs/, else None."""
    line = re.sub(r"\$\{?([A-Z_]+)\}?", lambda match: EXAMPLES.get(match[1], match[0]), line)
    words = shlex.split(line, comments=True)
    for place, word in enumerate(words):
        match = JOB.fullmatch(word)
        if match and place and words[place - 1] == "python":
            arguments = []
            for item in words[place + 1 :]:
                if item in ("&&", ";", "|", ">", "2>&1", "&"):
                    break
                arguments.append(item)
            return match[1], arguments
    return None


def documented() -> list[tuple[str, str, list[str]]]:
    """``(place, job, arguments)``; places in README.md are its sections."""
    sections = re.split(r"^## ", (ROOT / "cluster" / "README.md").read_text(), flags=re.MULTILINE)
    sources = {section.partition("\n")[0]: commands_of_markdown(section) for section in sections}
    job = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "rayjob" / "rayjob.yaml").read_text())
    sources["rayjob.yaml"] = [job["spec"]["entrypoint"]]
    for name in ("slurm.sh", "compose.yaml"):
        text = (ROOT / "cluster" / name).read_text()
        lines = text.replace("\\\n#", "").splitlines()
        sources[name] = [line.lstrip("# ") for line in lines if "sbatch cluster" in line]
    found = []
    for source, lines in sources.items():
        for line in lines:
            line = line.replace("sbatch cluster/slurm.sh", "python jobs/full_grid.py")
            call = job_call(line)
            if call:
                found.append((source, *call))
    return found


CALLS = documented()


def parse(job: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Run the job up to the point where its own parser has read the arguments."""
    original = argparse.ArgumentParser.parse_known_intermixed_args

    def stop(self: argparse.ArgumentParser, args: object = None, namespace: object = None) -> object:
        result, rest = original(self, args, namespace)  # type: ignore[arg-type]
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed(result)

    path = ROOT / "jobs" / f"{job}.py"
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop)
    with pytest.raises(Parsed) as parsed:
        runpy.run_path(str(path), run_name="__main__")
    return parsed.value.namespace


def test_the_documentation_calls_the_jobs() -> None:
    jobs = {(source, job) for source, job, _ in CALLS}
    assert {(place, "full_grid") for place in NODES} <= jobs
    assert {(place, "prepare_data") for place in ("One machine", "Docker compose", "Kubernetes", "Cloud VMs")} <= jobs
    assert len(CALLS) >= 8


@pytest.mark.parametrize(
    ("source", "job", "arguments"),
    CALLS,
    ids=[f"{source}:{place}:{job}" for place, (source, job, _) in enumerate(CALLS)],
)
def test_the_job_accepts_its_arguments(
    source: str, job: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / "jobs" / f"{job}.py").exists():
        pytest.skip(f"jobs/{job}.py is not there yet")
    parse(job, arguments, monkeypatch)


def settings_of(arguments: list[str]) -> config.GridSettings:
    file = arguments[arguments.index("--config") + 1] if "--config" in arguments else None
    if file is not None:
        # /etc/htr-ray/grid.yaml is cluster/grid.yaml as a ConfigMap.
        assert Path(file).name == "grid.yaml"
        file = str(ROOT / "cluster" / "grid.yaml")
    overrides = [word for word in arguments if re.match(r"[A-Za-z_][\w.]*=", word)]
    return config.load(config.GridSettings, file=file, overrides=overrides, environment={})


GRIDS = [(source, arguments) for source, job, arguments in CALLS if job == "full_grid"]


@pytest.mark.parametrize(
    ("source", "arguments"), GRIDS, ids=[f"{source}:{place}" for place, (source, _) in enumerate(GRIDS)]
)
def test_the_settings_are_valid(source: str, arguments: list[str]) -> None:
    settings_of(arguments)


@pytest.mark.parametrize(
    ("source", "arguments"),
    [(source, arguments) for source, arguments in GRIDS if source in NODES and "--config" in arguments],
)
def test_the_grid_starts_on_the_nodes_that_there_are(source: str, arguments: list[str]) -> None:
    settings, nodes = settings_of(arguments), NODES[source]
    if settings.max_concurrent is None:
        check(expand(settings), nodes)
    else:
        # Nodes are still to come, so what they need has to be said: what Ray has tells nothing.
        assert {need(trial, 0).gpus for trial in expand(settings)} == {1, 0.25}


def test_the_grid_of_the_paper() -> None:
    grid = config.load(config.GridSettings, file=ROOT / "cluster" / "grid.yaml", environment={})
    assert grid.preset == "paper"
    assert len(grid.pretexts) == 5 and len(grid.decoders) == 2
    assert len(grid.label_fractions) == 3 and len(grid.seeds) == 3
    encoders = len([name for name in grid.pretexts if name != "none"]) * len(grid.seeds)
    cells = len(grid.pretexts) * len(grid.decoders) * len(grid.label_fractions) * len(grid.seeds)
    text = (ROOT / "cluster" / "grid.yaml").read_text()
    assert f"{encoders} encoders and {cells} recognizers" in text


def test_its_services_are_those_of_compose_and_kubernetes() -> None:
    grid = config.load(config.GridSettings, file=ROOT / "cluster" / "grid.yaml", environment={})
    compose = yaml.safe_load((ROOT / "cluster" / "compose.yaml").read_text())["services"]
    environment = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "services" / "environment.yaml").read_text())[
        "data"
    ]
    buckets = set(compose["buckets"]["command"]) & {"corpora", "runs", "mlflow"}
    assert {uri.removeprefix("s3://").split("/")[0] for uri in [grid.storage, *grid.corpora]} <= buckets
    for known in (compose["worker"]["environment"], environment):
        assert known["MLFLOW_TRACKING_URI"] == grid.tracking_uri == "http://mlflow:5000"
        assert known["AWS_ENDPOINT_URL"] == "http://s3:8333"


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "cluster" / "README.md").read_text()
    text = re.sub(r"https?://\S+", "", text)
    for name in set(re.findall(r"\bcluster/[\w./-]*\w", text)) - {"cluster/.env"}:
        assert (ROOT / name).exists(), name
