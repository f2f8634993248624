"""A Ray Train worker group that keeps to its place in a sweep.

Ray Train's own group (2.60) is made for a cluster of its own. This one reserves the CPUs of its stream
workers together with its workers, all or nothing, so that groups that wait never hold a part of what another
one needs; sizes itself by what is free, not by what the cluster has; does not count lost nodes as failures;
and ends when the trial that started it is stopped.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import state
from ray.core.generated import gcs_pb2
from ray.exceptions import ActorUnavailableError, RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.preemption_callback import PreemptionCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NoopDecision,
    ResizeDecision,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from htr_ray.train.nodes import fits, free_nodes
from htr_ray.train.wake import wake

logger = logging.getLogger(__name__)

# Nodes say ten times a second what is free on them.
SETTLE_SECONDS = 1.0
# Within this time Ray finds another node for what was lost with one, if there is any.
MOVE_SECONDS = 10.0
# Ray asks nodes every three seconds whether they live, and takes five silences of up to ten for the end of one.
FATE_SECONDS = 70.0

# In Ray's accounts of how an actor ended.
NODE_DIED = "its node has died"

_Table: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]

_lock = threading.Lock()
_controllers: list[Any] = []
"""Controllers that threads of this process wait for."""


@dataclass
class GroupScaling(ScalingConfig):
    """Ray Train's scaling, the nodes for training workers, and the stream workers of each."""

    node_labels: dict[str, str] = field(default_factory=dict)
    streams: int = 0
    stream_cpus: float = 0.0

    def __post_init__(self) -> None:
        self.label_selector = self.node_labels or None
        super().__post_init__()


class Group(WorkerGroup):
    """Its placement group has a bundle for every worker, then one for every stream worker."""

    def _create_placement_group(self, scaling_config: ScalingConfig, worker_group_context: Any) -> Any:
        assert isinstance(scaling_config, GroupScaling)
        workers = worker_group_context.num_workers
        streams = scaling_config.streams * workers
        selectors = worker_group_context.label_selector
        place = placement_group(
            [worker_group_context.resources_per_worker] * workers + [{"CPU": scaling_config.stream_cpus}] * streams,
            strategy=worker_group_context.placement_strategy,
            bundle_label_selector=selectors and [*selectors, *({} for _ in range(streams))],
        )
        # They wait for the place as the workers do, and start beside them.
        bundles = [PlacementGroupSchedulingStrategy(place, workers + number) for number in range(streams)]
        wake(1, scaling_config.stream_cpus, bundles)
        return DefaultPlacementGroupHandle(place)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        made = WorkerGroup._get_worker_runtime_env(custom_runtime_env)
        return made if any(made.values()) else None


class PlaceLost(WorkerGroupError):
    """A node went, and with it CPUs of the group's streams that fit nowhere else."""

    def __init__(self) -> None:
        super().__init__("the CPUs of its streams were lost with their node", {})

    def __reduce__(self) -> Any:
        return self.__class__, ()


class BesideOthers:
    """Mixin of a scaling policy, for a group that shares its cluster with other trials.

    It tells Ray's autoscaling coordinator nothing: what a group announces there is taken from what Ray Data believes
    it may use, whether the group has it or not, so the streams of running trials would stop for groups that only
    wait, or could grow. The autoscaler sees the placement groups that wait.

    It gives up a place that is no longer whole: workers that wait for their streams would hold theirs for ever.
    """

    _broken_since: float | None = None

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        place = worker_group_state.placement_group_handle.placement_group
        if placement_group_table(place)["state"] != "RESCHEDULING":
            self._broken_since = None
        elif self._broken_since is None:
            self._broken_since = time.monotonic()
        elif time.monotonic() - self._broken_since > MOVE_SECONDS:
            self._broken_since = None
            raise PlaceLost
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)  # type: ignore[misc]

    def after_controller_start(self, train_run_context: Any) -> None:
        return None

    def _maybe_send_resource_request(self) -> None:
        return None


class FixedScaling(BesideOthers, FixedScalingPolicy):
    """Always the same number of workers."""


class FreeScaling(BesideOthers, ElasticScalingPolicy):
    """As many workers as fit into what is free, within the bounds.

    Ray's own policy divides what the cluster *has*, and would wait for the cards of other trials.
    """

    def __init__(self, scaling_config: GroupScaling) -> None:
        super().__init__(scaling_config)
        self._group = scaling_config
        self._held = 0

    def make_decision_for_non_running_worker_group(self) -> ResizeDecision:
        self._held = 0
        # With less free than the minimum, that is what the group queues for.
        return self._get_resize_decision(max(self.scaling_config.min_workers, self._count_possible_workers({})))

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        self._held = worker_group_state.num_workers
        if not all(status.running for status in worker_group_status.worker_statuses.values()):
            return NoopDecision()  # it is ending: rank 0 stores the result, the others are done
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _get_reserved_resources(self) -> dict[str, Any]:
        return {}

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        scaling = self._group
        each = scaling._resources_per_worker_not_none
        free = free_nodes()
        more = 0
        while self._held + more < scaling.max_workers and fits(
            free,
            workers=more + 1,
            cpus=each.get("CPU", 0.0),
            gpus=each.get("GPU", 0.0),
            streams=scaling.streams * (more + 1),
            stream_cpus=scaling.stream_cpus,
            selector=scaling.node_labels,
        ):
            more += 1
        return int(self._held + more)


class NodesComeAndGo(DefaultFailurePolicy):
    """A worker that was lost with its node is no failure of the trial's, announced (preempted) or not."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if isinstance(training_failed_error, PlaceLost) or (
            isinstance(training_failed_error, WorkerGroupError)
            and lost_its_node(*training_failed_error.worker_failures.values())
        ):
            logger.info("a node was lost; the workers start again at the last checkpoint")
            return FailureDecision.RETRY
        return super().make_decision(training_failed_error)


class GroupController(TrainController):
    worker_group_cls = Group

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        # Ray's watcher is a process more for every group, for word of a node's end that no worker of ours asks for: a
        # lost node is no failure without it, either (NodesComeAndGo).
        self._worker_group_callbacks_to_propagate = [
            c for c in self._worker_group_callbacks_to_propagate if not isinstance(c, PreemptionCallback)
        ]

    def _make_and_handle_scaling_decision_for_non_running_worker_group(self, controller_state: Any) -> Any:
        # First let go of what the broken group still holds, or the new one is sized without it.
        if self._worker_group:
            self._shutdown_worker_group()
            time.sleep(SETTLE_SECONDS)
        return super()._make_and_handle_scaling_decision_for_non_running_worker_group(controller_state)


class GroupTrainer(DataParallelTrainer):
    """``fit()`` as Ray Train's, with the parts above; :func:`end_groups` ends it from another thread."""

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        # Ray's cleaner is a process more for every group, asks the dashboard (there may be none) whether the
        # group lives, and knows no group that still waits for its place. See remove_orphans. So is its manager of
        # datasets, of which the group has none: workers open their own streams.
        without = (PlacementGroupCleanerCallback, DatasetsCallback)
        parts["callbacks"] = [c for c in parts["callbacks"] if not isinstance(c, without)]
        failures, scaling = self.run_config.failure_config, self.scaling_config
        assert isinstance(failures, FailureConfig) and isinstance(scaling, GroupScaling)
        parts["failure_policy"] = NodesComeAndGo(failures)
        parts["scaling_policy"] = FreeScaling(scaling) if scaling.elasticity_enabled else FixedScaling(scaling)
        # A process with an environment of its own is always a new one; without, Ray gives what it has ready.
        passed_on = get_env_vars_to_propagate()
        controller: Any = (
            ray.remote(GroupController)
            .options(
                num_cpus=0,
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
                runtime_env={"env_vars": passed_on} if passed_on else None,
            )
            .remote(**parts)
        )
        with _lock:
            _controllers.append(controller)
        if threading.current_thread() is threading.main_thread():
            self._register_sigint_handler(controller)
        try:
            ray.get(controller.run.remote())
            return ray.get(controller.get_result.remote())
        except RayActorError:
            with _lock:
                ended = controller not in _controllers
            if ended:
                sys.exit(0)  # ends a trial's thread without an error, as Tune's own report does
            raise
        finally:
            with _lock:
                if controller in _controllers:
                    _controllers.remove(controller)


def end_groups() -> None:
    """End the worker groups that threads of this process wait for; their workers die with their controller."""
    with _lock:
        controllers, _controllers[:] = list(_controllers), []
    for controller in controllers:
        ray.kill(controller)


def lost_its_node(*errors: BaseException) -> bool:
    """Whether a process ended because its node did, of those that ended with ``errors``.

    Waits where Ray does not know yet: at most ``FATE_SECONDS``, for all of them together.
    """
    deadline = time.monotonic() + FATE_SECONDS
    return any(_lost_its_node(error, deadline) for error in errors)


def _lost_its_node(error: BaseException, deadline: float) -> bool:
    error = getattr(error, "health_check_failure", error)  # Ray Train's wrapper
    if isinstance(error, ActorUnavailableError):
        return NODE_DIED in _cause_of_death(error.actor_id, deadline)
    return isinstance(error, RayActorError) and (error.preempted or NODE_DIED in str(error))


def _cause_of_death(actor: str | None, deadline: float) -> str:
    """Why an actor died that does not answer: calls fail at once, what became of its node is known later."""
    while actor:
        known = state.actor_table(actor)
        if not known or known["State"] == "DEAD":
            return str(known.get("DeathCause", ""))
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return ""  # it lives, or nobody knows: as any other failure


def remove_orphans() -> int:
    """Remove the placement groups of this job whose creator died; returns how many.

    Ray keeps the placement groups of a dead actor until the whole job ends
    (https://github.com/ray-project/ray/issues/54305), and with them their resources.
    """
    orphans = [group for group in _made_by_actors() if group.creator_actor_dead]
    for group in orphans:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return len(orphans)


def groups_left() -> bool:
    """Whether an actor of this job still has a placement group of its own."""
    return bool(_made_by_actors())


def _made_by_actors() -> list[Any]:
    """Living placement groups that actors of this job made, as Ray's tables have them."""
    job = ray.get_runtime_context().get_job_id()
    table = state._connect_and_get_accessor().get_placement_group_table()
    groups = [_Table.FromString(data) for data in table]
    return [
        group
        for group in groups
        if group.state != _Table.REMOVED
        and group.creator_job_id.hex() == job
        and not ray.ActorID(group.creator_actor_id).is_nil()
    ]
