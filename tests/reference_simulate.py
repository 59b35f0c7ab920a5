"""A discrete-event simulation the slow and obvious way: a clock, a heap of what happens next, a queue per resource."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from reclra_compile.simulate.pattern import Lane, Pattern


class Stuck(Exception):
    """Nothing will happen any more, and not all events have run."""


def start_times(pattern: Pattern, many: int, order: Sequence[Lane]) -> np.ndarray:
    """Start of each node for each microbatch; raises Stuck."""
    queues = [[divmod(int(e), many) for e in lane] for lane in order]
    missing = {(n, m): int((pattern.dst == n).sum()) for n in range(pattern.nodes) for m in range(many)}
    starts = np.full((pattern.nodes, many), np.nan)
    busy = [False] * pattern.resources
    heap: list[tuple[float, int, str, tuple[int, int] | int]] = []
    count = 0

    def push(time: float, what: str, whom: tuple[int, int] | int) -> None:
        nonlocal count
        count += 1
        heapq.heappush(heap, (time, count, what, whom))

    def go(resource: int, now: float) -> None:
        """Start the head of a queue, if the resource is free and all messages are there."""
        if busy[resource] or not queues[resource] or missing[queues[resource][0]]:
            return
        node, m = queues[resource].pop(0)
        starts[node, m] = now
        busy[resource] = True
        push(now + pattern.duration[node], "free", resource)
        for e in np.flatnonzero(pattern.src == node):
            push(now + pattern.lag[e], "message", (int(pattern.dst[e]), m))

    for r in range(pattern.resources):
        go(r, 0.0)
    while heap:
        now, _, what, whom = heapq.heappop(heap)
        if what == "free":
            assert isinstance(whom, int)
            busy[whom] = False
            go(whom, now)
        else:
            assert isinstance(whom, tuple)
            missing[whom] -= 1
            go(int(pattern.resource[whom[0]]), now)
    if any(queues):
        raise Stuck
    return starts
