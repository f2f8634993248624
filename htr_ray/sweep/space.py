"""Search spaces: which settings they name, which choices are drawn from them, and how a choice changes a job."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

import numpy as np
from pydantic import ValidationError
from ray import tune
from ray.tune.search.sample import Domain

from htr_ray.config import PRETEXTS, GridSettings, Range, Space
from htr_ray.errors import UserError
from htr_ray.sweep.recipe import FREE_STAGE
from htr_ray.train.job import Job

# What may differ between choices: never the network, which an encoder and its cells share.
SEARCHABLE = {
    "pretrain": ("pretrain.", "pretext.", "augment."),
    "finetune": ("finetune.", "augment.", "model.dropout", "model.transformer.dropout", "model.transformer.label_"),
}
# The parts of a job, by the first part of a setting's name.
PARTS = {
    "model": "model",
    "augment": "augment",
    "pretext": "pretext_settings",
    "pretrain": "pretrain",
    "finetune": "finetune",
}
# Each choice is drawn from an order of all of them.
MOST_COMBINATIONS = 10**6
Values = dict[str, Any]
"""One choice: setting (or pattern) -> value; empty: the recipe as it stands."""


def check(settings: GridSettings) -> None:
    """Raise UserError for a space that names what is no setting, what cannot be searched, or a wrong value."""
    search = settings.search
    for stage in SEARCHABLE:
        for pattern, spec in search.space(stage).items():
            where = f"search.{stage}: {pattern}"
            keys = _targets(settings, stage, pattern, where)
            if search.scope == "stage" and _task_of(pattern):
                raise UserError(
                    f"{where}: belongs to the pretext task {_task_of(pattern)} alone, and search.scope=stage asks for "
                    "one choice for all of them; use search.scope=cell"
                )
            for value in _limits(spec):
                for key in keys:
                    _check_value(settings, key, value, where)


def _targets(settings: GridSettings, stage: str, pattern: str, where: str) -> list[str]:
    """The settings that a pattern stands for."""
    allowed = [
        key
        for key in _flat(settings.model_dump(include=set(PARTS)))
        if key.startswith(SEARCHABLE[stage]) and key.rsplit(".", 1)[-1] not in FREE_STAGE
    ]
    found = [key for key in allowed if fnmatchcase(key, pattern)]
    if not found:
        close = difflib.get_close_matches(pattern, allowed, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"searchable are {', '.join(SEARCHABLE[stage])}..."
        raise UserError(f"{where}: no setting that can be searched in this stage; {hint}")
    return found


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name]
    return keys


def _limits(spec: list[Any] | Range) -> list[Any]:
    return [spec.low, spec.high] if isinstance(spec, Range) else spec


def _check_value(settings: GridSettings, key: str, value: Any, where: str) -> None:
    part, rest = key.split(".", 1)
    try:
        type(getattr(settings, part)).model_validate(_changed(getattr(settings, part).model_dump(), rest, value))
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {value!r}: {why[0].lower()}{why[1:]}") from error


def _changed(node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """``node`` with the dotted ``key`` set."""
    name, _, rest = key.partition(".")
    return {**node, name: _changed(node[name], rest, value) if rest else value}


def _task_of(pattern: str) -> str | None:
    """The pretext task that a setting belongs to alone (``pretext.jigsaw_gap``), or None."""
    return next((task for task in PRETEXTS if pattern.startswith(f"pretext.{task}_")), None)


def space_for(settings: GridSettings, stage: str, pretext: str) -> Space:
    """The part of a stage's space that means something for a pretext task; empty: nothing to search."""
    return {
        pattern: spec for pattern, spec in settings.search.space(stage).items() if _task_of(pattern) in (None, pretext)
    }


def count(settings: GridSettings, space: Space) -> int:
    """How many choices there are: as many as asked, or fewer where the space has no more."""
    finite = _finite(settings, space)
    asked = settings.search.choices
    return asked if finite is None else min(asked, 1 + finite.others)


@dataclass(frozen=True)
class _Finite:
    """The combinations of lists, by their numbers in the order of ``itertools.product``."""

    lists: dict[str, list[Any]]
    own: list[int]
    """Numbers of those that are the recipe as it stands, ascending."""

    @property
    def sizes(self) -> list[int]:
        return [len(values) for values in self.lists.values()]

    @property
    def others(self) -> int:
        return math.prod(self.sizes) - len(self.own)

    def other(self, number: int) -> Values:
        """The ``number``-th of the others, from 0."""
        for own in self.own:
            number += own <= number
        places = np.unravel_index(number, self.sizes)
        return {key: values[place] for (key, values), place in zip(self.lists.items(), places, strict=True)}


def _finite(settings: GridSettings, space: Space) -> _Finite | None:
    """A space of lists; None: there are infinitely many choices. Raises UserError where there are too many."""
    lists = {key: spec for key, spec in space.items() if not isinstance(spec, Range)}
    if len(lists) < len(space):
        return None
    sizes = [len(values) for values in lists.values()]
    if math.prod(sizes) > MOST_COMBINATIONS:
        raise UserError(
            f"search: the lists of {', '.join(space)} have {math.prod(sizes):,} combinations, more than "
            f"{MOST_COMBINATIONS:,}; give ranges ({{low: ..., high: ...}}) in place of some"
        )
    same = [[n for n, value in enumerate(values) if _has(settings, key, value)] for key, values in lists.items()]
    return _Finite(lists, [int(np.ravel_multi_index(places, sizes)) for places in itertools.product(*same)])


def _has(settings: GridSettings, pattern: str, value: Any) -> bool:
    """Whether the recipe has this value already."""
    found = []
    for key in _flat(settings.model_dump(include=set(PARTS))):
        if fnmatchcase(key, pattern):
            node: Any = settings
            for name in key.split("."):
                node = getattr(node, name)
            found.append(node == value)
    return all(found)


def draw(settings: GridSettings, space: Space, group: str, number: int) -> Values:
    """Choice ``number`` of a search, the same whenever and wherever it is drawn; 0 is the recipe as it stands."""
    if number == 0:
        return {}
    finite = _finite(settings, space)
    if finite is not None:
        return finite.other(int(np.random.RandomState(seed(group)).permutation(finite.others)[number - 1]))
    state = np.random.RandomState(seed(f"{group}/{number}"))
    return tidy({key: domain(settings, key, spec).sample(random_state=state) for key, spec in space.items()})


def seed(text: str) -> int:
    """A number that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def tidy(values: Values) -> Values:
    """Values as a person would write them: four digits, no numpy types."""
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in plain.items()}


def domain(settings: GridSettings, pattern: str, spec: list[Any] | Range) -> Domain:
    """Ray Tune's form of a part of the space; whole numbers where the setting is one."""
    if isinstance(spec, list):
        return tune.choice(spec)
    if _is_whole(settings, pattern):
        return (tune.lograndint if spec.log else tune.randint)(int(spec.low), int(spec.high) + 1)
    return (tune.loguniform if spec.log else tune.uniform)(spec.low, spec.high)


def _is_whole(settings: GridSettings, pattern: str) -> bool:
    key = next(key for key in _flat(settings.model_dump(include=set(PARTS))) if fnmatchcase(key, pattern))
    *path, name = key.split(".")
    node: Any = settings
    for part in path:
        node = getattr(node, part)
    kinds = [type(node).model_fields[name].annotation]
    while optional := [kind for kind in kinds if get_args(kind)]:  # int | None, Annotated[int, ...]
        kinds = [kind for kind in kinds if kind not in optional] + [arg for kind in optional for arg in get_args(kind)]
    return int in kinds


def apply(job: Job, values: Values) -> Job:
    """The job with the settings of a choice."""
    parts = {part: getattr(job, part) for part in PARTS.values()}
    for pattern, value in values.items():
        field = PARTS[pattern.split(".", 1)[0]]
        if parts[field] is None:
            continue
        node = parts[field].model_dump()
        for key in _flat(node):
            if fnmatchcase(f"{pattern.split('.', 1)[0]}.{key}", pattern):
                node = _changed(node, key, value)
        parts[field] = type(parts[field]).model_validate(node)
    return job.model_copy(update=parts)
