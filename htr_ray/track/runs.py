"""Finding a grid's runs and models in MLflow by their tags."""

from __future__ import annotations

from mlflow.entities import LoggedModel, Run

from htr_ray.track.connect import Place

PARENT_TAG = "mlflow.parentRunId"


def find_run(place: Place, tag: str, value: str, parent: str | None = None) -> Run | None:
    """The first run with this tag (a retried creation may have left none or one, never more)."""
    quote = '"' if "'" in value else "'"
    where = f"tags.`{tag}` = {quote}{value}{quote}"
    if parent is not None:
        where += f" and tags.`{PARENT_TAG}` = '{parent}'"
    runs = place.client.search_runs([place.experiment_id], where, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def children(place: Place, parent: str, where: str) -> list[Run]:
    """All nested runs that match (read to the last page first: the caller may change what matches)."""
    where = f"tags.`{PARENT_TAG}` = '{parent}' and {where}"
    found: list[Run] = []
    token = None
    while True:
        page = place.client.search_runs([place.experiment_id], where, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def models_of(place: Place, run_id: str) -> list[LoggedModel]:
    """The logged models of a run, newest first."""
    found = place.client.search_logged_models([place.experiment_id], f"source_run_id = '{run_id}'")
    return sorted(found, key=lambda model: -model.creation_timestamp)
