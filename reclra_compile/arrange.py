"""Put a plan on devices: place ▸ communicate ▸ price ▸ turns ▸ frees ▸ peaks ▸ verify. Needs no model and no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reclra_compile.errors import Notice, PlanError
from reclra_compile.ir import Device, Placement, Plan, Schedule
from reclra_compile.machine import Machine
from reclra_compile.placement.assign import assign
from reclra_compile.placement.cost import sent_bytes
from reclra_compile.placement.estimate import Time
from reclra_compile.placement.memory import check_memory, peaks
from reclra_compile.placement.times import task_us
from reclra_compile.schedule.comms import communicate, placed, without_messages
from reclra_compile.schedule.order import frees, order
from reclra_compile.schedule.turns import Turns, at_most, forward_first, rounded, soonest, together, turned
from reclra_compile.schedule.values import value_bytes, with_traffic
from reclra_compile.simulate.events import period_us, simulate
from reclra_compile.verify import verify

MANY = 8_000  #: devices × microbatches beyond which one order of turns is taken without comparing others


def arrange(plan: Plan, devices: Sequence[Device], machine: Machine, time: Time = task_us) -> Plan:
    """`plan` on `devices`, with predicted times and the most bytes that live on each device.

    Regions are placed, and turns chosen, so that the simulated step is shortest, then for the fewest bytes. Of
    `machine` the microbatches, the staleness and the pins are used. Raises PlacementError (N004–N008) where these and
    the devices' memory leave no placement. `time` gives the microseconds of a task on a device.
    """
    microbatches = 1 if machine.microbatches is None else machine.microbatches
    tasks = with_traffic(order(without_messages(plan.tasks)), plan.regions, plan.targets, plan.pathways)
    schedule = Schedule(microbatches, machine.staleness or 0)
    plan = _warned(plan, microbatches)
    bare = replace(plan, tasks=tasks, devices=tuple(devices), schedule=schedule)

    def score(regions: Mapping[str, int]) -> float:
        made = _spread(bare, regions, time)
        return min((c.makespan_us for c in _candidates(made, QUICK, in_a_row=False)), default=math.inf)

    regions = assign(bare, machine.pins, score, time, machine.places)
    made = _best(_spread(bare, dict(regions), time))
    made = replace(made, cost=replace(made.cost, sent_bytes=sent_bytes(made.tasks)))
    return verify(check_memory(made))


_TOO_MANY = "N101"  #: microbatches have less than a sample each


def _warned(plan: Plan, microbatches: int) -> Plan:
    """The plan with a warning where its microbatches have less than a sample each, and without one from before."""
    kept = tuple(w for w in plan.warnings if w.code != _TOO_MANY)
    if microbatches > plan.batch:
        kept += (Notice(f"the plan is for a batch of {plan.batch}, so that {microbatches} microbatches have less than "
                        "a sample each: give example inputs with as many samples as a training batch has",
                        _TOO_MANY),)  # fmt: skip
    return replace(plan, warnings=kept)


def _spread(bare: Plan, regions: Mapping[str, int], time: Time) -> Plan:
    """The plan with its tasks on the devices of their regions, the messages between them, and their times."""
    tasks = placed(bare.tasks, regions, bare.pathways, bare.waves[0][0])
    tasks = communicate(tasks, value_bytes(bare.regions, bare.pathways, bare.output))
    parts, devices = bare.schedule.microbatches, bare.devices
    tasks = tuple(replace(t, us=time(t, devices[t.device], parts)) for t in tasks)
    return replace(bare, tasks=tasks, placement=Placement(tuple((r.name, regions[r.name]) for r in bare.regions)))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One order of turns, and what it comes to."""

    plan: Plan
    makespan_us: float
    row_us: float

    @property
    def excess(self) -> int:
        """Bytes that the device in the greatest need lacks."""
        pairs = zip(self.plan.devices, self.plan.placement.peak_bytes, strict=True)
        return max((peak - d.memory_bytes for d, peak in pairs if d.memory_bytes), default=0)

    @property
    def rank(self) -> tuple[int, float]:
        """What fits, or lacks least, and then takes the least time, is the best."""
        return (max(0, self.excess), self.row_us)

    @property
    def size(self) -> tuple[int, float]:
        """Of candidates about as fast, the one that holds least is taken."""
        return (max(self.plan.placement.peak_bytes), self.makespan_us)


ABOUT = 0.01  #: relative: how much longer steps in a row may take for fewer bytes
QUICK = ("soonest", "rounded")
ALL = (*QUICK, "spare", "forward first", "together")


def _turns(plan: Plan, name: str) -> Turns:
    tasks, devices, parts = plan.tasks, plan.devices, plan.schedule.microbatches
    stale = plan.schedule.staleness > 0
    if name == "together" or (parts == 1 and not stale):
        return together(tasks)
    if name in ("soonest", "spare"):
        turns = soonest(tasks, devices, int(name == "spare"))
    else:
        turns = rounded(tasks, devices)
        turns = forward_first(tasks, turns, parts) if name == "forward first" else turns
    # a stale batch waits for the update before the last, which is done M turns later at the latest
    return tuple(min(k, parts) for k in turns) if stale else turns


def _candidates(plan: Plan, names: Sequence[str], in_a_row: bool = True) -> list[_Candidate]:
    """The plan in each of these orders of turns, without those in which devices wait for each other."""
    chosen = dict.fromkeys(_turns(plan, name) for name in names)
    return [c for c in (_candidate(plan, turns, in_a_row) for turns in chosen) if c is not None]


def _candidate(plan: Plan, turns: Turns, in_a_row: bool = True) -> _Candidate | None:
    made = replace(plan, tasks=turned(plan.tasks, turns))
    try:
        step = simulate(made)
        row_us = period_us(made, step) if in_a_row else step.makespan_us
    except PlanError:  # two devices wait for each other
        return None
    held = replace(made.placement, peak_bytes=peaks(made))
    return _Candidate(replace(made, placement=held), step.makespan_us, row_us)


def _best(plan: Plan) -> Plan:
    """The plan with the best of a few orders of turns; where none fits, with fewer microbatches in flight."""
    plan = replace(plan, tasks=frees(plan.tasks))
    many = plan.schedule.microbatches * len(plan.devices) > MANY
    found = _candidates(plan, QUICK if many else ALL, not many) or _candidates(plan, ("together",))
    if all(c.excess > 0 for c in found):
        found += filter(None, [_candidate(plan, turns) for turns in _within_memory(plan)])
    lacks, fastest = min(c.rank for c in found)
    good = [c for c in found if c.rank[0] == lacks and c.row_us <= fastest * (1 + ABOUT)]
    return min(good, key=lambda c: c.size).plan


def _within_memory(plan: Plan) -> Iterator[Turns]:
    """Turns with as many microbatches in flight on each device as its memory has room for, at least one."""
    least = peaks(replace(plan, tasks=turned(plan.tasks, together(plan.tasks))))
    for name in QUICK:
        turns = _turns(plan, name)
        most = peaks(replace(plan, tasks=turned(plan.tasks, turns)))
        limits = {}
        for d, device in enumerate(plan.devices):
            flying = 1 + max((k for t, k in zip(plan.tasks, turns, strict=True) if t.device == d), default=0)
            each = (most[d] - least[d]) / max(1, flying - 1)
            room = (device.memory_bytes - least[d]) // each if device.memory_bytes and each > 0 else flying
            limits[d] = 1 + int(max(0, min(flying - 1, room)))
        yield at_most(plan.tasks, turns, limits)
    yield together(plan.tasks)
