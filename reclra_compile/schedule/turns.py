"""When each device takes which microbatch: a software pipeline of turns.

In turn i a device runs its forward tasks for microbatch i, and those of wave w for microbatch i − a, where a is how
far behind its own forward pass the wave's errors arrive, in periods of the busiest device. A device never waits for
what it could have run one turn later, and keeps no more microbatches in flight than that needs: half of 1F1B's where
all errors come from the output, exactly 1F1B's where they travel back along the model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from reclra_compile.ir import Device, Task

Ahead = tuple[tuple[int, ...], ...]
_SLACK = 1e-9  #: of a period: rounding is no reason for one more microbatch in flight


def ahead(tasks: Sequence[Task], devices: Sequence[Device], waves: int, microbatches: int, spare: int = 0) -> Ahead:
    """Turns that each wave is behind the forward pass, per device; `spare` more where errors come from elsewhere.

    `tasks` are one microbatch's, in order, with their times (`us`).
    """
    period = max(_busy(tasks, devices), default=0.0)
    if microbatches == 1 or not period:
        return tuple((0,) * (waves + 1) for _ in devices)
    starts, work = _one_microbatch(tasks, devices)
    rows = []
    for d in range(len(devices)):
        begin, before, behind = starts.get((d, -1), 0.0), work[d, -1], 0
        row = [0]
        for w in range(waves):
            start = starts.get((d, w))
            if start is not None:
                late = math.ceil((start - begin - before) / period - _SLACK)
                behind = max(behind, min(microbatches - 1, late + spare * (late > 0)))
                before += work[d, w]
            row.append(behind)
        rows.append(tuple(row))
    return tuple(rows)


def forward_first(devices: int, waves: int, microbatches: int) -> Ahead:
    """All forward passes, then all errors: the shortest wait where memory does not count (as in GPipe)."""
    return tuple((0, *(microbatches - 1,) * waves) for _ in range(devices))


def at_most(rows: Ahead, limits: Sequence[int]) -> Ahead:
    """`rows` with no more than `limits[d]` microbatches in flight on device d."""
    return tuple(tuple(min(a, max(0, k - 1)) for a in row) for row, k in zip(rows, limits, strict=True))


def _busy(tasks: Sequence[Task], devices: Sequence[Device]) -> list[float]:
    """Time that each device computes for one microbatch, and that the link from it is occupied; microseconds."""
    compute, link = [0.0] * len(devices), [0.0] * len(devices)
    for t in tasks:
        if t.kind == "P":
            link[t.device] += t.us
        else:
            compute[t.device] += t.us
    return compute + link


def _one_microbatch(
    tasks: Sequence[Task], devices: Sequence[Device]
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    """When each (device, wave) starts where one microbatch runs alone, and how long its tasks take."""
    ready: dict[str, float] = {}
    free, port = [0.0] * len(devices), [0.0] * len(devices)
    starts: dict[tuple[int, int], float] = {}
    work: dict[tuple[int, int], float] = defaultdict(float)
    for t in tasks:
        arrived = max((ready[v] for v in t.reads if v in ready), default=0.0)
        if t.kind == "P":  # the link is occupied in the order of posting
            port[t.device] = max(port[t.device], arrived) + t.us
            ready[t.writes[0]] = port[t.device] + devices[t.device].link_latency_us
            continue
        start = max(free[t.device], arrived)
        end = start + (0.0 if t.kind in "RX" else t.us)
        if t.kind != "X":
            starts.setdefault((t.device, t.wave), start)
            work[t.device, t.wave] += end - start
        free[t.device] = end
        ready.update(dict.fromkeys(t.writes, end))
    return starts, work
