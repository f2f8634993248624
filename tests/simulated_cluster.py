"""A cluster of hundreds of GPUs on a virtual clock: nodes, placement groups, what trains and what could.

- Placement as Ray does it: a bundle goes to the node that is then fullest, all of a group to one node if that holds
  it; a fraction of a GPU is cut from one card. A group that does not fit waits, and others may overtake it.
- Nodes leave (their actors die) and come back; single actors die, see ``simulated_tune.py``.
"""

from __future__ import annotations

import heapq
import itertools
import pickle
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from htr_ray.sweep.cells import Trial
from htr_ray.sweep.resources import Need

HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The cluster, and what happens to it."""

    nodes: int = 64
    gpus: int = 8
    cpus: float = 96.0
    actor_start: float = 12.0  # seconds; process, imports
    actor_reset: float = 0.5
    group_start: float = 25.0  # of the worker group of a trial with several workers
    node_life: float = float("inf")  # mean seconds until a node is taken away
    node_away: float = 0.5 * HOUR
    actor_life: float = float("inf")  # mean seconds of training until an actor dies
    seed: int = 0


@dataclass(frozen=True)
class Work:
    """How long a trial trains: that many epochs, each of that many seconds."""

    epochs: int
    epoch_seconds: float

    @property
    def seconds(self) -> float:
        return self.epochs * self.epoch_seconds


class Stuck(Exception):
    """Nothing will ever happen again, though trials are left: a deadlock."""


class Mortal(Protocol):
    """Who uses a group, and dies with its node."""

    def die(self) -> None: ...


class Future:
    """What a call on a simulated actor, or a request for resources, returns."""

    __slots__ = ("error", "payload")

    def __init__(self) -> None:
        self.payload: bytes = b""
        self.error: Exception | None = None


@dataclass(eq=False)
class Node:
    cards: list[float]
    cpus: float
    alive: bool = True
    groups: set[Group] = field(default_factory=set)


@dataclass(eq=False)
class Group:
    """A placement group. ``places``: (node, card numbers, GPUs, CPUs) of each bundle once it has been placed."""

    bundles: list[dict[str, float]]
    places: list[tuple[Node, list[int], float, float]] = field(default_factory=list)
    then: Callable[[], None] | None = None  # called once, when placed
    user: Mortal | None = None
    removed: bool = False

    @property
    def gpus(self) -> float:
        return sum(bundle.get("GPU", 0.0) for bundle in self.bundles)


class World:
    """The clock, the machines and the trials' progress.

    Args:
        machines: see there.
        trials: of the grid, by key.
        need: what a trial takes.
        work: how long it trains.
    """

    def __init__(
        self,
        machines: Machines,
        trials: dict[str, Trial],
        need: Callable[[Trial], Need],
        work: Callable[[Trial], Work],
    ) -> None:
        self.machines, self.trials, self._need, self._work = machines, trials, need, work
        self.now = 0.0
        self.own_seconds = self.own_cpu_seconds = 0.0  # real time that the simulation itself took
        self.chance = random.Random(machines.seed)
        self.nodes = [Node([1.0] * machines.gpus, machines.cpus) for _ in range(machines.nodes)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._waiting_groups: list[Group] = []
        self._ready: deque[Future] = deque()
        self._disturbances = 0  # events in the queue that bring no trial forward
        self._idle_calls = 0
        self._changed = False
        self.groups: set[Group] = set()
        # By trial: what the statistics and tests look at.
        self.epochs: dict[str, int] = dict.fromkeys(trials, 0)
        self.done_at: dict[str, float] = {}
        self.began_at: dict[str, float] = {}
        self.training: dict[str, float] = {}  # GPUs of each trial that trains now
        self.overlaps: list[str] = []  # keys that were trained twice at once
        self.early: list[str] = []  # keys that began before what they wait for
        self._open = {key for key, trial in trials.items() if trial.waits_for is None}  # could begin, not yet begun
        self.deaths = 0
        self.held = 0.0
        self.usage: list[tuple[float, float, float, float, int, int]] = []
        for node in self.nodes:
            self._schedule_leave(node)

    # --- time

    @contextmanager
    def own_time(self) -> Iterator[None]:
        """Within: what the simulation does, not the driver."""
        clock, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.own_seconds += time.perf_counter() - clock
            self.own_cpu_seconds += time.thread_time() - cpu

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def wait(self, futures: list[Future], num_returns: int = 1, timeout: float | None = None) -> tuple[list, list]:
        """``ray.wait`` for one future: lets time pass until one of these is ready, or something else has changed."""
        with self.own_time():
            wanted = set(futures)
            self._changed = False
            while True:
                while self._ready:
                    future = self._ready.popleft()
                    if future in wanted:
                        self._idle_calls = 0
                        return [future], []
                if self._changed or (timeout == 0 and not self._ready):
                    return [], futures
                if len(self._events) <= self._disturbances:
                    # Nothing under way: Tune may still have a trial to start, but not for ever.
                    self._idle_calls += 1
                    if self._idle_calls > 200 and len(self.done_at) < len(self.trials):
                        raise Stuck(self.describe())
                    if not self._events or self._idle_calls <= 200:
                        return [], futures
                at, _, event = heapq.heappop(self._events)
                self.now = max(self.now, at)
                event()

    def resolve(self, future: Future, result: Any = None, error: Exception | None = None) -> None:
        # Results travel between processes: what the driver gets is its own copy.
        future.payload, future.error = pickle.dumps(result), error
        self._ready.append(future)

    @staticmethod
    def get(future: Future) -> Any:
        """``ray.get``; unpickling is the driver's work in reality too, and counts as such."""
        if future.error is not None:
            raise future.error
        return pickle.loads(future.payload)

    # --- machines

    def capacity(self) -> tuple[float, float]:
        """CPUs and GPUs of the nodes that are there, as ``ray.cluster_resources()`` has them."""
        alive = sum(node.alive for node in self.nodes)
        return alive * self.machines.cpus, float(alive * self.machines.gpus)

    def request(self, bundles: list[dict[str, float]], then: Callable[[], None] | None) -> Group:
        group = Group([dict(bundle) for bundle in bundles], then=then)
        self.groups.add(group)
        self._waiting_groups.append(group)
        self._place_waiting()
        return group

    def remove(self, group: Group) -> None:
        group.removed = True
        self.groups.discard(group)
        if group in self._waiting_groups:
            self._waiting_groups.remove(group)
        self._vacate(group)
        self._place_waiting()

    def _vacate(self, group: Group) -> None:
        for node, cards, gpus, cpus in group.places:
            node.groups.discard(group)
            if node.alive:
                node.cpus += cpus
                for card in cards:
                    node.cards[card] += min(gpus, 1.0)
            self.held -= gpus
        group.places = []
        self.sample()

    def _place_waiting(self) -> None:
        for group in list(self._waiting_groups):
            if self._place(group):
                self._waiting_groups.remove(group)
                if group.then is not None:
                    then, group.then = group.then, None
                    self.after(0.05, lambda then=then, group=group: None if group.removed else then())

    def _place(self, group: Group) -> bool:
        """Whether the group found its place: all on one node, the fullest that holds it, or else wherever it fits."""
        alive = sorted((n for n in self.nodes if n.alive), key=lambda n: (sum(n.cards), n.cpus))
        for choice in [*([node] for node in alive), alive]:
            for bundle in group.bundles:
                if not any(self._take(node, group, bundle) for node in choice):
                    self._vacate(group)
                    break
            else:
                self.sample()
                return True
        return False

    def _take(self, node: Node, group: Group, bundle: dict[str, float]) -> bool:
        gpus, cpus = bundle.get("GPU", 0.0), bundle.get("CPU", 0.0)
        if node.cpus < cpus - 1e-9:
            return False
        if gpus >= 1:
            cards = [n for n, free in enumerate(node.cards) if free > 1 - 1e-9][: int(gpus)]
            if len(cards) < gpus:
                return False
        elif gpus:
            fitting = [n for n, free in enumerate(node.cards) if free >= gpus - 1e-9]
            if not fitting:
                return False
            cards = [min(fitting, key=lambda n: node.cards[n])]
        else:
            cards = []
        node.cpus -= cpus
        for card in cards:
            node.cards[card] -= min(gpus, 1.0)
        node.groups.add(group)
        group.places.append((node, cards, gpus, cpus))
        self.held += gpus
        return True

    def _schedule_leave(self, node: Node) -> None:
        if self.machines.node_life < float("inf"):
            self._disturb(self.chance.expovariate(1.0) * self.machines.node_life, lambda: self._leave(node))

    def _disturb(self, seconds: float, event: Callable[[], None]) -> None:
        self._disturbances += 1

        def happen() -> None:
            self._disturbances -= 1
            event()

        self.after(seconds, happen)

    def _leave(self, node: Node) -> None:
        node.alive = False
        for group in list(node.groups):
            if group not in node.groups:  # of an actor that has just died
                continue
            self._vacate(group)
            if group.user is None:  # Ray places the bundles anew
                self._waiting_groups.append(group)
            else:
                group.user.die()
        node.cards, node.cpus = [1.0] * self.machines.gpus, self.machines.cpus
        self._place_waiting()
        self._disturb(self.chance.expovariate(1.0) * self.machines.node_away, lambda: self._join(node))
        self._changed = True
        self.sample()

    def _join(self, node: Node) -> None:
        node.alive = True
        self._place_waiting()
        self._schedule_leave(node)
        self._changed = True
        self.sample()

    # --- trials

    def begins(self, key: str) -> None:
        waits_for = self.trials[key].waits_for
        if waits_for is not None and waits_for not in self.done_at:
            self.early.append(key)
        if key in self.training or key in self.done_at:
            self.overlaps.append(key)
        self.began_at.setdefault(key, self.now)
        self._open.discard(key)
        self.training[key] = self._need(self.trials[key]).gpus
        self.sample()

    def pauses(self, key: str) -> None:
        self.training.pop(key, None)
        self.sample()

    def finishes(self, key: str) -> None:
        self.pauses(key)
        self.done_at[key] = self.now
        self._open |= {k for k, t in self.trials.items() if t.waits_for == key and k not in self.began_at}

    def need(self, key: str) -> Need:
        return self._need(self.trials[key])

    def work(self, key: str) -> Work:
        return self._work(self.trials[key])

    def sample(self) -> None:
        """Note what is used: time, GPUs there, held by groups, that train, trials that train, that could begin."""
        row = (
            *(self.now, self.capacity()[1], self.held, sum(self.training.values())),
            *(len(self.training), len(self._open)),
        )
        if self.usage and self.usage[-1][0] == self.now:
            self.usage[-1] = row
        else:
            self.usage.append(row)

    def describe(self) -> str:
        waiting = [key for key in self.trials if key not in self.done_at]
        return (
            f"after {self.now / HOUR:.1f} h: {len(self.training)} train, {len(waiting)} are not done "
            f"({', '.join(waiting[:5])} ...), {len(self._waiting_groups)} groups wait for a place"
        )
