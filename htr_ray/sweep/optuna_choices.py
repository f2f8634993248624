"""Choices from Optuna (https://optuna.org), through Ray Tune's search algorithm."""

from __future__ import annotations

from ray.tune.search.optuna import OptunaSearch

from htr_ray.config import GridSettings, Space
from htr_ray.errors import UserError
from htr_ray.sweep import space


def suggest(settings: GridSettings, wanted: Space, known: list[tuple[space.Values, float]], name: str) -> space.Values:
    """The next choice, given choices that have ended with a figure (more is better).

    Made anew for each choice from what is known, so that a grid that is continued goes on as if it had never stopped.
    Raises UserError when Optuna is not installed.
    """
    check_installed()
    import optuna
    from optuna.samplers import TPESampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each point that it is told
    search = OptunaSearch(
        OptunaSearch.convert_search_space({key: space.domain(settings, key, spec) for key, spec in wanted.items()}),
        metric="figure",
        mode="max",
        points_to_evaluate=[values for values, _ in known],
        evaluated_rewards=[figure for _, figure in known],
        # Its default draws the first ten at random, which would often be all.
        sampler=TPESampler(seed=space.seed(name), n_startup_trials=max(3, settings.search.choices // 4)),
    )
    found = search.suggest(name)
    assert found is not None
    return space.tidy({key: found[key] for key in wanted})


def check_installed() -> None:
    """Raise UserError when search.method=optuna cannot work here."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("search.method = 'optuna': Optuna is not installed; pip install 'htr-ray[optuna]'") from None
