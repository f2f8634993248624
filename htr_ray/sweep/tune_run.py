"""The run of Ray Tune: its settings, and the trainable that it starts."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass

from ray import tune
from ray.tune.execution import class_cache

from htr_ray.config import GridSettings
from htr_ray.sweep.budget import Budget
from htr_ray.sweep.callbacks import GridCallback
from htr_ray.sweep.halving import CellHalving
from htr_ray.sweep.resources import need_of
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.trainable import Dispatch, Leftovers, placement
from htr_ray.train.job import Job


@dataclass(frozen=True)
class Own:
    """What htr-ray brings to a run of Ray Tune: its own search algorithm, scheduler, stopper and callback."""

    searcher: GridSearcher
    halving: CellHalving | None
    budget: Budget
    callback: GridCallback


_TUNE_ENVIRONMENT = {
    # The board tells the story; Tune's own tables would only interrupt it.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Of each trial Tune would keep a CSV, a JSON and a TensorBoard file open, and a thread for the last; of each
    # result they were the largest part of the driver's work. MLflow has it all.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own state is for Tuner.restore(), which is not used; writing it stops the driver for seconds when there
    # are thousands of trials. Once at the beginning and once at the end remain.
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
}


def tune_trials(settings: GridSettings, own: Own, gpus: float, slots: int) -> None:
    """Have Ray Tune run the trials that the searcher hands out, until it says that all have ended.

    ``gpus``: of the cluster. ``slots``: trials at a time.
    """
    # Tune fetches and unpickles the trainable anew for each trial, so it holds nothing that grows with the grid.
    # The GPU share of a trial can differ by stage; Tune asks per trial.
    trainable = tune.with_resources(
        Dispatch(gpus), lambda config: placement(need_of(Job.model_validate(config["job"]), gpus))
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    # It would count trials as incomplete that were handed out again and are done.
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
    for name, value in _TUNE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Tune starts one trial at a time otherwise, each waiting for the process of the one before.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(slots))
    # For PyTorch Lightning, which is not here. A trial with an environment of its own gets a process of its own, and so
    # does its stream; without, they get those that Ray has ready.
    class_cache.DEFAULT_ENV_VARS.pop("PL_DISABLE_FORK", None)
    retries = max(settings.pretrain.retries, settings.finetune.retries)  # Tune has one number for all trials
    with tempfile.TemporaryDirectory(prefix="htr-ray-tune-") as scratch:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=own.searcher,
                scheduler=own.halving,
                num_samples=-1,  # the searcher says when all have ended
                # Imports and start-up are paid once per process, not once per trial.
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["key"].replace("/", "-"),
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=settings.name,
                # Tune's own bookkeeping only: what must last is in the grid's storage.
                storage_path=scratch,
                callbacks=[own.callback, Leftovers()],
                stop=own.budget,
                failure_config=tune.FailureConfig(max_failures=retries),
                verbose=0,
            ),
        ).fit()
