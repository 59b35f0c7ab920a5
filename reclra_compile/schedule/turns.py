"""When each device takes which microbatch: a software pipeline of turns.

In turn i a device runs each of its tasks for microbatch i − a, in the plan's order; a is the task's `turn`. It says how
much later than the device's first task its values arrive from other devices, in periods of the busiest device. A device
so never waits for what it could have run one turn later, and keeps no more microbatches in flight than that needs: half
of 1F1B's where all errors come from the output, exactly 1F1B's where they travel back along the model.

Turns never fall from a task to a later one of the same device, so each microbatch meets a device's tasks in order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reclra_compile.ir import Device, Task

Turns = tuple[int, ...]
_SLACK = 1e-9  #: of a period: rounding is no reason for one more microbatch in flight


def turned(tasks: Sequence[Task], turns: Turns) -> tuple[Task, ...]:
    """`tasks` in these turns."""
    return tuple(replace(t, turn=k) for t, k in zip(tasks, turns, strict=True))


def together(tasks: Sequence[Task]) -> Turns:
    """One microbatch after the other: the fewest in flight, and never two devices that wait for each other."""
    return (0,) * len(tasks)


def soonest(tasks: Sequence[Task], devices: Sequence[Device], spare: int = 0) -> Turns:
    """The turn in which each task's values arrive if one microbatch runs alone; `spare` more where any is late.

    `tasks` are one microbatch's, in order, with their times (`us`). Where values go back and forth between devices
    within a pass, devices may come to wait for each other: `rounded` never lets them.
    """
    return _turns(tasks, devices, spare, exact=False)


def rounded(tasks: Sequence[Task], devices: Sequence[Device]) -> Turns:
    """As `soonest`, with values that arrive when the turns of those who send them let them leave.

    Every value is made earlier in this timetable than it is read, so that no order of waiting can be a circle.
    """
    return _turns(tasks, devices, 0, exact=True)


def forward_first(tasks: Sequence[Task], turns: Turns, microbatches: int) -> Turns:
    """`turns` with all forward passes before all errors: the shortest wait where memory does not count (as GPipe)."""
    return tuple(k + (microbatches - 1) * (t.wave >= 0) for t, k in zip(tasks, turns, strict=True))


def at_most(tasks: Sequence[Task], turns: Turns, limits: Mapping[int, int]) -> Turns:
    """`turns` with no more than `limits[d]` microbatches in flight on device d."""
    return tuple(min(k, max(0, limits[t.device] - 1)) for t, k in zip(tasks, turns, strict=True))


def _turns(tasks: Sequence[Task], devices: Sequence[Device], spare: int, exact: bool) -> Turns:
    busy, sent = [0.0] * len(devices), [0.0] * len(devices)
    for t in tasks:
        (sent if t.kind == "P" else busy)[t.device] += t.us
    period = max(busy + sent, default=0.0)
    if not period:
        return together(tasks)
    lanes = [_Lane(period, exact) for _ in devices]
    port = [0.0] * len(devices)
    ready: dict[str, float] = {}
    turns = []
    for t in tasks:
        lane = lanes[t.device]
        if t.kind == "P":  # the link is occupied in the order of posting
            port[t.device] = max(port[t.device], ready[t.reads[0]]) + t.us
            ready[t.writes[0]] = port[t.device] + devices[t.device].link_latency_us
        else:
            arrived = max((ready[v] for v in t.reads if v in ready), default=0.0)
            end = lane.run(arrived, 0.0 if t.kind in "RX" else t.us, spare)
            ready.update(dict.fromkeys(t.writes, end))
        turns.append(lane.turn)
    return tuple(turns)


class _Lane:
    """One device's time: tasks one after the other, each in a turn that is no earlier than that before it."""

    def __init__(self, period: float, exact: bool) -> None:
        self.period, self.exact = period, exact
        self.begin: float | None = None
        self.before = self.free = 0.0  # work of a turn before the next task; when the device is free
        self.turn = 0

    def run(self, arrived: float, us: float, spare: int) -> float:
        """Take a task whose values are there at `arrived`; the time at which it ends."""
        if self.begin is None:
            self.begin = arrived
        late = math.ceil((max(arrived, self.free) - self.begin - self.before) / self.period - _SLACK)
        if late > self.turn:
            self.turn = late + spare * (self.turn == 0)
        start = max(arrived, self.free)
        if self.exact:
            start = max(start, self.begin + self.turn * self.period + self.before)
        self.before += us
        self.free = start + us
        return self.free
