"""Texts and names that people meet in MLflow: parameters, registered models, descriptions."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

PARAM_LIMIT = 6000  # characters of a parameter's value, https://mlflow.org/docs/latest/ml/tracking/
TAG_LIMIT = 8000


def slug(name: str) -> str:
    """``"DHSD 1850-1900"`` -> ``"dhsd-1850-1900"``: lower case letters, digits and single dashes."""
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-") or "corpus"


def registered_name(corpus: str) -> str:
    """Name of the registered model that holds a corpus' champion."""
    return f"htr-ray-{slug(corpus)}"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings -> dotted names and short texts that MLflow accepts as parameters.

    ``{"model": {"height": 48}}`` -> ``("model.height", "48")``. Lists become one text.
    """
    for key, value in values.items():
        name = re.sub(r"[^\w\-./ ]", "_", f"{prefix}{key}")[:250]
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, str(value)[:PARAM_LIMIT]


def clean_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that MLflow can draw: names it accepts, finite numbers; what is None is left out.

    Infinities become NaN: an infinite loss is a fact worth seeing, but MLflow would plot it
    as 1.8e308 and flatten every curve beside it.
    """
    clean = {}
    for key, value in metrics.items():
        if value is None:
            continue
        number = float(value)
        clean[re.sub(r"[^\w\-./ ]", "_", key)[:250]] = number if math.isfinite(number) else math.nan
    return clean


def command_to_open(uri: str, experiment_id: str) -> str:
    """What a person types (or opens) to see the runs kept at a tracking URI."""
    if uri.startswith(("http://", "https://")):
        # Without /runs, MLflow opens a page of usage figures of language models.
        return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
