"""Names and texts for MLflow."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_model_name, _validate_param

from htr_ray.track.summary import (
    clean_metrics,
    command_to_open,
    flatten,
    registered_name,
    slug,
)

names = st.text(min_size=1, max_size=300).filter(lambda s: s.strip("./ "))


@given(st.text())
def test_slug_is_a_model_name_and_stays_itself(name: str) -> None:
    found = slug(name)
    assert re.fullmatch(r"[^\W_]+(-[^\W_]+)*", found)
    assert slug(found) == found
    _validate_model_name(registered_name(name))


def test_slug_reads_well() -> None:
    assert slug("DHSD 1850-1900") == "dhsd-1850-1900"
    assert registered_name("IAM_words") == "htr-ray-iam-words"


def test_flatten_gives_dotted_names_and_texts() -> None:
    model = {"height": 32, "transformer": {"dim": 64}}
    nested = {"seed": 1, "model": model, "corpora": ["a", "b"], "none": None}
    assert dict(flatten(nested)) == {
        "seed": "1",
        "model.height": "32",
        "model.transformer.dim": "64",
        "corpora": "['a', 'b']",
        "none": "None",
    }


@given(st.dictionaries(st.sampled_from(["a", "b (c)", "ä/ö", "x=y", "t:1"]), st.text(max_size=8000)))
def test_flatten_gives_what_mlflow_accepts(values: dict[str, str]) -> None:
    for key, value in flatten(values):
        _validate_param(key, value)


def test_metrics_are_finite_numbers_under_accepted_names() -> None:
    found = clean_metrics({"val/cer %": 3, "loss": math.inf, "gone": None, "nan": math.nan})
    assert found["val/cer _"] == 3.0
    assert math.isnan(found["loss"]) and math.isnan(found["nan"])
    assert "gone" not in found
    for name in found:
        _validate_metric_name(name)


def test_command_to_open() -> None:
    assert command_to_open("sqlite:///runs/mlflow.db", "1") == (
        "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"
    )
    assert command_to_open("http://host:5000/", "7") == "http://host:5000/#/experiments/7/runs"
