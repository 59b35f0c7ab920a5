"""The most bytes that live on each device at once, when it runs its tasks turn by turn.

Static bytes (weights, their gradients and optimizer state, synapses, the batch's inputs) stay throughout. A value lives
from the task that writes it on a device to the task that frees it there, and an input of a region that learns as long
as the region's h, whose graph holds it. A message is counted where it is taken in, from R until it is freed. Labels and
what single operations need while they run are not counted.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reclra_compile.errors import Fault, PlacementError
from reclra_compile.ir import Plan, Region, Task
from reclra_compile.placement.faults import size
from reclra_compile.schedule.order import KEPT
from reclra_compile.schedule.values import base, value_bytes
from reclra_compile.spec.graph import FLOAT_BYTES

STATE = {"sgd": 1, "adam": 2, "adamw": 2}  #: optimizer state, in copies of the weights (SGD has momentum)
_DTYPE_BYTES = {"64": 8, "32": 4, "16": 2, "8": 1, "bool": 1}


def peaks(plan: Plan) -> tuple[int, ...]:
    """The most bytes that live on each device at once, when each runs its lane in order; see this module."""
    held = holders(plan.tasks)
    parts = None if plan.schedule.staleness else plan.schedule.microbatches  # batches that overlap are one stream
    moving = lane_peaks(plan.tasks, microbatch_bytes(plan), len(plan.devices), held, parts)
    return tuple(s + m for s, m in zip(static_bytes(plan), moving, strict=True))


def batch_bytes(plan: Plan) -> dict[str, int]:
    """Bytes of each value for the whole batch; gradients, which are static, are 0, copies and messages left out.

    `h.R` is the pre-activation, and with it what autograd keeps where an update needs it and nothing runs again.
    """
    sizes = value_bytes(plan.regions, plan.pathways, plan.output)
    again = {t.region for t in plan.targets if t.recompute}
    updated = {t.subject for t in plan.tasks if t.kind == "U"} - again
    for r in plan.regions:
        sizes[f"h.{r.name}"] = r.z_bytes + r.saved_bytes * (r.name in updated)
    return sizes


def microbatch_bytes(plan: Plan) -> dict[str, int]:
    """Bytes of each value for the largest microbatch; the loss is as large as for the batch."""
    parts = min(plan.schedule.microbatches, max(1, plan.batch))
    share = math.ceil(plan.batch / parts)
    return {
        v: s if v == "loss" or not plan.batch else -(-s * share // plan.batch) for v, s in batch_bytes(plan).items()
    }


def holders(tasks: Sequence[Task]) -> dict[tuple[str, int], list[str]]:
    """For each value on a device, the h of the regions there whose graphs hold it: they read it, and have an update."""
    updated = {t.subject for t in tasks if t.kind == "U"}
    held: dict[tuple[str, int], list[str]] = defaultdict(list)
    for t in tasks:
        if t.kind == "F" and t.subject in updated:
            for v in t.reads:
                held[v, t.device].append(f"h.{t.subject}")
    return held


Held = Mapping[tuple[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class _Life:
    """One value on one device: its bytes, and the turn and position of the tasks where it begins and ends."""

    bytes_: int
    first: int
    begin: int
    last: int
    end: int


def lane_peaks(
    tasks: Sequence[Task], sizes: Mapping[str, int], devices: int, held: Held, microbatches: int | None
) -> tuple[int, ...]:
    """Peak bytes of the values alone, per device; `sizes` are one microbatch's, whose number None leaves open.

    With many microbatches a value written in turn a and freed in turn b has b − a instances between turns, and within
    a turn one more from its writer to where it is freed: the last turn of the first microbatch tells all. With fewer
    microbatches than turns the number of instances rises, stays, and falls, and is largest where one begins to do so.
    """
    lanes: list[list[int]] = [[] for _ in range(devices)]
    for k, t in enumerate(tasks):
        lanes[t.device].append(k)
    found = []
    for lives, lane in zip(_lives(tasks, sizes, devices, held), lanes, strict=True):
        turns = {tasks[k].turn for k in lane} or {0}
        at, parts = {max(turns)}, microbatches
        if parts is None:
            parts = max(turns) + 1
        elif max(turns) >= parts:
            at = {i + step for t in turns for i in (t, t + parts) for step in (-1, 0, 1)}
        found.append(max(_peak_of_turn(lives, lane, i, parts) for i in at))
    return tuple(found)


def _lives(tasks: Sequence[Task], sizes: Mapping[str, int], devices: int, held: Held) -> list[list[_Life]]:
    """The values of each device that take memory."""
    born: dict[tuple[str, int], tuple[int, int]] = {}
    dead: dict[tuple[str, int], tuple[int, int]] = {}
    for k, t in enumerate(tasks):
        if t.kind == "X":
            dead.update({(v, t.device): (t.turn, k) for v in t.reads})
        elif t.kind != "P":
            values = (*t.writes, *t.reads) if t.kind == "R" else t.writes
            born.update({(v, t.device): (t.turn, k) for v in values})
    lives: list[list[_Life]] = [[] for _ in range(devices)]
    for (v, d), (first, begin) in born.items():
        ends = [dead[name, d] for name in (v, *held.get((v, d), ())) if (name, d) in dead]
        last, end = max(ends, default=(first, len(tasks)))
        bytes_ = sizes.get(base(v), 0)
        if bytes_ and not v.startswith(KEPT):
            lives[d].append(_Life(bytes_, first, begin, last, end))
    return lives


def _peak_of_turn(lives: Sequence[_Life], lane: Sequence[int], turn: int, microbatches: int) -> int:
    """The most bytes in this turn of a lane, whose tasks are at positions `lane`."""

    def before(passed: int) -> int:  # microbatches for which a task `passed` turns behind has run before this turn
        return min(max(turn - passed, 0), microbatches)

    load, steps = 0, dict.fromkeys(lane, 0)
    for v in lives:
        load += v.bytes_ * (before(v.first) - before(v.last))
        if 0 <= turn - v.first < microbatches:
            steps[v.begin] += v.bytes_
        if 0 <= turn - v.last < microbatches and v.end in steps:
            steps[v.end] -= v.bytes_
    most = load
    for change in steps.values():
        load += change
        most = max(most, load)
    return most


def static_bytes(plan: Plan) -> tuple[int, ...]:
    """Bytes that stay on each device for the whole step: weights and synapses with gradients and optimizer state, and
    the batch's inputs where they are read. Shared weights count once on each device; with staleness 1 there are two.
    """
    on: list[list[Region]] = [[] for _ in plan.devices]
    device_of = dict(plan.placement.regions)
    for r in plan.regions:
        on[device_of[r.name]].append(r)
    copies = 2 + STATE.get(plan.training.optimizer, 2)
    learning = {t.region for t in plan.targets if t.trainable}
    stale = plan.schedule.staleness
    total = [_weights(here, learning, copies + stale) for here in on]
    for p in plan.pathways:
        times = 1 if p.update in ("fixed", "tied") else copies + stale
        total[device_of[p.source if p.edge else p.target]] += FLOAT_BYTES * p.synapses * times
    given = inputs_bytes(plan)
    for v, d in {(v, t.device) for t in plan.tasks if t.kind == "F" for v in t.reads if v in given}:
        total[d] += given[v]
    return tuple(total)


def inputs_bytes(plan: Plan) -> dict[str, int]:
    """Bytes of each of the model's inputs, for the whole batch."""
    return {name: _input_bytes(shape, dtype) * plan.batch for name, shape, dtype in plan.inputs}


def weight_bytes(region: Region) -> int:
    """What the parameters of a region take; as float32 where it was not measured."""
    return region.parameter_bytes or FLOAT_BYTES * region.parameter_count


def sizes_of(region: Region) -> list[tuple[str, int]]:
    """Each parameter with its bytes; all under the region's name where they were not measured one by one."""
    if len(region.parameters) == len(region.parameter_sizes):
        return list(zip(region.parameters, region.parameter_sizes, strict=True))
    return [(region.name, weight_bytes(region))]


def check_memory(plan: Plan) -> Plan:
    """The plan itself; raises PlacementError N005 where its stated peaks are more than its devices have."""
    short = [
        Fault(
            "N005",
            f"device '{d.name}' needs {size(peak)}, but has {size(d.memory_bytes)}",
            fix="give more devices or more microbatches, or let regions run again with 'memory: {recompute: all}'",
        )
        for d, peak in zip(plan.devices, plan.placement.peak_bytes, strict=False)
        if d.memory_bytes and peak > d.memory_bytes
    ]
    if short:
        raise PlacementError(short)
    return plan


def _weights(regions: Sequence[Region], learning: set[str], copies: int) -> int:
    """Bytes of the weights of `regions` on one device, `copies` of those that learn."""
    times: dict[str, int] = {}
    for r in regions:
        for name, _ in sizes_of(r):
            times[name] = max(times.get(name, 1), copies if r.name in learning else 1)
    sizes = dict(pair for r in regions for pair in sizes_of(r))
    return sum(times[name] * n for name, n in sizes.items())


def _input_bytes(shape: Sequence[int], dtype: str) -> int:
    return math.prod(shape) * next((b for end, b in _DTYPE_BYTES.items() if dtype.endswith(end)), FLOAT_BYTES)
