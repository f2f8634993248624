"""Searches among hyperparameter choices: what each choice is, how it fared, which won; kept in the grid's storage."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from htr_ray import storage
from htr_ray.config import GridSettings, Space
from htr_ray.errors import UserError
from htr_ray.report.results import minutes_spared
from htr_ray.sweep import space
from htr_ray.sweep.cells import Trial, grid_folder
from htr_ray.train import checkpoint
from htr_ray.train.job import MODEL

logger = logging.getLogger(__name__)

SEARCH_FILE = "search.json"
_READERS = 8  # object stores answer slowly but in parallel
# Of each stage: the figure of a finished choice, and +1 where more is better.
FIGURES = {"pretrain": ("val_accuracy", 1), "finetune": ("val_cer", -1)}


class Choice(BaseModel):
    """One choice of a search, as far as it has come."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any]
    state: Literal["training", "done", "halved", "failed"] = "training"
    figure: float | None = None
    """Of a finished one: validation CER, or pretext accuracy; of a halved one, its best until then."""
    progress: float = 0.0
    minutes: float = 0.0
    rungs: dict[str, float] = {}
    """Percent of the schedule -> best figure until then, where it was compared."""
    failure: str | None = None


class Record(BaseModel):
    """``search.json``: one search."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    figure: str
    space: dict[str, Any]
    choices: dict[int, Choice] = {}
    winner: int | None = None


@dataclass
class Search:
    """One search. ``raced`` are the trials that judge its choices, by number; ``trials`` those that a choice is."""

    key: str
    trials: dict[int, Trial]
    raced: dict[int, Trial]
    record: Record
    decided: bool = False

    @property
    def sign(self) -> int:
        return FIGURES[self.stage][1]

    @property
    def stage(self) -> str:
        """The stage whose figure decides."""
        return next(iter(self.raced.values())).stage

    @property
    def winner(self) -> Trial | None:
        """The trial that won, once all have ended and if any finished."""
        return None if self.record.winner is None else self.trials[self.record.winner]


class Searches:
    """All searches of a grid. The driver's thread calls; files are written in the background, in order.

    Args:
        settings: of the grid.
        trials: as :func:`htr_ray.sweep.cells.expand` gives them.
        folder: where the grid is, if not where its settings say.
    """

    def __init__(self, settings: GridSettings, trials: Iterable[Trial], folder: str | None = None) -> None:
        self._settings = settings
        self._folder = folder or grid_folder(settings)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="htr-ray-searches")
        members: dict[str, list[Trial]] = {}
        for trial in trials:
            if trial.group is not None:
                members.setdefault(trial.group, []).append(trial)
        with ThreadPoolExecutor(_READERS) as pool:
            opened = pool.map(lambda member: self._open(*member), members.items())
            self._searches = dict(zip(members, opened, strict=True))

    def _open(self, key: str, found: list[Trial]) -> Search:
        trials = {int(t.choice or 0): t for t in found if not t.probe}
        raced = {int(t.choice or 0): t for t in found if t.probe} or trials
        plain = {
            name: spec if isinstance(spec, list) else spec.model_dump() for name, spec in self._space(trials[0]).items()
        }
        figure = FIGURES[next(iter(raced.values())).stage][0]
        return Search(key, trials, raced, self._read(key) or Record(figure=figure, space=plain))

    def _space(self, trial: Trial) -> Space:
        return space.space_for(self._settings, trial.stage, trial.pretext)

    def _read(self, key: str) -> Record | None:
        uri = storage.join(self._folder, key, SEARCH_FILE)
        if not storage.exists(uri):
            return None
        try:
            return Record.model_validate(storage.read_json(uri))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(f"{uri}: {where}: {error.errors()[0]['msg']}; delete it to search anew") from error

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searcher and scheduler for Tuner.restore(); a grid is continued from its own storage instead.
        return {}

    def __iter__(self) -> Iterator[Search]:
        return iter(self._searches.values())

    def __getitem__(self, key: str) -> Search:
        return self._searches[key]

    def __contains__(self, key: object) -> bool:
        return key in self._searches

    def resume(self, results: Mapping[str, dict[str, Any]]) -> None:
        """Take up what finished trials (``result.json`` by key) say; decide what can be decided.

        What had failed is tried again as long as its search is open, as other trials are.
        """
        for search in self:
            choices = search.record.choices
            if search.record.winner is not None and search.trials[search.record.winner].key not in results:
                search.record.winner = None  # somebody deleted it to train it anew
            again = ("done",) if search.record.winner is not None else ("done", "failed")
            for number, trial in search.raced.items():
                if trial.key in results:
                    self._finish(search, number, results[trial.key])
                elif number in choices and choices[number].state in again:
                    choices[number].state = "training"
            self._decide(search)

    def ended_before(self) -> set[str]:
        """Keys of trials without a result that must not run again: halved ones, and all of a decided search."""
        keys: set[str] = set()
        for search in self:
            for number, trial in search.raced.items():
                choice = search.record.choices.get(number)
                if search.decided or (choice is not None and choice.state == "halved"):
                    keys |= {trial.key, search.trials[number].key}
        return keys

    def settled(self, trial: Trial) -> bool:
        """Whether the searches that a trial rests on are decided, so that it can be resolved."""
        return all(
            self[key].winner is not None for key in (trial.waits_for, trial.takes) if key is not None and key in self
        )

    def resolve(self, trial: Trial) -> Trial:
        """The trial as it is to run: with the values of its choice, or of the search that it follows."""
        job, encoder = trial.job, trial.waits_for
        if encoder is not None and encoder in self:
            won = self[encoder].winner
            assert won is not None
            encoder = won.key
            job = job.model_copy(update={"encoder": storage.join(won.job.folder, MODEL)})
        if trial.takes is not None:
            number = self[trial.takes].record.winner
            assert number is not None
            job = space.apply(job, self[trial.takes].record.choices[number].values)
        elif trial.group is not None and not trial.probe:
            job = space.apply(job, self._values(trial))
        return replace(trial, job=job, waits_for=encoder)

    def _values(self, trial: Trial) -> space.Values:
        """What a choice is: as it was drawn once, or drawn now."""
        assert trial.group is not None and trial.choice is not None
        search, number = self[trial.group], trial.choice
        if number not in search.record.choices:
            wanted = self._space(trial)
            if self._settings.search.method == "optuna" and number > 0:
                values = self._ask(search, trial, wanted)
            else:
                values = space.draw(self._settings, wanted, search.key, number)
            search.record.choices[number] = Choice(values=values)
            self._write(search)
        return search.record.choices[number].values

    def _ask(self, search: Search, trial: Trial, wanted: Any) -> space.Values:
        from htr_ray.sweep.optuna_choices import suggest

        known = [
            (choice.values, choice.figure * search.sign)
            for number, choice in sorted(search.record.choices.items())
            # What was halved counts with its best until then: that it fell behind is what there is to learn.
            if number > 0 and choice.figure is not None and choice.state in ("done", "halved")
        ]
        return suggest(self._settings, wanted, known, f"{search.key}/{trial.choice}")

    def compared(self, trial: Trial, percent: float, figure: float) -> None:
        """Note the best figure of a choice when it first came to a rung."""
        search, choice = self._choice_of(trial)
        if f"{percent:g}" not in choice.rungs:
            choice.rungs[f"{percent:g}"] = figure
            self._write(search)

    def halve(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """Note that a choice fell behind and ends here; its checkpoint is of no use any more."""
        search, choice = self._choice_of(trial)
        choice.state, choice.figure = "halved", float(report["best"])
        choice.progress, choice.minutes = float(report["progress"]), float(report.get("minutes") or 0.0)
        self._write(search)

    def is_halved(self, trial: Trial) -> bool:
        return trial.group is not None and self._choice_of(trial)[1].state == "halved"

    def ended(self, trial: Trial, *, result: Mapping[str, Any] | None = None, failure: str | None = None) -> None:
        """Note the end of a trial; where it was the last of its search, the search is decided."""
        if trial.group is None:
            return
        search, choice = self._choice_of(trial)
        number = int(trial.choice or 0)
        if failure is not None:
            choice.state, choice.failure = "failed", failure
        elif result is not None and search.raced[number].key == trial.key:
            self._finish(search, number, result)
        elif choice.state == "halved":
            self._writer.submit(_quietly, checkpoint.clear, trial.job.folder)
        self._write(search)
        self._decide(search)

    def _finish(self, search: Search, number: int, result: Mapping[str, Any]) -> None:
        choices = search.record.choices
        if number not in choices:  # the file was lost; what was drawn at random is drawn again
            trial = search.trials[number]
            wanted = self._space(trial)
            choices[number] = Choice(values=space.draw(self._settings, wanted, search.key, number))
        choice = choices[number]
        choice.state, choice.figure, choice.progress = "done", result.get(search.record.figure), 1.0
        choice.minutes = float(result.get("minutes") or 0.0)

    def _decide(self, search: Search) -> None:
        choices = search.record.choices
        if search.decided or any(n not in choices or choices[n].state == "training" for n in search.raced):
            return
        search.decided = True
        done = {n: c.figure for n, c in choices.items() if c.state == "done" and c.figure is not None}
        # The lower number where two are equal: the recipe as it stands before any other.
        search.record.winner = max(done, key=lambda n: (search.sign * done[n], -n)) if done else None
        self._write(search)

    def failure_of(self, key: str) -> str | None:
        """Why a decided search has no winner, or None."""
        search = self[key]
        if not search.decided or search.record.winner is not None:
            return None
        number, last = max(search.record.choices.items())
        return f"all {len(search.raced)} choices failed; choice {number}: {last.failure}"

    def cells(self, trials: Iterable[Trial]) -> list[Trial]:
        """The trials that stand for cells and encoders: of a search its winner, or a blank while it is open."""
        shown: list[Trial] = []
        told: set[str] = set()
        for trial in trials:
            if trial.group is None:
                shown.append(trial)
            elif trial.group not in told:
                told.add(trial.group)
                shown.append(self[trial.group].winner or replace(trial, key=trial.group))
        return shown

    def notes(self) -> list[str]:
        """For people: what each search chose, and what it left."""
        told = []
        for search in self:
            states = [choice.state for choice in search.record.choices.values()]
            if search.record.winner is None:
                continue
            won = search.record.choices[search.record.winner]
            values = ", ".join(f"{key}={value}" for key, value in won.values.items()) or "the recipe as it stands"
            counts = ", ".join(f"{states.count(s)} {s}" for s in ("done", "halved", "failed") if s in states)
            told.append(
                f"{search.key}: choice {search.record.winner} of {len(search.raced)} ({values}), "
                f"{search.record.figure} {won.figure:.1f} % ({counts})"
            )
        return told

    def saved(self) -> tuple[float, float]:
        """Minutes that all choices took, and that the halved ones would have taken more at their own pace."""
        choices = [choice for search in self for choice in search.record.choices.values()]
        more = sum(minutes_spared(choice.state, choice.progress, choice.minutes) for choice in choices)
        return sum(c.minutes for c in choices), more

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.shutdown(wait=True)

    def _choice_of(self, trial: Trial) -> tuple[Search, Choice]:
        assert trial.group is not None
        search, number = self[trial.group], int(trial.choice or 0)
        if number not in search.record.choices:
            self._values(search.trials[number])
        return search, search.record.choices[number]

    def _write(self, search: Search) -> None:
        uri, content = storage.join(self._folder, search.key, SEARCH_FILE), search.record.model_dump(mode="json")
        self._writer.submit(_quietly, storage.write_json, uri, content)


def _quietly(work: Any, *args: Any) -> None:
    """The grid goes on without the note: whoever continues it trains a choice again."""
    try:
        work(*args)
    except UserError as error:
        logger.warning("%s", error)
