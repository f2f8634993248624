"""The recognizer to read with: a folder that a training wrote, or a version in MLflow's model registry."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htr_ray import storage
from htr_ray.config import ModelSettings
from htr_ray.corpus.alphabet import Alphabet
from htr_ray.errors import UserError
from htr_ray.model.files import DESCRIPTION, WEIGHTS, load_recognizer

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from htr_ray.model.recognizer import Recognizer

SCHEME = "models:/"
_REFERENCE = re.compile(r"models:/+([^/@]+)(?:@([^/@]+)|/([^/@]+))?$")
_EXAMPLES = 10


@dataclass(frozen=True)
class Bundle:
    """A recognizer as its two files: small enough to be handed to every process that reads."""

    name: str
    """As it was asked for; of the registry, with the version that was meant."""
    description: bytes
    weights: bytes

    @property
    def digest(self) -> str:
        """The same for the same recognizer, wherever it lies."""
        return hashlib.sha256(self.description + self.weights).hexdigest()[:16]

    @property
    def facts(self) -> dict[str, Any]:
        """What ``model.json`` says of it."""
        return json.loads(self.description)

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings.model_validate(self.facts["model"])

    @property
    def alphabet(self) -> Alphabet:
        return Alphabet.from_json(self.facts["alphabet"], self.facts.get("direction", "ltr"))

    def load(self, device: str | torch.device = "cpu") -> Recognizer:
        """The recognizer, for reading alone. Raises UserError when it is none, damaged or too new."""
        with tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
            (Path(folder) / DESCRIPTION).write_bytes(self.description)
            (Path(folder) / WEIGHTS).write_bytes(self.weights)
            return load_recognizer(folder, device, folded=True)


def fetch(model: str, default_root: Path = Path("runs")) -> Bundle:
    """Fetch a recognizer: ``models:/NAME@alias``, ``models:/NAME/VERSION``, or the URI of a folder.

    The registry is that of MLFLOW_TRACKING_URI, else ``mlflow.db`` in ``default_root``. Raises UserError that says
    what there is, when there is no such model.
    """
    return _from_registry(model, default_root) if model.startswith("models:") else _from_folder(model)


def _from_folder(uri: str) -> Bundle:
    # The folder of a trial holds its model in model/; one of MLflow, in artifacts/.
    for inside in ("", "model"):
        place = storage.join(storage.normalise(uri), inside)
        if storage.exists(storage.join(place, DESCRIPTION)):
            return _read(uri, place)
    if storage.exists(storage.join(uri, "MLmodel")):
        found = [name for name in storage.walk(uri) if name.rpartition("/")[2] == DESCRIPTION]
        if len(found) == 1:
            return _read(uri, storage.join(uri, found[0].rpartition("/")[0]))
    raise UserError(
        f"--model {uri}: no {DESCRIPTION} there; give the folder that jobs/finetune.py wrote (OUTPUT/model), one of a"
        f" grid (STORAGE/NAME/finetune/.../model), or {SCHEME}htr-ray-CORPUS@champion"
    )


def _read(name: str, place: str) -> Bundle:
    files = (storage.read_bytes(storage.join(place, file)) for file in (DESCRIPTION, WEIGHTS))
    bundle = Bundle(name, *files)
    bundle.load()  # a wrong or damaged model is told here, not by every worker
    return bundle


def _from_registry(model: str, default_root: Path) -> Bundle:
    match = _REFERENCE.match(model)
    if match is None:
        raise UserError(f"--model {model}: write {SCHEME}NAME@champion or {SCHEME}NAME/VERSION")
    # MLflow takes seconds to import: only who asks for its registry waits for it.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    from htr_ray.storage import redacted
    from htr_ray.track.background import first_line
    from htr_ray.track.connect import resolve_uri, sqlite_file

    database = sqlite_file(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_root / 'mlflow.db'}")
    if database is not None and not database.exists():
        raise UserError(
            f"--model {model}: no MLflow database at {database}; set MLFLOW_TRACKING_URI to where the grid was tracked,"
            " or give the URI of a model's folder"
        )
    uri = resolve_uri(None, default_root)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    client = MlflowClient(uri, registry_uri=uri)
    name, alias, version = match.groups()
    try:
        try:
            if alias is None and version is None:
                raise UserError(f"--model {model}: which version? {_there(client, name)}")
            found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
                raise
            raise UserError(
                f"--model {model}: not in the registry at {redacted(uri)}; {_there(client, name)}"
            ) from None
        with tempfile.TemporaryDirectory(prefix="htr-ray-") as folder:
            source = f"{SCHEME}{name}/{found.version}"
            local = Path(download_artifacts(_location(client, found), dst_path=folder, tracking_uri=uri))
            descriptions = sorted(local.rglob(DESCRIPTION))
            if len(descriptions) != 1:
                raise UserError(f"--model {model}: holds no recognizer of htr-ray (no {DESCRIPTION} in it)")
            return _read(source if alias is None else f"{source} ({alias})", str(descriptions[0].parent))
    except UserError:
        raise
    except Exception as error:  # MLflow, SQLAlchemy, requests, boto: all are explained to the user
        raise UserError(
            f"--model {model}: the registry at {redacted(uri)} did not give it ({first_line(error)}); check"
            " MLFLOW_TRACKING_URI, and that the server and its artifact store can be reached"
        ) from error


def _location(client: MlflowClient, version: ModelVersion) -> str:
    """Where the files of a version are. For ``models:/`` MLflow would ask the tracking URI of the whole process."""
    source = client.get_model_version_download_uri(version.name, version.version)
    logged = source.removeprefix(SCHEME) if source.startswith(f"{SCHEME}m-") else None
    return source if logged is None else str(client.get_logged_model(logged).artifact_location)


def _there(client: MlflowClient, name: str) -> str:
    """What could be asked for instead: other aliases and versions of the model, or other models."""
    models = {model.name: model for model in client.search_registered_models(max_results=1000)}
    if name in models:
        aliases = [f"{SCHEME}{name}@{alias}" for alias in sorted(models[name].aliases)]
        versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
        numbers = sorted(int(version.version) for version in versions)
        return f"there are {', '.join(aliases + [f'{SCHEME}{name}/{number}' for number in numbers[-_EXAMPLES:]])}"
    if not models:
        return "it is empty: a grid registers its best recognizers when it ends"
    some = ", ".join(sorted(models)[:_EXAMPLES])
    return f"there are {some}{' and more' if len(models) > _EXAMPLES else ''}"
