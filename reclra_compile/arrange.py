"""Put a plan on devices: place ▸ communicate ▸ price ▸ turns ▸ frees ▸ peaks ▸ verify. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reclra_compile.cost.profile import Measured
from reclra_compile.cost.times import priced
from reclra_compile.ir import Device, Placement, Plan, Schedule
from reclra_compile.machine import Machine
from reclra_compile.placement.assign import assign
from reclra_compile.placement.memory import check_memory, peaks
from reclra_compile.schedule.comms import communicate, placed, without_messages
from reclra_compile.schedule.order import frees, order
from reclra_compile.schedule.turns import Ahead, ahead, at_most, forward_first
from reclra_compile.schedule.values import value_bytes, with_traffic
from reclra_compile.simulate.events import simulate
from reclra_compile.verify import verify

MANY = 20_000  #: devices × microbatches beyond which one order of turns is taken without comparing others


def arrange(plan: Plan, devices: Sequence[Device], machine: Machine, measured: Measured | None = None) -> Plan:
    """`plan` on `devices`, with predicted times and the most bytes that live on each device.

    Regions are placed, and turns chosen, so that the simulated step is shortest, then for the fewest bytes. Of
    `machine` the microbatches, the staleness and the pins are used. Raises PlacementError (N004–N008) where these and
    the devices' memory leave no placement.
    """
    microbatches = machine.microbatches or 1
    tasks = with_traffic(order(without_messages(plan.tasks)), plan.regions, plan.pathways)
    schedule = Schedule(microbatches, machine.staleness or 0)
    bare = replace(plan, tasks=tasks, devices=tuple(devices), schedule=schedule)

    def score(regions: Mapping[str, int]) -> float:
        made = _spread(bare, regions, measured)
        turns = ahead(made.tasks, made.devices, len(plan.waves), microbatches)
        return simulate(_turned(made, turns)).makespan_us

    regions = assign(bare, machine.pins, score)
    return verify(check_memory(_best(_spread(bare, dict(regions), measured))))


def _spread(bare: Plan, regions: Mapping[str, int], measured: Measured | None) -> Plan:
    """The plan with its tasks on the devices of their regions, the messages between them, and their times."""
    tasks = placed(bare.tasks, regions, bare.pathways, bare.waves[0][0])
    tasks = communicate(tasks, value_bytes(bare.regions, bare.pathways, bare.output))
    tasks = priced(tasks, bare.devices, bare.batch, bare.schedule.microbatches, measured)
    return replace(bare, tasks=tasks, placement=Placement(tuple((r.name, regions[r.name]) for r in bare.regions)))


def _turned(plan: Plan, turns: Ahead) -> Plan:
    return replace(plan, schedule=replace(plan.schedule, ahead=turns))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One order of turns, and what it comes to."""

    plan: Plan
    fits: bool
    makespan_us: float

    @property
    def rank(self) -> tuple[bool, float, int]:
        """The smallest is the best."""
        return (not self.fits, self.makespan_us, max(self.plan.placement.peak_bytes))


def _best(plan: Plan) -> Plan:
    """The plan with the best of a few orders of turns; where none fits, with fewer microbatches in flight."""
    microbatches, waves = plan.schedule.microbatches, len(plan.waves)
    plan = replace(plan, tasks=frees(plan.tasks))
    found = [ahead(plan.tasks, plan.devices, waves, microbatches)]
    if microbatches > 1 and microbatches * len(plan.devices) <= MANY:
        found.append(ahead(plan.tasks, plan.devices, waves, microbatches, spare=1))
        found.append(forward_first(len(plan.devices), waves, microbatches))
    candidates = [_candidate(_turned(plan, turns)) for turns in dict.fromkeys(found)]
    if not any(c.fits for c in candidates):
        candidates.append(_candidate(_turned(plan, _within_memory(plan, found[0]))))
    return min(candidates, key=lambda c: c.rank).plan


def _candidate(plan: Plan) -> _Candidate:
    taken = peaks(plan)
    fits = all(not d.memory_bytes or peak <= d.memory_bytes for d, peak in zip(plan.devices, taken, strict=True))
    stated = replace(plan, placement=replace(plan.placement, peak_bytes=taken))
    return _Candidate(stated, fits, simulate(stated).makespan_us)


def _within_memory(plan: Plan, turns: Ahead) -> Ahead:
    """`turns` with as many microbatches in flight on each device as its memory has room for, at least one."""
    least = peaks(_turned(plan, at_most(turns, [1] * len(turns))))
    most = peaks(_turned(plan, turns))
    limits = []
    for device, row, low, high in zip(plan.devices, turns, least, most, strict=True):
        flying = 1 + max(row)
        each = (high - low) / max(1, flying - 1)
        room = (device.memory_bytes - low) // each if device.memory_bytes and each > 0 else flying
        limits.append(1 + int(max(0, min(flying - 1, room))))
    return at_most(turns, limits)
