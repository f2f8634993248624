"""What all jobs share: settings on the command line, ``--json``, and errors that are meant to be read."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from htr_ray import storage
from htr_ray.config import describe
from htr_ray.errors import UserError


def settings_help(schema: type[BaseModel]) -> str:
    """All settings with defaults and docs, for the end of ``--help``."""
    lines = ["settings (key=value; values are YAML; defaults before the preset):"]
    lines += [f"  {key} = {default}\n      {doc}" for key, default, doc in describe(schema)]
    return "\n".join(lines)


def parser(description: str, schema: type[BaseModel] | None = None) -> argparse.ArgumentParser:
    """A parser with ``--json`` and, with ``schema``, ``--config`` and ``key=value`` settings."""
    made = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=settings_help(schema) if schema else None,
    )
    made.add_argument("--json", metavar="FILE", help="write what was asked, what came out and the seconds to FILE")
    if schema is not None:
        made.add_argument("--config", metavar="FILE", help="YAML file with settings")
        made.add_argument(
            "settings", nargs="*", metavar="key=value", help="settings, see below; they win over the file"
        )
    return made


def grid_parser(description: str) -> argparse.ArgumentParser:
    """A parser for jobs that look at a grid that is there: NAME and ``storage=URI``, beside ``--json``."""
    made = parser(description)
    made.add_argument("name", metavar="NAME", help="the grid's name (its folder under storage), or that folder's URI")
    made.add_argument(
        "settings", nargs="*", metavar="storage=URI", help="where grids are kept, as in full_grid.py; default: runs"
    )
    return made


def storage_of(arguments: argparse.Namespace) -> str:
    """The ``storage`` of :func:`grid_parser`'s arguments. Raises UserError for any other setting."""
    place = "runs"
    for setting in arguments.settings:
        key, _, value = setting.partition("=")
        if key != "storage" or not value:
            raise UserError(f"'{setting}': there is one setting here, storage=URI (and the options of --help)")
        place = value
    return place


def main(run: Callable[[], dict[str, Any]], arguments: argparse.Namespace) -> int:
    """Run a job; returns its exit status: 0, 1 (something failed, see the output) or 2 (the user can cure it)."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    began = time.monotonic()
    try:
        result = run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    if arguments.json:
        asked = {key: value for key, value in vars(arguments).items() if key != "json"}
        text = json.dumps({"asked": asked, "result": result, "seconds": time.monotonic() - began}, indent=2)
        try:
            storage.write_bytes(arguments.json, f"{text}\n".encode())
        except UserError as error:
            print(f"error: --json {error}", file=sys.stderr)
            return 2
    return 1 if result.get("failed") else 0
