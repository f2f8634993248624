"""Tables of a finished grid."""

from __future__ import annotations

import io
import math
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from htr_ray.config import GridSettings, load
from htr_ray.sweep import summary
from htr_ray.sweep.cells import Trial, expand

FIGURES = {"test_wer": 50.0, "lines": 100, "epochs": 3, "minutes": 1.25}


def trials(*overrides: str) -> list[Trial]:
    axes = ["corpora=[c]", "pretexts=[none,flip]", "decoders=[ctc]", "label_fractions=[0.1]", "seeds=[0,1]"]
    return expand(load(GridSettings, overrides=[*axes, *overrides], environment={}))


def results(cer: dict[tuple[str, int], float], val: dict[tuple[str, int], float] | None = None) -> dict[str, Any]:
    """Results by key, from (pretext, seed) -> test CER."""
    made: dict[str, Any] = {f"pretrain/c/flip/seed{s}": {"val_accuracy": 80.0 + s, "chance": 25.0} for s in (0, 1)}
    for (pretext, seed), value in cer.items():
        key = f"finetune/c/semi_supervised/ctc/0.1/{pretext}/seed{seed}"
        made[key] = {**FIGURES, "test_cer": value, "val_cer": (val or cer)[pretext, seed]}
    return made


ALL = {("none", 0): 20.0, ("none", 1): 24.0, ("flip", 0): 10.0, ("flip", 1): 11.0}


def terminal(table: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(summary.tables("g", table, 65.0))
    return out.getvalue()


def test_mean_and_spread_over_seeds_and_the_best_is_marked() -> None:
    table = summary.rows(trials(), results(ALL), {})
    text = terminal(table)
    assert "22.0±2.8/50.0" in text
    assert "10.5±0.7/50.0*" in text
    assert "22.0±2.8/50.0*" not in text
    markdown = summary.markdown("g", table)
    assert "| c | semi_supervised | ctc | 10 % | 22.0±2.8/50.0 | **10.5±0.7/50.0** |" in markdown
    assert "| c | flip | 1 | 81.0 % | 25.0 % |" in markdown


def test_one_seed_has_no_spread() -> None:
    table = summary.rows(trials("seeds=[0]"), results({("none", 0): 20.0, ("flip", 0): 30.0}), {})
    assert "20.0/50.0*" in terminal(table)
    assert "±" not in terminal(table)


def test_each_line_of_the_table_has_its_own_best() -> None:
    two = trials("decoders=[ctc,transformer]", "seeds=[0]")
    made = {
        trial.key: {**FIGURES, "test_cer": cer, "val_cer": cer}
        for trial in two
        if trial.stage == "finetune"
        for cer in [{"ctc": 40.0, "transformer": 60.0}[str(trial.job.decoder)] + (trial.pretext == "flip")]
    }
    lines = [line for line in summary.markdown("g", summary.rows(two, made, {})).splitlines() if "10 %" in line]
    assert ["**40.0" in lines[0], "**60.0" in lines[1]] == [True, True]
    assert sum(line.count("**") for line in lines) == 4


def test_failed_and_missing_cells_are_shown() -> None:
    key = "finetune/c/semi_supervised/ctc/0.1/flip/seed0"
    other = key.replace("seed0", "seed1")
    table = summary.rows(trials(), results({("none", 0): 20.0}), {key: "it [broke]", other: "its pre-training failed"})
    assert {row["key"]: row["state"] for row in table}[key] == "failed"
    text = terminal(table)
    assert f"{key}: it [broke]" in text
    assert "failed" in text and "20.0/50.0*" in text
    assert f"- failed: `{key}`: it [broke]" in summary.markdown("g", table)
    assert [row["state"] for row in table if row["pretext"] == "none"] == ["done", "missing"]


def test_an_empty_grid_has_a_summary_too() -> None:
    table = summary.rows(trials(), {}, {})
    assert {row["state"] for row in table} == {"missing"}
    assert "-" in terminal(table)
    assert summary.ranking(table, "c") == []


def test_csv_holds_what_the_rows_hold() -> None:
    table = summary.rows(trials(), results(ALL), {"finetune/c/semi_supervised/ctc/0.1/none/seed9": "no"})
    read = pd.read_csv(io.StringIO(summary.csv(table)))
    assert list(read["key"]) == [row["key"] for row in table]
    for row, (_, got) in zip(table, read.iterrows(), strict=True):
        for name in ("test_cer", "test_wer", "val_accuracy", "minutes"):
            assert (row[name] is None and math.isnan(got[name])) or got[name] == pytest.approx(row[name])
        assert (got["stage"], got["pretext"], got["state"]) == (row["stage"], row["pretext"], "done")


def test_the_champion_is_chosen_on_validation_never_on_test() -> None:
    val = {("none", 0): 5.0, ("none", 1): 9.0, ("flip", 0): 9.0, ("flip", 1): 9.0}
    best = summary.ranking(summary.rows(trials(), results(ALL, val), {}), "c")[0]
    assert best is not None
    assert best["key"] == "finetune/c/semi_supervised/ctc/0.1/none/seed0"
    assert summary.ranking(summary.rows(trials(), results(ALL, val), {}), "another") == []


def test_lines_that_were_left_out_are_named_once_per_corpus() -> None:
    made = results(ALL)
    made["pretrain/c/flip/seed0"]["unreadable"] = ["l1"]
    made["finetune/c/semi_supervised/ctc/0.1/flip/seed0"] |= {"unreadable": ["l1", "l2"], "set_aside": ["l3: x"]}
    told = summary.left_out_lines(trials(), made)
    assert told[0] == "c: 2 unreadable line(s) were left out: l1; l2"
    assert told[1].startswith("c: 1 line(s) were set aside") and told[1].endswith(": l3: x")
    assert summary.left_out_lines(trials(), results(ALL)) == []
