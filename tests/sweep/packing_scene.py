"""Sweeps whose trials train nothing, on the real searcher, placement groups and Ray Train worker groups.

Run as a script, it is a driver of its own: ``packing_scene.py ADDRESS FOLDER``.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle
from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler

from htr_ray import storage
from htr_ray.config import GridSettings, load
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.resources import need
from htr_ray.sweep.run import cluster_capacity
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Searches
from htr_ray.sweep.trainable import EndsWhenStopped, Leftovers, placement, run_trial
from htr_ray.train.job import RESULT, Job
from htr_ray.train.worker import Worker

# Ray's processes do not find this folder: send them the classes, not their names.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def trials_of(folder: Path, *overrides: str) -> tuple[GridSettings, dict[str, Trial]]:
    """The trials of a grid, by key without its unchanging parts."""
    settings = load(GridSettings, overrides=["corpora=[c]", f"storage={folder}", *overrides], environment={})
    return settings, {trial.key: trial for trial in expand(settings)}


def play(acts: dict[str, str], folder: str, job: Job, data: Any, worker: Worker) -> dict[str, Any]:
    """Instead of training: ``meet N``, ``go on`` (until stopped), or ``break``."""
    act = next(act for key, act in acts.items() if job.folder.endswith(key))
    meeting = Path(folder) / "meeting"
    meeting.mkdir(exist_ok=True)
    name = f"{job.stage}-{abs(hash(job.folder))}-{worker.rank}"
    (meeting / name).write_text(ray.get_runtime_context().get_node_id())
    epoch = 0

    def waits() -> bool:
        missing = act.startswith("meet") and len(list(meeting.iterdir())) < int(act.split()[1])
        return bool(worker.gather(act == "go on" or missing)[0])

    while waits():
        worker.report({"epoch": epoch, "epoch_end": True, "progress": 0.1, "seconds": 0.0})
        epoch += 1
        time.sleep(0.2)
    worker.report({"epoch": epoch, "epoch_end": True, "progress": 0.1, "seconds": 0.0})
    if act == "break":
        time.sleep(2.0)
        raise RuntimeError("broken on purpose")
    result = {"stage": job.stage, "world": worker.world}
    if worker.leads:
        storage.write_json(storage.join(job.folder, RESULT), result)
    return result


class Scene:
    """The trainable of the grid, with :func:`play` where it would train."""

    __mixins__ = (EndsWhenStopped,)

    def __init__(self, acts: dict[str, str], folder: Path, gpus: dict[str, float]) -> None:
        self._play = functools.partial(play, acts, str(folder))
        self._gpus = gpus

    def __call__(self, config: dict[str, Any]) -> None:
        from htr_ray.train import launch

        instead: Any = self._play

        def loop(given: dict[str, Any]) -> None:
            import ray.train

            context = ray.train.get_context()
            worker = Worker(rank=context.get_world_rank(), world=context.get_world_size(), report=ray.train.report)
            instead(Job.model_validate_json(given["job"]), None, worker)

        launch.open_data = lambda job: None
        launch._run = instead
        launch._worker_loop = loop
        launch._backend = lambda gpus: "gloo"  # the cards are only said to be there
        run_trial(config, gpus=self._gpus[config["key"]])


class Stops(FIFOScheduler):
    """Stops every trial that goes on, in the middle of its training."""

    def __init__(self, acts: dict[str, str]) -> None:
        super().__init__()
        self._acts = acts

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._acts[trial.config["key"]] == "go on" and result.get("epoch", 0) >= 2
        return FIFOScheduler.STOP if goes_on else FIFOScheduler.CONTINUE


class GivesUp(Callback):
    """Tells the searcher which trials Tune has given up, as the grid's own callback does."""

    def __init__(self, searcher: GridSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._searcher.broke(trial.config["key"], "broken", final=not trial.should_recover())


def sweep(
    settings: GridSettings,
    trials: list[Trial],
    acts: dict[str, str],
    folder: Path,
    *,
    at_most: int | None = None,
    max_failures: int = 0,
    callbacks: tuple[Callback, ...] = (),
    stops: bool = True,
    seen: Callable[[dict[str, Any]], None] | None = None,
) -> GridSearcher:
    """Run the trials as the grid does; returns the searcher, which knows who failed."""
    cards = ray.cluster_resources().get("GPU", 0.0)
    needs = {trial.key: need(trial, cards) for trial in trials}
    searcher = GridSearcher(
        trials,
        set(),
        searches=Searches(settings, []),
        need=lambda trial: needs[trial.key],
        capacity=cluster_capacity,
        max_concurrent=at_most,
    )
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(len(trials))
    tune.Tuner(
        tune.with_resources(
            Scene(acts, folder, {key: wanted.gpus_per_worker for key, wanted in needs.items()}),
            lambda config: placement(needs[config["key"]]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Stops(acts) if stops else None,
            num_samples=len(trials),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="scene",
            storage_path=str(folder / "tune"),
            callbacks=[Leftovers(), GivesUp(searcher), *callbacks],
            failure_config=tune.FailureConfig(max_failures=max_failures),
            verbose=0,
        ),
    ).fit()
    return searcher


class Tell(Callback):
    """Says on the standard output that a trial trains."""

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        print("trains", flush=True)


if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
    place = Path(sys.argv[2])
    asked, known = trials_of(place, "pretexts=[flip]", "pretrain.workers=2", "stream.cpus_per_worker=0.5")
    group = known["pretrain/c/flip/seed0"]
    sweep(asked, [group], {group.key: "go on"}, place, callbacks=(Tell(),), stops=False)
