"""From results to files: numbers, contents, page, Markdown, CSV."""

from __future__ import annotations

from dataclasses import replace

from htr_ray.errors import UserError
from htr_ray.report import FOLDER, PAGE, csv_files, facts
from htr_ray.report.analysis import analyse
from htr_ray.report.compose import compose
from htr_ray.report.figures import png
from htr_ray.report.lines import test_writers
from htr_ray.report.markdown import FIGURES, markdown
from htr_ray.report.page import page
from htr_ray.report.results import GridResults
from htr_ray.report.search_table import searches_csv
from htr_ray.report.timeline import timeline_figure


def make(grid: GridResults) -> dict[str, bytes]:
    """See :func:`htr_ray.report.build`."""
    writers: dict[str, dict[str, str]] = {}
    notes = list(grid.notes)
    for name, info in grid.corpora.items():
        uri = info.get("uri")
        if not uri or not any(trial.corpus == name and trial.readings for trial in grid.trials):
            continue
        try:
            writers[name] = test_writers(uri)
        except UserError as error:
            notes.append(f"{name}: no intervals over writers, the corpus could not be read: {error}")
    made = analyse(replace(grid, notes=notes), writers)
    document = compose(made)
    files = {
        PAGE: page(document).encode(),
        f"{FOLDER}/report.md": markdown(document).encode(),
        f"{FOLDER}/results.csv": csv_files.cells_csv(made),
        f"{FOLDER}/trials.csv": csv_files.trials_csv(made),
        f"{FOLDER}/comparisons.csv": csv_files.comparisons_csv(made),
        f"{FOLDER}/grid.yaml": facts.settings_yaml(grid).encode(),
    }
    if grid.searches:
        files[f"{FOLDER}/searches.csv"] = searches_csv(grid.searches)
    for figure in document.figures:
        files[f"{FOLDER}/{FIGURES}/{figure.id}.svg"] = figure.svg.encode()
    if grid.timeline is not None and (drawn := timeline_figure(grid.timeline)) is not None:
        files[f"{FOLDER}/timeline.png"] = png(drawn)
    return files
