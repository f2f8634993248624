"""Import first: lets ``python jobs/JOB.py`` find htr_ray beside jobs/ where it is not installed."""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("htr_ray") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
