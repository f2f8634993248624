"""Settings: layers, presets, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray.config import PRESETS, GridSettings, RunSettings, describe, load
from htr_ray.errors import UserError

# As in the design's "Settings of a grid".
EXAMPLE = """
name: dhsd-ssl
corpora: [s3://bucket/corpora/dhsd]
pretexts: [none, rotation, flip, jigsaw, sorting]
decoders: [ctc, transformer]
label_fractions: [0.05, 0.1, 1.0]
protocols: [semi_supervised]
seeds: [0, 1, 2]
preset: paper            # model and training recipe; single keys below override it
storage: s3://bucket/runs
tracking_uri: http://mlflow:5000
pretrain: {workers: 4, max_epochs: 200, max_minutes: null}
finetune: {workers: 1, gpus_per_worker: 0.25, max_epochs: 1000, patience: 30, max_minutes: null}
"""


def grid(*overrides: str, file: Path | None = None, environment: dict[str, str] | None = None) -> GridSettings:
    return load(GridSettings, file=file, overrides=overrides, environment=environment or {})


def complaint(*overrides: str, file: Path | None = None, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        grid(*overrides, file=file, environment=environment)
    return str(caught.value)


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("finetune: {max_epochs: 2, patience: 2, batch_size: 2}\npreset: tiny\n")
    environment = {"HTR_RAY_FINETUNE__PATIENCE": "3", "HTR_RAY_FINETUNE__BATCH_SIZE": "3", "OTHER": "x"}
    settings = grid("finetune.batch_size=4", file=file, environment=environment)
    assert settings.finetune.min_steps_per_epoch == PRESETS["tiny"]["finetune"]["min_steps_per_epoch"]
    assert settings.finetune.max_epochs == 2
    assert settings.finetune.patience == 3
    assert settings.finetune.batch_size == 4


def test_the_base_lies_under_file_and_command_line(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("seeds: [1]\n")
    base = {"seeds": [5], "name": "kept", "finetune": {"patience": 7}}
    settings = load(GridSettings, file=file, overrides=["finetune.batch_size=3"], environment={}, base=base)
    assert (settings.seeds, settings.name) == ([1], "kept")
    assert (settings.finetune.patience, settings.finetune.batch_size) == (7, 3)


def test_the_preset_may_come_from_any_layer_and_single_keys_override_it() -> None:
    settings = grid("model.height=40", environment={"HTR_RAY_PRESET": "small"})
    assert settings.model.height == 40
    assert settings.model.channels == PRESETS["small"]["model"]["channels"]
    assert grid("preset=paper").model.channels == 512


@pytest.mark.parametrize("schema", [GridSettings, RunSettings])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_valid_and_applied(schema: Any, preset: str) -> None:
    settings = load(schema, overrides=[f"preset={preset}"], environment={})
    for section, values in PRESETS[preset].items():
        dumped = getattr(settings, section).model_dump()
        for key, value in values.items():
            assert dumped[key] == value or dumped[key].items() >= value.items()


def test_the_example_of_the_design_is_read(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(EXAMPLE)
    settings = grid(file=file)
    assert settings.name == "dhsd-ssl"
    assert settings.corpora == ["s3://bucket/corpora/dhsd"]
    assert settings.pretexts[0] == "none"
    assert settings.label_fractions == [0.05, 0.1, 1.0]
    assert (settings.pretrain.workers, settings.finetune.gpus_per_worker) == (4, 0.25)
    assert settings.finetune.max_minutes is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("finetune.max_epoch=3", ["finetune.max_epoch", "unknown setting", "did you mean finetune.max_epochs"]),
        ("modle.height=3", ["modle", "unknown setting", "did you mean model"]),
        ("zzzzzz=3", ["zzzzzz", "unknown setting", "--help"]),
        ("stream.qqqqqqqqq=3", ["stream.qqqqqqqqq", "allowed here", "stream.workers"]),
        ("pretexts=[flop]", ["pretexts.0", "'flop'", "'rotation', 'flip', 'jigsaw' or 'sorting'"]),
        ("preset=big", ["preset", "'paper', 'small' or 'tiny'"]),
        ("finetune.workers=0", ["finetune.workers", "greater than or equal to 1"]),
        ("finetune.patience=x", ["finetune.patience", "'x'", "integer"]),
        ("model.transformer.heads=3", ["model.transformer", "heads (3) must divide dim (64)"]),
        ("label_fractions=[1.5]", ["label_fractions.0", "1.5", "less than or equal to 1"]),
        ("seeds=[]", ["seeds", "at least 1"]),
        ("seeds=[0,1,0]", ["seeds", "same value twice"]),
        ("label_fractions=[1,1.0]", ["label_fractions", "same value twice"]),
        ("corpora=a", ["corpora", "list"]),
        ("corpora=[a", ["corpora=[a", "YAML"]),
        ("name=a/b", ["name", "a/b"]),
        ("model=3", ["model = 3"]),
        ("pretrain=null", ["pretrain = None"]),
    ],
)
def test_errors_name_key_value_source_and_cure(override: str, words: list[str]) -> None:
    text = complaint(override)
    for word in [*words, "command line"]:
        assert word in text, text


def test_errors_name_the_layer_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("finetune: {patience: never}\n")
    assert f"finetune.patience = 'never' ({file})" in complaint("seeds=[1]", file=file)
    assert "finetune.patience = 'x' (environment)" in complaint(environment={"HTR_RAY_FINETUNE__PATIENCE": "x"})
    # The file's mistake is hidden by a later layer, so it is none.
    assert grid("finetune.patience=3", file=file).finetune.patience == 3


def test_all_mistakes_are_told_at_once() -> None:
    text = complaint("seeds=[]", "finetune.workers=0")
    assert "seeds" in text and "finetune.workers" in text


@pytest.mark.parametrize("pair", ["finetune", "--workers=2", "=3", "a b=3", "corpora: [x]"])
def test_what_is_not_key_value_is_refused(pair: str) -> None:
    assert f"'{pair}' is not a setting; write key=value" in complaint(pair)


@pytest.mark.parametrize(
    ("content", "words"),
    [("a: [1,\nb: }", "not valid YAML"), ("- a\n- b\n", "holds a list"), ("hello", "hello"), ("name: ${nope}", "nope")],
)
def test_a_file_that_holds_no_settings(content: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    assert words in complaint(file=file)


def test_a_seed_below_nothing() -> None:
    """NumPy and torch disagree on such, and would say so in the middle of a trial."""
    assert "seeds.1 = -1 (command line)" in complaint("seeds=[0,-1]")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.yaml'}: no such file" in complaint(file=tmp_path / "none.yaml")
    assert "directory" in complaint(file=tmp_path)
    (tmp_path / "empty.yaml").write_text("")
    assert grid(file=tmp_path / "empty.yaml") == grid()


@pytest.mark.parametrize("schema", [GridSettings, RunSettings])
def test_describe_tells_every_setting_with_a_doc(schema: Any) -> None:
    def leaves(node: dict[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in node.items():
            family = isinstance(value, dict) and value.keys() == {"probability", "strength"}
            # An empty search space is a setting, not a section.
            section = isinstance(value, dict) and value and not family
            found |= leaves(value, f"{prefix}{key}.") if section else {prefix + key}
        return found

    described = {key: doc for key, _, doc in describe(schema)}
    assert set(described) == leaves(schema().model_dump())
    assert [key for key, doc in described.items() if not doc.endswith((".", "any.)", ")"))] == []


@given(
    seeds=st.lists(st.integers(0, 2**31), min_size=1, max_size=5, unique=True),
    epochs=st.integers(1, 10**6),
    rate=st.floats(1e-6, 1.0, allow_nan=False),
)
def test_values_of_the_command_line_come_back(seeds: list[int], epochs: int, rate: float) -> None:
    settings = grid(f"seeds={seeds}", f"finetune.max_epochs={epochs}", f"finetune.learning_rate={rate:.12f}")
    assert settings.seeds == seeds
    assert settings.finetune.max_epochs == epochs
    assert settings.finetune.learning_rate == pytest.approx(rate, abs=1e-12)
