"""Fill a template from the environment: ``python cluster/render.py cluster/aws.yaml > htr-ray-aws.yaml``.

Replaces ``${NAME}`` and nothing else: ``$NAME`` and ``$(command)`` are left for the shells that run later.
Exits with 2 and names what is missing when a variable is not set or empty.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def render(template: str, environment: Mapping[str, str]) -> str:
    """Return the template with every ``${NAME}`` replaced. Raises KeyError with all missing names."""
    missing = sorted({name for name in VARIABLE.findall(template) if not environment.get(name)})
    if missing:
        raise KeyError(*missing)
    return VARIABLE.sub(lambda match: environment[match[1]], template)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(render(Path(arguments[0]).read_text(encoding="utf-8"), os.environ), end="")
    except KeyError as error:
        print(f"{arguments[0]}: set these variables first: {', '.join(error.args)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
