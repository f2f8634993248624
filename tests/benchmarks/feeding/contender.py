"""One contender in a process of its own (see __main__): delivers epochs to a consumer and notes what that took."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from scene import Contender, Scene, area
from usage import cpu_seconds, memory_now

IDLE_SECONDS = 4.0


def contender(name: str, scene: Scene) -> Contender:
    if name == "ours":
        from ours import Ours

        return Ours(scene)
    from peers import PEERS

    return PEERS[name](scene)


def main(name: str, scene: Scene, epochs: int, pace: float) -> dict[str, Any]:
    """``pace``: seconds that the consumer is busy (asleep) with each batch."""
    feed = contender(name, scene)
    began, cpu = time.monotonic(), cpu_seconds()
    time.sleep(IDLE_SECONDS)
    idle = (cpu_seconds() - cpu) / (time.monotonic() - began)

    began, cpu = time.monotonic(), cpu_seconds()
    found: dict[str, Any] = {"idle": idle, "epochs": []}
    pixels = used = 0
    for epoch in feed.epochs(epochs):
        lines, ids, asked, first = 0, set(), time.monotonic(), 0.0
        for batch in epoch:
            first = first or time.monotonic() - asked
            lines += len(batch["ids"])
            ids |= set(batch["ids"])
            pixels += area(batch["images"])
            used += int(batch["widths"].sum()) * batch["images"].shape[2]
            time.sleep(pace)
        if not found["epochs"]:
            first = asked + first - began  # with all that opening takes
        found["epochs"].append(
            {
                "lines": lines,
                "distinct": len(ids),
                "first_batch": first,
                "seconds": time.monotonic() - began,
                "cpu": cpu_seconds() - cpu,
                "memory": memory_now(),
            }
        )
        began, cpu = time.monotonic(), cpu_seconds()
    found["padding"] = 1 - used / pixels

    began = time.monotonic()
    again = feed.epochs(1)
    next(iter(next(again)))
    found["first_batch_warm"] = time.monotonic() - began
    return found


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    result = main(asked["name"], Scene(**asked["scene"]), asked["epochs"], asked["pace"])
    with open(asked["answer"], "w") as file:
        json.dump(result, file)
