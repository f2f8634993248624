"""A Ray cluster of several nodes on this machine, as a process of its own that outlives the drivers.

Takes one command per line on stdin and answers each with a line of JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster

CPUS = 2
STORE = 150 * 2**20
KEPT_BY_RAY = {"_StatsActor", "_AutoscalingCoordinatorActor"}
"""Actors that Ray Data starts once for a cluster and keeps on purpose (lifetime "detached")."""


class Nodes:
    """The head, which only holds the cluster together, and the nodes that trials run on."""

    def __init__(self, count: int) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._count = count
        self._nodes: list[Any] = []
        self.restore()
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")

    def address(self) -> str:
        return str(self._cluster.address)

    def restore(self) -> int:
        """Add nodes until there are as many as at the beginning; how many that were."""
        missing = self._count - len(self._nodes)
        for _ in range(missing):
            self._nodes.append(self._cluster.add_node(num_cpus=CPUS, object_store_memory=STORE))
        return missing

    def remove(self, number: int) -> str:
        """Kill a node with all that runs on it; its id."""
        node = self._nodes.pop(number)
        name = str(node.node_id)
        self._cluster.remove_node(node, allow_graceful=False)
        return name

    def raylets(self) -> list[int]:
        """Process ids of the nodes' raylets, whose children are the workers."""
        return [node.all_processes["raylet"][0].process.pid for node in self._nodes]

    def leaks(self) -> list[str]:
        """Actors and placement groups that are left although no driver is there; waits for what is just ending."""
        left: list[str] = []
        for _ in range(60):
            actors = ray._private.state.actors().values()
            left = [
                f"actor {actor['ActorClassName']} {actor['ActorID']}: {actor['State']}"
                for actor in actors
                if actor["State"] != "DEAD" and actor["ActorClassName"] not in KEPT_BY_RAY
            ]
            for group in ray.util.placement_group_table().values():
                if group["state"] != "REMOVED":
                    left.append(f"placement group {group['placement_group_id']}: {group['state']}")
            free, all_of = ray.available_resources().get("CPU", 0.0), ray.cluster_resources().get("CPU", 0.0)
            if free < all_of:
                left.append(f"{all_of - free:g} of {all_of:g} CPUs are taken")
            if not left:
                break
            time.sleep(0.5)
        return left

    def stop(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


if __name__ == "__main__":
    # Ray prints what it has to say on stdout too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = argparse.ArgumentParser()
    asked.add_argument("--nodes", type=int, default=2)
    nodes = Nodes(asked.parse_args().nodes)
    print(json.dumps(nodes.address()), file=answers, flush=True)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print(json.dumps(getattr(nodes, command)(*arguments)), file=answers, flush=True)
        if command == "stop":
            break
