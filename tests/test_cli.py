"""What all jobs share: help, exit status, --json, messages without a stack trace."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from htr_ray.cli import main, parser, settings_help
from htr_ray.config import GridSettings, RunSettings, describe
from htr_ray.errors import UserError


def asked(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(json=None, **values)


def test_help_lists_every_setting_with_its_doc() -> None:
    text = settings_help(GridSettings)
    for key, default, doc in describe(GridSettings):
        assert f"{key} = {default}" in text
        assert doc in text


def test_settings_and_options_may_be_mixed() -> None:
    made = parser("A job.", RunSettings)
    arguments = made.parse_intermixed_args(["seed=1", "--config", "a.yaml", "preset=tiny", "--json", "b.json"])
    assert (arguments.settings, arguments.config, arguments.json) == (["seed=1", "preset=tiny"], "a.yaml", "b.json")
    assert not hasattr(parser("A job.").parse_args([]), "settings")


def test_exit_status_tells_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    def curable() -> dict[str, Any]:
        raise UserError("corpora: cure it")

    def stopped() -> dict[str, Any]:
        raise KeyboardInterrupt

    assert main(lambda: {"failed": {}}, asked()) == 0
    assert main(lambda: {"failed": {"a": "b"}}, asked()) == 1
    assert main(curable, asked()) == 2
    assert capsys.readouterr().err == "error: corpora: cure it\n"
    assert main(stopped, asked()) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_bug_is_not_hidden_as_the_users_fault() -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main(broken, asked())


def test_json_tells_what_was_asked_what_came_out_and_the_seconds(tmp_path: Path) -> None:
    file = tmp_path / "new" / "out.json"
    assert main(lambda: {"rows": [1]}, argparse.Namespace(json=str(file), settings=["a=1"])) == 0
    told = json.loads(file.read_text())
    assert told["asked"] == {"settings": ["a=1"]}
    assert told["result"] == {"rows": [1]}
    assert 0 <= told["seconds"] < 60


def test_json_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(lambda: {}, argparse.Namespace(json=str(tmp_path / "file" / "out.json"))) == 2
    assert "--json" in capsys.readouterr().err
