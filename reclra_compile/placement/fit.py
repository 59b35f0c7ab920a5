"""What to say where nothing fits: how much is needed, and the nearest thing that would do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reclra_compile.errors import Fault
from reclra_compile.ir import Plan
from reclra_compile.placement.assign import least
from reclra_compile.placement.estimate import Estimate
from reclra_compile.placement.faults import size
from reclra_compile.placement.pins import Unit


def nothing_fits(estimate: Estimate) -> Fault:
    """The fault of a plan that fits on no placement of its devices: N005, with numbers and what would fit."""
    e = estimate
    device = min(e.devices, key=lambda d: d.memory_bytes or float("inf"))
    needs = needed(e)
    short = max(range(len(needs)), key=lambda d: needs[d] - (e.devices[d].memory_bytes or float("inf")))
    has = sorted({size(d.memory_bytes) if d.memory_bytes else "no limit" for d in e.devices})
    count = f"{len(e.devices)} device{'s' * (len(e.devices) > 1)} with {', '.join(has)}{' each' * (len(e.devices) > 1)}"
    parts = f" with {e.microbatches} microbatches" if e.microbatches > 1 else ""
    message = (
        f"the regions do not fit on {count}: spread by their bytes, '{e.devices[short].name}' would need "
        f"{size(needs[short])}{parts}"
    )
    biggest = max(range(len(e.units)), key=lambda u: e.unit_bytes[u])
    alone = e.unit_bytes[biggest]
    ways = list(_ways(e))
    if alone > (device.memory_bytes or float("inf")):
        name = e.plan.regions[e.units[biggest].regions[0]].name
        message += f"; region '{name}' alone takes {size(alone)}"
    fix = "; or ".join(ways) if ways else f"use devices with at least {size(max(needs))}, or smaller regions"
    return Fault("N005", message, fix=fix)


def needed(estimate: Estimate) -> tuple[int, ...]:
    """The least bytes that each device needs where the regions are spread by their bytes."""
    free = tuple(replace(d, memory_bytes=0) for d in estimate.devices)
    e = Estimate(replace(estimate.plan, devices=free), estimate.units)
    where = least(e)
    assert where is not None  # without limits any placement fits
    return e.needs(where)


def _ways(e: Estimate) -> Iterator[str]:
    """What would fit, each found by placing the regions so."""
    count = _fewest_devices(e)
    if count:
        yield f"{count} such devices fit"
    parts = 2 * e.microbatches
    while parts <= e.plan.batch:
        if _fits(e.plan, e.units, microbatches=parts):
            yield f"{parts} microbatches fit"
            break
        parts *= 2
    if not all(t.recompute for t in e.plan.targets if t.trainable) and _fits(e.plan, e.units, recompute=True):
        yield "running regions again ('memory: {recompute: all}') fits"


def _fewest_devices(e: Estimate) -> int:
    """The fewest devices of the last one's kind, beside those given, that fit; 0 where none do."""
    low, high = len(e.devices), len(e.devices)
    while high < len(e.units):
        high = min(2 * high, len(e.units))
        if _fits(e.plan, e.units, devices=high):
            break
        low = high
    else:
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(e.plan, e.units, devices=middle) else (middle, high)
    return high


def _fits(
    plan: Plan, units: Sequence[Unit], devices: int = 0, microbatches: int = 0, recompute: bool = False
) -> bool:
    """True where some placement fits with more devices, more microbatches, or regions that run again."""
    if devices:
        more = (replace(plan.devices[-1], name=f"more{k}") for k in range(devices - len(plan.devices)))
        plan = replace(plan, devices=(*plan.devices, *more))
    if microbatches:
        plan = replace(plan, schedule=replace(plan.schedule, microbatches=microbatches))
    if recompute:
        plan = replace(plan, targets=tuple(replace(t, recompute=t.trainable) for t in plan.targets))
    return least(Estimate(plan, units)) is not None
