"""Write the report of a grid: does pre-training help here, which task, which decoder, how many labels?

    python jobs/report.py dhsd-ssl                                 the grid dhsd-ssl under ./runs
    python jobs/report.py dhsd-ssl storage=s3://bucket/runs        the same, kept elsewhere
    python jobs/report.py s3://bucket/runs/dhsd-ssl --output .     a grid by the URI of its folder; the report goes here

A page (report.html) that needs nothing beside it, to open in a browser, print or send; its twin in
Markdown (report.md, with figures/); the numbers as results.csv (a row per cell), trials.csv,
comparisons.csv and searches.csv; grid.yaml, the settings; and timeline.png, when which trial ran.
Everything goes to the folder report/ in the grid's own folder, or to --output, and to the grid's run in
MLflow (unless --no-mlflow). A grid that still runs, or in which something failed, gives a report of what is there; what
is not is named. Needs no GPU and starts no Ray. jobs/full_grid.py writes the same report at its end.
"""

from __future__ import annotations

import sys

import _root  # noqa: F401

from htr_ray.cli import grid_parser, main, storage_of
from htr_ray.config import GridSettings
from htr_ray.errors import UserError

if __name__ == "__main__":
    made = grid_parser(__doc__ or "")
    made.add_argument("--output", metavar="FOLDER", help="URI of another folder for the report's files")
    made.add_argument("--no-mlflow", action="store_true", help="leave the grid's run in MLflow as it is")
    asked = made.parse_intermixed_args()

    def run() -> dict:
        from htr_ray import storage
        from htr_ray.report import FOLDER, PAGE, build
        from htr_ray.sweep.find import find_grid
        from htr_ray.sweep.results import load_grid, read_settings

        place = storage_of(asked)
        folder = find_grid(asked.name, place)
        grid = load_grid(folder, place)
        output = storage.normalise(asked.output) if asked.output else storage.join(folder, FOLDER)
        files = build(grid)
        written = {path: storage.join(output, path.removeprefix(f"{FOLDER}/")) for path in files}
        for path, content in files.items():
            storage.write_bytes(written[path], content)
        told = ", ".join(f"{number} {state}" for state, number in grid.states.items() if number) or "no trials"
        print(f"Report of the grid {grid.name} ({told}): {written[PAGE]}")
        print(f"In Markdown and as CSV beside it, {len(files)} files in all.")
        logged = None if asked.no_mlflow else log(read_settings(folder), folder, files)
        return {
            "name": grid.name,
            "page": written[PAGE],
            "files": sorted(written.values()),
            "trials": grid.states,
            "mlflow_run": logged,
        }

    def log(settings: GridSettings, folder: str, files: dict[str, bytes]) -> str | None:
        from htr_ray.sweep.tracking import attach

        try:
            found = attach(settings, folder, files)
        except UserError as error:  # the report is written; where it is shown as well is the lesser part
            print(f"Not stored in MLflow: {error}")
            return None
        print("Stored with the grid's run in MLflow." if found else "The grid has no run in MLflow to store it with.")
        return found

    sys.exit(main(run, asked))
