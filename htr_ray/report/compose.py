"""The report's contents in order, from its numbers."""

from __future__ import annotations

from htr_ray.report import drawings, facts, tables, words
from htr_ray.report.analysis import Analysis
from htr_ray.report.document import Block, Bullets, Code, Document, Paragraph, Section
from htr_ray.report.examples import error_examples
from htr_ray.report.search_table import search_table
from htr_ray.storage import redacted

SUMMARY = "summary"


def compose(made: Analysis) -> Document:
    """All sections; those with nothing to show are left out."""
    sections = [
        Section(SUMMARY, "Summary", [*words.summary(made)]),
        Section("unfinished-trials", "Failed and missing trials", _some(tables.unfinished_table(made))),
        Section(
            "errors",
            "Errors on the test lines",
            [*tables.error_tables(made), *tables.writer_tables(made), *_some(tables.comparison_table(made))],
        ),
        Section("label-efficiency", "How errors fall with labels", [*drawings.label_curves(made)]),
        Section("labels-saved", "Labels saved", [*tables.saving_tables(made)]),
        Section(
            "pretext-tasks",
            "Pretext accuracy and gain",
            [
                *_some(tables.pretraining_table(made)),
                *drawings.gain_points(made),
                *_some(tables.gain_table(made)),
            ],
        ),
        Section("cost", "Cost", [*drawings.cost_points(made), *_some(tables.cost_table(made))]),
        Section("searches", "Hyperparameters", _some(search_table(made.grid.searches))),
        Section("learning-curves", "Learning curves", [*drawings.learning_curves(made)]),
        Section("examples", "Examples of errors", error_examples(made)),
        Section("timeline", "How the time was used", [*drawings.timeline(made)]),
        Section("data", "Data", [*facts.corpus_tables(made)]),
        Section("notes", "Notes", [Bullets([redacted(note) for note in made.notes])] if made.notes else []),
        Section(
            "reproduce",
            "How to reproduce this",
            [
                Paragraph(
                    "Save the settings as grid.yaml (it lies beside this page too), then run the command, with "
                    "corpora and storage as they are where you run it. The same seeds give the same label subsets and "
                    "first weights; threads and graphics cards can still change the last digits."
                ),
                Code(facts.command(made.grid), "sh", "Command"),
                Code(facts.settings_yaml(made.grid), "yaml", "grid.yaml"),
            ],
        ),
    ]
    kept = [section for section in sections if section.blocks]
    return Document(f"Report of the grid {made.grid.name}", kept, facts.versions())


def _some(block: Block | None) -> list[Block]:
    return [] if block is None else [block]
