"""Choose a device for each region: exact consecutive parts, conflict-free parts, or a list scheduler's placement.

All candidates respect pins, tied weights and memory; `score` decides among them. Of those about as good, the one with
the fewest regions that share a device with another of their wave is taken, and then the one with the fewest messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reclra_compile.errors import Fault, Location, PlacementError
from reclra_compile.ir import Plan
from reclra_compile.placement.estimate import Estimate, Time
from reclra_compile.placement.partition import Array, Chain, conflict_table, cut
from reclra_compile.placement.pins import Pins, Unit, units
from reclra_compile.placement.search import WORK, best_of_all, improved
from reclra_compile.placement.spread import spread
from reclra_compile.placement.times import task_us
from reclra_compile.schedule.comms import without_messages
from reclra_compile.schedule.settling import settles

Score = Callable[[Mapping[str, int]], float]
ABOUT = 0.001  #: relative: how much slower a placement with fewer conflicts, or fewer messages, may be
STARTS = 3  #: candidates that moves start from
_ROUNDS = 12  #: attempts to meet the memory that messages and values in passing take beside the units' own


def assign(
    plan: Plan,
    pins: Pins | None = None,
    score: Score | None = None,
    time: Time = task_us,
    places: Mapping[str, Location] | None = None,
) -> tuple[tuple[str, int], ...]:
    """The device of each region of `plan`, whose devices and microbatches are set and whose tasks are not yet placed.

    `score` gives the microseconds of a step with regions placed so; by default the estimate's. `places` says where pins
    stand in a file. Raises PlacementError:
    N001 no device, N004 more devices than regions, N005 nothing fits, N006 and N007 pins, N008 settling.
    """
    found = _checked_units(plan, pins or {}, places or {})
    estimate = Estimate(replace(plan, tasks=without_messages(plan.tasks)), found, time)
    candidates = candidates_for(estimate)
    if not candidates:
        from reclra_compile.placement.fit import nothing_fits

        raise PlacementError(nothing_fits(estimate))
    if len(candidates) == 1:
        return tuple(estimate.by_region(candidates[0]).items())
    scores = [score(estimate.by_region(c)) if score else estimate.step_us(c) for c in candidates]
    good = [k for k, s in enumerate(scores) if s <= min(scores) * (1 + ABOUT)]
    best = min(good, key=lambda k: (estimate.conflicts(candidates[k]), estimate.messages(candidates[k]), scores[k], k))
    return tuple(estimate.by_region(candidates[best]).items())


def candidates_for(estimate: Estimate) -> list[tuple[int, ...]]:
    """Placements that fit, each a device per unit; none is there twice. Empty where nothing fits."""
    e = estimate
    if len(e.devices) == 1:
        return _unique([_fitting(e, lambda room: [0] * len(e.units))])
    uneven = len(e.kinds) > 1 or limited(e) or any(u.pinned is not None for u in e.units)
    table = conflict_table(e.waves_of)
    found: list[list[int] | None] = []
    for gaps in (False, True) if uneven else (False,):
        for conflicts in (table, None):
            found.append(_fitting(e, lambda room, c=conflicts, g=gaps: consecutive(e, room, c, g)))  # type: ignore[misc]
    if any(u.pinned is not None for u in e.units):
        found.append(_fitting(e, lambda room: around_pins(e, room)))
    found.append(_fitting(e, lambda room: spread(e, room)))
    if not _unique(found):
        found.append(least(e))
    found.append(_fitting(e, lambda room: best_of_all(e, room)))
    if found[-1] is None:
        starts = sorted(_unique(found), key=e.step_us)[:STARTS]
        better = [_fitting(e, lambda room, s=s: improved(e, s, room, WORK // len(starts))) for s in starts]  # type: ignore[misc]
        found += sorted(filter(None, better), key=e.step_us)[:1]
    return _unique(found)


def least(estimate: Estimate) -> list[int] | None:
    """A placement that spreads the bytes of the regions, whatever time it takes; None where even that does not fit."""
    return _fitting(estimate, lambda room: around_pins(estimate, room, by_bytes=True))


def memory_of(estimate: Estimate) -> Array:
    """The memory of each device in bytes, inf where unlimited."""
    return np.array([d.memory_bytes or np.inf for d in estimate.devices], dtype=np.float64)


def limited(estimate: Estimate) -> bool:
    """True where a device has a limit to its memory."""
    return any(d.memory_bytes for d in estimate.devices)


def consecutive(estimate: Estimate, room: Array, conflicts: Array | None, gaps: bool) -> list[int] | None:
    """Units in the model's order in consecutive parts; None where none fits in `room` and agrees with the pins."""
    e, count = estimate, len(estimate.devices)
    allowed = np.array([[u.pinned in (None, d) for u in e.units] for d in range(count)])
    return _cut(e, range(len(e.units)), room, conflicts, gaps, allowed, np.zeros(count), np.zeros(count))


def around_pins(estimate: Estimate, room: Array, by_bytes: bool = False) -> list[int] | None:
    """Pinned units where they have to be, the others in consecutive parts beside them, of equal times (or bytes)."""
    e, count = estimate, len(estimate.devices)
    times, bytes_ = np.zeros(count), np.zeros(count)
    for u, unit in enumerate(e.units):
        if unit.pinned is not None:
            times[unit.pinned] += e.unit_times[unit.pinned, u]
            bytes_[unit.pinned] += e.unit_bytes[u]
    free = [u for u, unit in enumerate(e.units) if unit.pinned is None]
    allowed = np.ones((count, len(free)), dtype=np.bool_)
    where = _cut(e, free, room, None, True, allowed, times, bytes_, by_bytes)
    if where is None or (bytes_ > room).any():
        return None
    placed = dict(zip(free, where, strict=True))
    return [placed[u] if unit.pinned is None else unit.pinned for u, unit in enumerate(e.units)]


def _cut(
    e: Estimate, chosen: Sequence[int], room: Array, conflicts: Array | None, gaps: bool, allowed: NDArray[np.bool_],
    base_times: Array, base_bytes: Array, by_bytes: bool = False,
) -> list[int] | None:  # fmt: skip
    """A device for each of the `chosen` units, in order."""
    own = np.broadcast_to(e.unit_bytes[list(chosen)], (len(e.devices), len(chosen)))
    times = e.unit_times[:, list(chosen)]
    if by_bytes:  # in shares of the memory
        whole = np.where(np.isfinite(room), room, 1e18)
        times, base_times = own / whole[:, None], base_bytes / whole
    cuts = cut(Chain(times, own, room, base_times, base_bytes, allowed, gaps), conflicts)
    return None if cuts is None else [d for d in range(len(e.devices)) for _ in range(cuts[d], cuts[d + 1])]


def _fitting(e: Estimate, make: Callable[[Array], list[int] | None]) -> list[int] | None:
    """What `make` makes of the devices' memory, less what messages and values in passing turn out to take."""
    room = memory = memory_of(e)
    for _ in range(_ROUNDS):
        where = make(room)
        if where is None or not limited(e):
            return where
        needs = np.array(e.needs(where), dtype=np.float64)
        if (needs <= memory).all():
            return where
        own = np.bincount(where, weights=e.unit_bytes, minlength=len(e.devices))
        room = np.where(needs > memory, np.minimum(room, memory - (needs - own)), room)
        if (room <= 0).any():
            return None
    return None


def _checked_units(plan: Plan, pins: Pins, places: Mapping[str, Location]) -> tuple[Unit, ...]:
    """The units of a plan, where its devices can be used at all."""
    count = len(plan.devices)
    if not count:
        raise PlacementError(Fault("N001", "there is no device to place regions on", fix="ask for 1 device or more"))
    if count > 1 and settles(plan.targets):
        message = f"regions that settle together (rule equilibrium) have to be on one device, not on {count}"
        raise PlacementError(Fault("N008", message, fix="ask for 1 device, or use another rule"))
    found = units(plan.regions, pins, plan.devices, places)
    if count > len(found):
        regions = f"{len(plan.regions)} regions"
        if len(found) < len(plan.regions):
            regions += f", {len(found)} apart from those that share weights"
        message = f"{count} devices are more than there is to place: the model has {regions}"
        fix = f"ask for {len(found)} device{'s' * (len(found) > 1)}, or for smaller regions (layers, or more groups)"
        raise PlacementError(Fault("N004", message, fix=fix))
    return found


def _unique(found: Sequence[Sequence[int] | None]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(tuple(w) for w in found if w is not None))
