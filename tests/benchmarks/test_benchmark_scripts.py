"""The benchmarks are run by hand and seldom: that they still fit the package is seen here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = sorted(path for path in FOLDER.rglob("*.py") if not path.name.startswith(("test_", "conftest")))

IMPORT = """
import runpy, sys, traceback
from pathlib import Path
failed = 0
for script in sys.argv[1:]:
    sys.path.insert(0, str(Path(script).parent))
    try:
        runpy.run_path(script, run_name="imported")
    except Exception:
        failed += 1
        print(script, traceback.format_exc(), file=sys.stderr)
sys.exit(failed)
"""


def test_scripts_find_what_they_import() -> None:
    """In a process of their own: some of them extend the module path, which is no other test's business."""
    assert SCRIPTS
    asked = [sys.executable, "-c", IMPORT, *map(str, SCRIPTS)]
    # eta.py is run with the folder of the tests on the path.
    env = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    ended = subprocess.run(asked, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
