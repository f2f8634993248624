"""All numbers of a report, assembled from a grid's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from htr_ray.report.cells import NONE, Cell, Place, add_intervals, cells_of
from htr_ray.report.comparisons import Comparison, compare_cells, corrected, with_none
from htr_ray.report.costs import Cost, costs_of
from htr_ray.report.counts import Counts, count
from htr_ray.report.draws import draw
from htr_ray.report.gains import Gain, Pretraining, gains_of, pretrainings_of
from htr_ray.report.means import mean
from htr_ray.report.notes import uncounted, unused_lines
from htr_ray.report.results import GridResults, TrialResult
from htr_ray.report.savings import Saving, savings_of


@dataclass(frozen=True)
class Analysis:
    """All numbers of a report."""

    grid: GridResults
    corpora: list[str]
    pretexts: list[str]
    seeds: list[int]
    cells: dict[tuple[Place, str], Cell]
    pretrainings: list[Pretraining]
    comparisons: list[Comparison]
    savings: list[Saving]
    gains: list[Gain]
    costs: list[Cost]
    champions: dict[str, TrialResult]
    """By corpus, the recognizer with the lowest validation CER (test chooses nothing)."""
    test_lines: dict[str, int]
    test_writers: dict[str, int]
    """Writers of the test lines, where they are known."""
    notes: list[str]

    @property
    def places(self) -> list[Place]:
        return list(dict.fromkeys(place for place, _ in self.cells))

    def row(self, place: Place) -> list[Cell]:
        """The cells of a row, in the order of the pretexts."""
        return [cell for (where, _), cell in self.cells.items() if where == place]

    def comparison(self, place: Place, pretext: str) -> Comparison | None:
        """The comparison of a cell with its row's cell from scratch, if there is one."""
        return with_none(self.comparisons).get((place, pretext))

    @property
    def unfinished(self) -> list[TrialResult]:
        return [trial for trial in self.grid.trials if trial.state != "done"]


def analyse(grid: GridResults, writers: Mapping[str, Mapping[str, str]]) -> Analysis:
    """Compute everything. ``writers``: by corpus, the writers of its test lines by line id, where known."""
    trials = grid.trials
    corpora = list(dict.fromkeys([*grid.corpora, *(trial.corpus for trial in trials)]))
    pretexts = _pretexts(grid)
    cells = cells_of(trials, corpora, pretexts)
    counts = {name: found for name in corpora if (found := _count(trials, name, writers.get(name, {})))}
    comparisons: list[Comparison] = []
    for corpus, counted in counts.items():
        if counted.characters.sum() == 0:
            continue
        mine = {key: cell for key, cell in cells.items() if cell.place.corpus == corpus}
        by_line = draw(counted)
        several = counted.writers is not None and len(set(counted.writers)) > 1
        add_intervals(mine.values(), by_line, draw(counted, counted.writers) if several else None)
        comparisons += compare_cells(corpus, mine, pretexts, counted, by_line)
    comparisons = corrected(comparisons)
    pretrainings = pretrainings_of(trials, corpora, pretexts)
    return Analysis(
        grid=grid,
        corpora=corpora,
        pretexts=pretexts,
        seeds=sorted({trial.seed for trial in trials}),
        cells=cells,
        pretrainings=pretrainings,
        comparisons=comparisons,
        savings=savings_of(cells, comparisons),
        gains=gains_of(cells, pretrainings, comparisons),
        costs=costs_of(cells, pretrainings),
        champions={corpus: best for corpus in corpora if (best := _champion(trials, corpus))},
        test_lines={corpus: len(counted.ids) for corpus, counted in counts.items()},
        test_writers={
            corpus: len(set(counted.writers)) for corpus, counted in counts.items() if counted.writers is not None
        },
        notes=[
            *grid.notes,
            *(note for corpus, counted in counts.items() for note in uncounted(corpus, counted)),
            *unused_lines(trials, corpora),
        ],
    )


def _pretexts(grid: GridResults) -> list[str]:
    """Those that trials have: none, then in the order of the settings."""
    found = dict.fromkeys(trial.pretext for trial in grid.trials)
    names = [name for name in dict.fromkeys([*grid.settings.get("pretexts", []), *found]) if name in found]
    return sorted(names, key=lambda name: name != NONE)


def _count(trials: Sequence[TrialResult], corpus: str, writers: Mapping[str, str]) -> Counts | None:
    readings = {
        trial.key: trial.readings
        for trial in trials
        if trial.corpus == corpus and trial.state == "done" and trial.readings
    }
    return count(readings, writers) if readings else None


def _champion(trials: Sequence[TrialResult], corpus: str) -> TrialResult | None:
    mine = [
        trial
        for trial in trials
        if trial.corpus == corpus
        and trial.stage == "finetune"
        and trial.state == "done"
        and mean([trial.result.get("val_cer")]) is not None
    ]
    return min(mine, key=lambda trial: trial.result["val_cer"], default=None)
