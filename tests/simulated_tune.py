"""The real Ray Tune on a simulated cluster: a grid of weeks in seconds, in one process.

Everything above the actors is the real thing: ``tune.Tuner(...).fit()``, its ``TuneController`` and
``RayActorManager``, and the sweep room's searcher, scheduler, stopper and callbacks. Simulated is what these ask of
Ray: placement groups, actors, their tasks, and the waiting for all of them. Two seams are used, see
:func:`simulated`: the ``resource_manager_factory`` that ``TuneController`` takes, and the name ``ray`` in the two
modules that wait for and fetch results.

An actor takes time to start; ``train`` answers when its trial has trained an epoch more; ``reset`` reuses it. A trial
of several workers holds its own small group, asks for another when it begins, and waits for it. A trial goes on after
its last finished epoch.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray
import ray.air.execution._internal.actor_manager as actor_manager
import ray.air.execution._internal.event_manager as event_manager
import ray.tune.tune
from ray.air.execution.resources import AcquiredResources, ResourceManager, ResourceRequest
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.result import RESULT_DUPLICATE
from rich.console import Console
from simulated_cluster import Future, Group, Machines, Work, World

from htr_ray.config import GridSettings
from htr_ray.sweep.board import Board
from htr_ray.sweep.budget import Budget
from htr_ray.sweep.callbacks import GridCallback
from htr_ray.sweep.cells import Trial, expand
from htr_ray.sweep.halving import CellHalving
from htr_ray.sweep.progress import Use
from htr_ray.sweep.record import Recorder
from htr_ray.sweep.resources import at_a_time, need
from htr_ray.sweep.searcher import GridSearcher
from htr_ray.sweep.searches import Searches
from htr_ray.sweep.tune_run import Own, tune_trials

Watch = Callable[[TuneController, Callable[[], None]], None]


def run_simulated(
    settings: GridSettings,
    machines: Machines,
    work: Callable[[Trial], Work],
    recorder: Recorder,
    console: Console,
    watch: Callable[[World], Watch] | None = None,
    order: Callable[[list[Trial]], list[Trial]] = list,
) -> tuple[World, GridSearcher]:
    """Run a grid, as ``htr_ray.sweep.run`` does, on simulated machines; the world and the searcher at the end.

    Args:
        settings: of the grid; its corpora need not exist.
        machines: the cluster.
        work: how long a trial trains.
        recorder: what the callbacks tell the trials to.
        console: of the board.
        watch: makes what is called instead of each step of Tune's controller, with the step; for measurements.
        order: of the trials, if not the grid's own.

    Raises:
        Stuck: nothing will ever happen again, though trials are left.
    """
    trials = order(expand(settings))
    gpus = float(machines.nodes * machines.gpus)
    wanted = functools.partial(need, cluster_gpus=gpus)
    world = World(machines, {trial.key: trial for trial in trials}, wanted, work)
    slots = min(at_a_time(wanted(trial), *world.capacity()) for trial in trials)

    def look() -> Use:
        cpus, gpus = world.capacity()
        return Use(machines.nodes, cpus, gpus, 0.0, 0.0)

    with tempfile.TemporaryDirectory(prefix="htr-ray-simulated-") as folder:
        searches = Searches(settings, trials, folder)
        searcher = GridSearcher(
            trials, set(), searches=searches, need=wanted, capacity=world.capacity, max_concurrent=None
        )
        halving = CellHalving(settings.search, searches, searcher) if settings.search.halving else None
        budget = Budget(settings.budget, searcher.gpu_hours)
        board = Board(settings.name, trials, {}, console, need=wanted, look=look, clock=lambda: world.now)
        with simulated(world, watch and watch(world)):
            own = Own(searcher, halving, budget, GridCallback(searcher, board, recorder))
            tune_trials(settings, own, gpus, slots)
        board.close()
        searches.close()
    return world, searcher


@contextmanager
def simulated(world: World, watch: Watch | None = None) -> Iterator[None]:
    """Within: ``tune.Tuner(...).fit()`` of this process runs on ``world``. A (local) Ray must be there for the rest.

    Args:
        world: the cluster.
        watch: is called instead of each step of the controller, with the step; for measurements.
    """

    class Controller(TuneController):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(resource_manager_factory=lambda: _Resources(world), **kwargs)

        def step(self) -> None:
            if watch is None:
                super().step()
            else:
                watch(self, super().step)

    def kill(actor: Actor) -> None:
        actor.die()

    # The names that these modules use of ray, and nothing else of it.
    waiting = SimpleNamespace(wait=world.wait, kill=kill, actor=ray.actor, ObjectRef=ray.ObjectRef)
    with (
        mock.patch.object(ray.tune.tune, "TuneController", Controller),
        mock.patch.object(actor_manager, "ray", waiting),
        mock.patch.object(event_manager, "ray", SimpleNamespace(get=world.get, wait=world.wait)),
    ):
        yield


class Actor:
    """A trainable's process, as the actor manager sees it: each method has ``remote``."""

    def __init__(self, world: World, group: Group, config: dict[str, Any]) -> None:
        self._world, self._group, self._config = world, group, config
        self._alive, self._started = True, False
        self._inner: Group | None = None
        self._pending: set[Future] = set()
        self._iteration = 0
        self._training = False
        self._life = world.chance.expovariate(1.0) * world.machines.actor_life
        self._ended = False
        group.user = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__ray"):
            raise AttributeError(name)
        if name == "get_auto_filled_metrics":  # asked for at each start, for trials that never report
            return SimpleNamespace(remote=lambda **_: None)
        return SimpleNamespace(remote=lambda *args, **kwargs: self._call(name.strip("_"), *args, **kwargs))

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Future:
        future = Future()
        with self._world.own_time():
            if self._alive:
                self._pending.add(future)
                getattr(self, f"_do_{name}")(future, *args, **kwargs)
            else:
                self._world.resolve(future, error=RayActorError())
        return future

    def _answer(self, seconds: float, future: Future, make: Callable[[], Any]) -> None:
        def happen() -> None:
            if future in self._pending:
                self._pending.remove(future)
                self._world.resolve(future, make())

        self._world.after(seconds, happen)

    def _do_ray_ready(self, future: Future) -> None:
        seconds = self._world.machines.actor_start * self._world.chance.uniform(0.7, 1.5)
        if self._group.places:
            self._answer(seconds, future, lambda: True)
        else:  # its node has left since the group was made
            self._group.then = lambda: self._answer(seconds, future, lambda: True)

    def _do_reset(self, future: Future, config: dict[str, Any], **_: Any) -> None:
        self._leave_training()  # a trial that was stopped rather than ended
        self._config, self._started, self._ended, self._iteration = config, False, False, 0
        self._answer(self._world.machines.actor_reset, future, lambda: True)

    def _do_stop(self, future: Future) -> None:
        self._leave_training()
        self._answer(0.2, future, lambda: None)

    _do_ray_terminate = _do_stop

    def _do_train(self, future: Future) -> None:
        world, key = self._world, self._config["key"]
        if self._ended:  # the function has returned: Tune is told so
            self._answer(0.01, future, lambda: {RESULT_DUPLICATE: True})
            return
        if not self._started:
            self._started = True
            need = world.need(key)
            if need.workers > 1:
                worker = {"CPU": need.worker_cpus, "GPU": need.gpus_per_worker}
                streams = [{"CPU": need.stream_worker_cpus}] * need.stream_workers

                def placed() -> None:
                    if self._alive and future in self._pending:
                        world.after(world.machines.group_start, lambda: self._train(future))

                self._inner = world.request([worker] * need.min_workers + streams, placed)
                self._inner.user = self
                return
        self._train(future)

    def _train(self, future: Future) -> None:
        world, key = self._world, self._config["key"]
        if not self._alive or future not in self._pending:
            return
        if not self._training:
            self._training = True
            world.begins(key)
        work = world.work(key)
        if world.epochs[key] >= work.epochs:  # all epochs are reported; the result is next
            self._answer(20.0, future, self._last)
            return
        seconds = work.epoch_seconds
        self._life -= seconds
        if self._life < 0:
            world.after(seconds / 2, self.die)
            return
        self._answer(seconds, future, lambda: self._epoch(seconds))

    def _epoch(self, seconds: float) -> dict[str, Any]:
        world, key = self._world, self._config["key"]
        world.epochs[key] += 1
        epoch, total = world.epochs[key], world.work(key).epochs
        cer = 8 + 80 * 0.9**epoch
        figures = {"loss": cer / 20, "val_cer": cer, "val_wer": 2 * cer, "val_gcer": cer, "rate": 1e-3, "gradient": 1.0}
        if world.trials[key].stage == "pretrain":
            figures = {"loss": cer / 20, "val_accuracy": 100 - cer, "rate": 1e-3, "gradient": 1.0}
        system = {f"system/{name}": 50.0 for name in ("cpu", "memory", "gpu", "gpu_memory", "stream_wait")}
        told = {"epoch": epoch, "epoch_end": True, "progress": epoch / total, "seconds": seconds * epoch, "best": cer}
        return self._filled({**figures, **system, "lines_per_second": 900.0, **told}, seconds)

    def _last(self) -> dict[str, Any]:
        self._ended = True
        key = self._config["key"]
        self._leave_training()
        self._world.finishes(key)
        result = {"test_cer": 9.1, "test_wer": 20.0, "val_cer": 9.0, "parameters": 4e7, "epochs": 30, "minutes": 40.0}
        ended = {"finished": True, "epoch_end": False, "progress": 1.0, "result": result}
        return self._filled(ended, 20.0)

    def _filled(self, result: dict[str, Any], seconds: float) -> dict[str, Any]:
        """What Tune's ``Trainable.get_auto_filled_metrics`` adds, the configuration among it."""
        self._iteration += 1
        return {
            **result,
            **{"done": False, "training_iteration": self._iteration, "iterations_since_restore": self._iteration},
            **{"trial_id": "x", "date": "2026-01-01_00-00-00", "timestamp": int(self._world.now), "pid": 4711},
            **{"time_this_iter_s": seconds, "time_total_s": seconds, "time_since_restore": seconds},
            **{"hostname": "node", "node_ip": "10.0.0.1"},
            "config": {k: v for k, v in self._config.items() if not k.startswith("__")},
        }

    def _leave_training(self) -> None:
        if self._training:
            self._training = False
            self._world.pauses(self._config["key"])
        if self._inner is not None:
            self._inner.user = None
            inner, self._inner = self._inner, None
            self._world.remove(inner)

    def die(self) -> None:
        if not self._alive:
            return
        self._alive = False
        self._world.deaths += 1
        self._leave_training()
        for future in self._pending:
            self._world.resolve(future, error=RayActorError())
        self._pending.clear()


class _Acquired(AcquiredResources):
    def __init__(self, world: World, group: Group, request: ResourceRequest) -> None:
        super().__init__(request)
        self._world, self.group = world, group

    def _annotate_remote_entity(self, entity: Any, bundle: dict[str, float], bundle_index: int) -> Any:
        return SimpleNamespace(remote=lambda config, **_: Actor(self._world, self.group, config))


class _Resources(ResourceManager):
    """Placement groups of the simulated cluster, handled as Ray's own ``PlacementGroupResourceManager`` does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._staged: dict[Future, tuple[ResourceRequest, Group]] = {}
        self._placed: set[Future] = set()
        self._ready: dict[ResourceRequest, list[Group]] = {}

    def request_resources(self, resource_request: ResourceRequest) -> None:
        future = Future()

        def placed() -> None:
            self._placed.add(future)
            self._world.resolve(future)

        with self._world.own_time():
            self._staged[future] = (resource_request, self._world.request(resource_request.bundles, placed))

    def get_resource_futures(self) -> list[Future]:
        return list(self._staged)

    def update_state(self) -> None:
        for future in self._placed:
            request, group = self._staged.pop(future)
            self._ready.setdefault(request, []).append(group)
        self._placed.clear()

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        staged = (f for f, (request, _) in self._staged.items() if request == resource_request)
        future = next((f for f in staged if f not in self._placed), None)
        if future is not None:
            group = self._staged.pop(future)[1]
        else:
            self.update_state()
            group = self._ready[resource_request].pop()
        self._world.remove(group)

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        return bool(self._ready.get(resource_request))

    def acquire_resources(self, resource_request: ResourceRequest) -> _Acquired | None:
        if not self.has_resources_ready(resource_request):
            return None
        return _Acquired(self._world, self._ready[resource_request].pop(0), resource_request)

    def free_resources(self, acquired_resource: AcquiredResources) -> None:
        assert isinstance(acquired_resource, _Acquired)
        with self._world.own_time():
            acquired_resource.group.user = None
            self._world.remove(acquired_resource.group)

    def clear(self) -> None:
        for _, group in self._staged.values():
            self._world.remove(group)
        for groups in self._ready.values():
            for group in groups:
                self._world.remove(group)
        self.__init__(self._world)  # type: ignore[misc]
