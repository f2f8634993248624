"""A small real grid, where it keeps its files, and what must be true of it in the end whatever happened to it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from chaos_world import BUCKET, ROOT, S3, Disk, Driver
from mlflow import MlflowClient
from safetensors.torch import load

ATTEMPTS = 6
"""How often the same command may be needed again after the last fault."""
SETTINGS = [
    *("preset=tiny", "model.channels=16", "model.lstm_hidden=16", "decoders=[ctc]", "pretexts=[none,flip]"),
    *("finetune.min_steps_per_epoch=1", "finetune.batch_size=16", "pretrain.batch_size=32"),
    *("pretrain.patience=100", "finetune.patience=100"),
    # Read from the storage in every epoch, as a large corpus is.
    "stream.cache_mb=0",
    # Bit for bit is a promise for plain numbers only; and every epoch has its checkpoint.
    *(f"{stage}.precision=float32" for stage in ("pretrain", "finetune")),
    *(f"{stage}.checkpoint_minutes=0" for stage in ("pretrain", "finetune")),
]
GRID = "the grid itself"
RATES = ("minutes", "lines_per_second", "waiting_share")
"""Figures of an epoch that depend on the machine, beside ``system/...``."""


class Place(Protocol):
    """Where a grid and its corpus lie, seen from outside."""

    kind: str
    environment: dict[str, str]

    def uri(self, path: str) -> str: ...

    def files(self, folder: str) -> list[str]: ...

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, content: bytes) -> None: ...

    def delete(self, folder: str) -> None: ...


class OnDisk:
    """Files below a local folder; ``disk`` is set where it can be filled."""

    kind = "disk"

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder, self.disk = folder, disk
        self.environment: dict[str, str] = {}

    def uri(self, path: str) -> str:
        return str(self._folder / path)

    def files(self, folder: str) -> list[str]:
        found = (self._folder / folder).rglob("*")
        return sorted(str(path.relative_to(self._folder)) for path in found if path.is_file())

    def read(self, path: str) -> bytes:
        return (self._folder / path).read_bytes()

    def write(self, path: str, content: bytes) -> None:
        (self._folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / path).write_bytes(content)

    def delete(self, folder: str) -> None:
        shutil.rmtree(self._folder / folder)


class InS3:
    """Objects of the bucket."""

    kind = "s3"

    def __init__(self, s3: S3) -> None:
        self.s3, self._client = s3, s3.client
        self.environment = s3.environment

    def uri(self, path: str) -> str:
        return f"s3://{BUCKET}/{path}"

    def files(self, folder: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{folder}/")
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []) if item["Key"][-1] != "/")

    def read(self, path: str) -> bytes:
        return bytes(self._client.get_object(Bucket=BUCKET, Key=path)["Body"].read())

    def write(self, path: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=path, Body=content)

    def delete(self, folder: str) -> None:
        for path in self.files(folder):
            self._client.delete_object(Bucket=BUCKET, Key=path)


class Grid:
    """One grid: its driver, its files, and the audit at its end."""

    def __init__(
        self, name: str, place: Place, *, corpus: str, address: str, tracking: str, logs: Path, settings: list[str]
    ) -> None:
        self.name, self.place, self.tracking = name, place, tracking
        self.corpus = f"{name}-corpora/sample"
        for path in OnDisk(Path(corpus)).files("."):
            place.write(f"{self.corpus}/{path}", (Path(corpus) / path).read_bytes())
        arguments = [f"name={name}", f"corpora=[{place.uri(self.corpus)}]", f"storage={place.uri('')}"]
        arguments += [f"tracking_uri={tracking}", *SETTINGS, *settings]
        own = {key: value for key, value in os.environ.items() if not key.startswith(("HTR_RAY_", "MLFLOW_", "AWS_"))}
        environment = {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT), "COLUMNS": "250", **place.environment}
        self.driver = Driver(arguments, {**own, **environment}, logs, name)

    def __enter__(self) -> Grid:
        self.driver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.stop()

    def go_on(self) -> None:
        """The same command again, where the driver has ended with something left to do."""
        if not self.driver.alive and self.driver.wait() != 0:
            self.driver.start()

    def finish(self) -> int:
        """Wait for the end, with the same command again where it is needed; how often it was."""
        for again in range(ATTEMPTS):
            code = self.driver.wait()
            assert code in (0, 1, 2), f"the driver ended with {code}\n{self.driver.said()[-3000:]}"
            if code == 0:
                return again
            self.driver.start()
        raise AssertionError(f"not finished by the same command {ATTEMPTS} times\n{self.driver.said()[-3000:]}")

    def checkpoints(self) -> dict[str, list[str]]:
        """Files of the newest checkpoint of each trial that has an older one too, by its folder."""
        found: dict[str, dict[str, list[str]]] = {}
        for path in self.place.files(self.name):
            if match := re.fullmatch(r"(.*)/(checkpoint-\d+-[0-9a-f]+)/[^/]+", path):
                found.setdefault(match[1], {}).setdefault(match[2], []).append(path)
        newest = {trial: max(folders) for trial, folders in found.items() if len(folders) > 1}
        return {f"{trial}/{name}": found[trial][name] for trial, name in newest.items()}

    def outcome(self) -> dict[str, Any]:
        """What the grid left by trial: weights, history, figures, and what MLflow has of it."""
        logged = self._logged()
        found: dict[str, Any] = {GRID: {"mlflow": logged.pop(GRID, None), "runs": sorted(logged)}}
        for path in self.place.files(self.name):
            if not path.endswith("/result.json"):
                continue
            folder = path.removesuffix("/result.json")
            result = json.loads(self.place.read(path))
            history = [{k: v for k, v in epoch.items() if _lasting(k)} for epoch in result["history"]]
            key = folder.removeprefix(f"{self.name}/")
            found[key] = {
                "mlflow": logged.get(key),
                "weights": load(self.place.read(f"{folder}/model/model.safetensors")),
                "history": history,
                "figures": {k: v for k, v in result.items() if k.startswith(("val_", "test_"))},
            }
        return found

    def audit(self, undisturbed: dict[str, Any]) -> list[str]:
        """What is wrong with the finished grid, compared with an undisturbed one: nothing, it should be."""
        wrong = []
        told = json.loads(self.driver.json.read_text())["result"]
        wrong += [f"{key} failed: {why}" for key, why in told["failed"].items()]
        if "Traceback (most recent call last)" in self.driver.said():
            wrong.append(f"a stack trace was shown to the user: {self.driver.log}")
        outcome = self.outcome()
        if outcome.keys() != undisturbed.keys():
            wrong.append(f"cells: {sorted(outcome)}, not {sorted(undisturbed)}")
        for key in outcome.keys() & undisturbed.keys():
            wrong += [f"{key}: {what}" for what in _differences(outcome[key], undisturbed[key])]
        wrong += [f"left behind: {path}" for path in self.place.files(self.name) if "/checkpoint-" in path]
        return wrong

    def _logged(self) -> dict[str, Any]:
        """What MLflow has of each run: its state, and the points (step, value) of its metrics."""
        client = MlflowClient(self.tracking)
        experiment = client.get_experiment_by_name(self.name)
        assert experiment is not None, "MLflow has no experiment"
        found: dict[str, Any] = {}
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            key = run.data.tags.get("htr_ray.trial", GRID)
            points = {}
            for metric in filter(_lasting, run.data.metrics):
                history = client.get_metric_history(run.info.run_id, metric)
                points[metric] = sorted((point.step, point.value) for point in history)
            # A second run of one trial gets a key that no undisturbed grid has.
            found[key if key not in found else f"{key}, again"] = {"state": run.info.status, "points": points}
        return found


def _lasting(figure: str) -> bool:
    """Whether a figure is the same on every machine."""
    return figure not in RATES and not figure.startswith("system/")


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Where a trial is not bit for bit the undisturbed one."""
    wrong = []
    for name, value in expected.get("weights", {}).items():
        if not torch.equal(found["weights"][name], value):
            apart = (found["weights"][name].double() - value.double()).abs().max()
            wrong.append(f"weight {name} is off by {apart:.3g}")
    for name in expected.keys() - {"weights"}:
        if found[name] != expected[name]:
            wrong.append(f"{name}: {found[name]}, not {expected[name]}")
    return wrong[:3]
