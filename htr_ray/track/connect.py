"""Where MLflow is, and whether it answers: tracking URIs, experiments, kinds of errors."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from sqlalchemy.exc import NoSuchModuleError, OperationalError, SQLAlchemyError

from htr_ray.errors import UserError
from htr_ray.storage import redacted
from htr_ray.track.background import first_line

GRID_TAG = "htr_ray.grid"  # on a grid's run: its name

# Errors that no second attempt cures. Everything else - refused connections, time-outs, 5xx, a
# locked database, an object store out of reach - may pass.
_LASTING_CODES = frozenset(
    {
        "ALREADY_EXISTS",
        "BAD_REQUEST",
        "CUSTOMER_UNAUTHORIZED",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_FOUND",
        "NOT_IMPLEMENTED",
        "PERMISSION_DENIED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)
_LASTING_TYPES = (ArithmeticError, AttributeError, ImportError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Place:
    """An experiment that can be written to."""

    client: MlflowClient
    uri: str
    experiment_id: str

    def is_well(self) -> bool:
        """Whether MLflow answers now."""
        try:
            self.client.get_experiment(self.experiment_id)
        except Exception:  # any failure means the same here
            return False
        return True


def is_passing(error: Exception) -> bool:
    """Whether a second attempt may succeed where this error came."""
    if isinstance(error, MlflowException):
        return error.error_code not in _LASTING_CODES
    # requests' and botocore's errors are OSErrors or of their own kind; some derive from ValueError too.
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError)
    return not isinstance(error, _LASTING_TYPES)


def resolve_uri(tracking_uri: str | None, default_root: Path) -> str:
    """The setting, else MLFLOW_TRACKING_URI, else a sqlite file in ``default_root``, which need not exist.

    Raises UserError for a kind of URI that MLflow cannot write to.
    """
    given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_root / 'mlflow.db'}"
    scheme = urlsplit(given).scheme
    if scheme in ("", "file") and not os.environ.get("MLFLOW_ALLOW_FILE_STORE"):
        path = given.removeprefix("file://").rstrip("/") or "."
        raise UserError(
            f"tracking_uri = {given}: MLflow no longer writes to plain folders; "
            f"write sqlite:///{path}/mlflow.db, or http://HOST:PORT of an MLflow server"
        )
    if scheme in ("http", "https") and not urlsplit(given).netloc:
        raise UserError(f"tracking_uri = {given}: names no host; write http://HOST:PORT")
    return given


def open_experiment(uri: str, name: str, default_root: Path, wait: float) -> Place:
    """Open the experiment ``name``, made if need be, waiting ``wait`` seconds for a server that starts up.

    Raises UserError that names the URI and the cure.
    """
    if (database := sqlite_file(uri)) is not None:
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = f"cannot make the folder {database.parent} ({error.strerror})"
            raise UserError(f"tracking_uri = {uri}: {why}") from error
    place = _open(uri, wait, lambda client: _experiment_id(client, uri, name, default_root))
    assert place is not None
    return place


def find_experiment(uri: str, name: str, wait: float) -> Place | None:
    """As :func:`open_experiment`, but nothing is made: None if there is no such experiment, or no database."""
    if (database := sqlite_file(uri)) is not None and not database.exists():
        return None
    return _open(uri, wait, lambda client: _found(client, uri, name))


def sqlite_file(uri: str) -> Path | None:
    """The file behind ``sqlite:///relative`` or ``sqlite:////absolute``; None for any other URI."""
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    return Path(path) if uri.startswith("sqlite:///") and path else None


def _open(uri: str, wait: float, experiment: Callable[[MlflowClient], str | None]) -> Place | None:
    """A client, and the id that ``experiment`` finds with it; None if that finds none."""
    # Our queue repeats what fails and keeps the order; MLflow's own minutes of silent retries
    # per call would only delay its verdict. The user's own value wins.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # MLflow prints two lines at the end of every run, one per model, and one per schema migration.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # Where tqdm happens to be installed it draws a bar for every artifact, across our table.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("alembic", "mlflow.store", "mlflow.pyfunc"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    deadline = time.monotonic() + wait
    while True:
        try:
            client = MlflowClient(uri)
            found = experiment(client)
            return None if found is None else Place(client, uri, found)
        except UserError:
            raise
        except Exception as error:  # MLflow, SQLAlchemy, database drivers: all are explained to the user
            # A database file that cannot be opened is not going to open; a database server may.
            hopeless = uri.startswith("sqlite:") and isinstance(error, OperationalError)
            if hopeless or not is_passing(error) or _foreign(error) or time.monotonic() > deadline:
                raise UserError(f"tracking_uri = {redacted(uri)}: {_cure(uri, error)}") from error
        time.sleep(0.5)


def _experiment_id(client: MlflowClient, uri: str, name: str, default_root: Path) -> str:
    found = _found(client, uri, name)
    if found is not None:
        return found
    try:
        return str(client.create_experiment(name, artifact_location=_artifact_location(uri, default_root)))
    except MlflowException:
        found = _found(client, uri, name)  # has another driver made it in the meantime?
        if found is None:
            raise
        return found


def _found(client: MlflowClient, uri: str, name: str) -> str | None:
    found = client.get_experiment_by_name(name)
    if found is None:
        return None
    if found.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment '{name}' was deleted; restore it: MLFLOW_TRACKING_URI={redacted(uri)} "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _artifact_location(uri: str, default_root: Path) -> str | None:
    """Servers know their place for artifacts; a bare database does not (MLflow would use ./mlruns)."""
    if urlsplit(uri).scheme in ("http", "https", "databricks", "file", "") or uri.startswith("databricks"):
        return None
    database = sqlite_file(uri)
    folder = database.parent if database is not None else default_root
    return (folder / "mlartifacts").resolve().as_uri()


def _foreign(error: Exception) -> bool:
    """Whether the database exists but is not MLflow's, or is from another version of it."""
    return isinstance(error, SQLAlchemyError) and not isinstance(error, OperationalError)


def _cure(uri: str, error: Exception) -> str:
    code = getattr(error, "error_code", "")
    why = first_line(error)
    if isinstance(error, (ModuleNotFoundError, NoSuchModuleError)):
        return (
            f"the database driver is missing ({why}); install it; for PostgreSQL: "
            "pip install psycopg2-binary, and write postgresql+psycopg2://..."
        )
    if isinstance(error, UnsupportedModelRegistryStoreURIException):
        return "not a kind of URI that MLflow knows; write sqlite:///PATH/mlflow.db or http://HOST:PORT"
    if not uri.startswith(("http://", "https://")):
        return f"cannot be opened as an MLflow database ({why}); right path, writable, this MLflow version's?"
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return (
            f"the server refuses us ({why}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN; if it names the Host header, start the server with --allowed-hosts"
        )
    if code in ("ENDPOINT_NOT_FOUND", "NOT_FOUND"):
        return f"something answers there, but it is not an MLflow server ({why})"
    return f"no MLflow server answers there ({why}); start it with 'mlflow server', or correct the address"
