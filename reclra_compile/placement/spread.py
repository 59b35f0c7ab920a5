"""Place units on devices where the model is no chain: a list scheduler, and moves that shorten the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reclra_compile.placement.estimate import Estimate

WORK = 400_000  #: tasks that the moves may walk over, together
_GAIN = 1e-6  #: relative: a move that gains less is not worth it


def spread(estimate: Estimate, room: NDArray[np.float64]) -> list[int] | None:
    """A device for each unit, by list scheduling as in HEFT; None where `room` (bytes per device) does not suffice.

    Tasks are taken by upward rank. The first task of a unit decides: the device where that task ends earliest, counting
    what the device still has to do for the unit's wave, and all of it once for each further microbatch.
    """
    e, count = estimate, len(estimate.devices)
    where = [-1 if u.pinned is None else u.pinned for u in e.units]
    load, left = np.zeros(count), room.copy()
    waiting: dict[int, NDArray[np.float64]] = {}  # work of units placed so far, by wave
    for u, d in enumerate(where):
        if d >= 0:
            _settle(e, u, d, load, left, waiting)
    if (left < 0).any():
        return None
    free, end = np.zeros(count), [0.0] * len(e.tasks)
    latency = np.array([d.link_latency_us for d in e.devices])
    rates = np.array([d.link_bytes_per_s / 1e6 or np.inf for d in e.devices])
    times = np.array(e.times)
    ranks = upward_ranks(e)
    for i in sorted(range(len(e.tasks)), key=lambda k: (-ranks[k], k)):
        start = free.copy()
        for v, w in e.reads[i]:
            there = where[e.owner[w]]
            ready = np.full(count, end[w] + latency[there] + e.sent[v] / rates[there])
            ready[there] = end[w]
            start = np.maximum(start, ready)
        u = e.owner[i]
        finish = start + times[e.kind_of, i]
        if where[u] < 0:
            own = e.unit_times[:, u]
            later = sum((waiting[w] for w in e.waves_of[u] if w in waiting), np.zeros(count))
            worth = finish + later + own + (e.microbatches - 1) * (load + own)
            worth[e.unit_bytes[u] > left] = np.inf
            d = int(worth.argmin())
            if not np.isfinite(worth[d]):
                return None
            where[u] = d
            _settle(e, u, d, load, left, waiting)
        end[i] = free[where[u]] = float(finish[where[u]])
    return where


def improved(estimate: Estimate, start: Sequence[int], room: NDArray[np.float64], work: int = WORK) -> list[int]:
    """`start` after moves of one unit, and swaps of two, that each shorten the step; at most `work` tasks visited."""
    e, where = estimate, list(start)
    free = [u for u, unit in enumerate(e.units) if unit.pinned is None]
    best = e.step_us(where)
    left = room - np.bincount(where, weights=e.unit_bytes, minlength=len(e.devices))
    trials = work // max(1, len(e.tasks))
    moved = True
    while moved and trials > 0:
        moved = False
        for change in _changes(free, len(e.devices), where):
            if trials <= 0:
                break
            after = left.copy()
            for u, d in change:
                after[where[u]] += e.unit_bytes[u]
                after[d] -= e.unit_bytes[u]
            if any(where[u] == d for u, d in change) or (after < 0).any():
                continue
            before = [(u, where[u]) for u, _ in change]
            for u, d in change:
                where[u] = d
            trials -= 1
            taken = e.step_us(where)
            if taken < best * (1 - _GAIN):
                best, left, moved = taken, after, True
                continue
            for u, d in before:
                where[u] = d
    return where


def _changes(free: Sequence[int], devices: int, where: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
    """Every move of one unit, then every swap of two that are apart now."""
    moves: list[tuple[tuple[int, int], ...]] = [((u, d),) for u in free for d in range(devices) if d != where[u]]
    if len(free) > 64:  # swaps grow with the square
        return moves
    swaps = [((u, where[v]), (v, where[u])) for k, u in enumerate(free) for v in free[k + 1 :] if where[u] != where[v]]
    return moves + swaps


def _settle(
    e: Estimate, u: int, d: int, load: NDArray[np.float64], left: NDArray[np.float64],
    waiting: dict[int, NDArray[np.float64]],
) -> None:  # fmt: skip
    load[d] += e.unit_times[d, u]
    left[d] -= e.unit_bytes[u]
    for w in e.waves_of[u]:
        waiting.setdefault(w, np.zeros(len(e.devices)))[d] += e.unit_times[d, u]


def upward_ranks(estimate: Estimate) -> list[float]:
    """For each task the longest way to an end of the step, messages included, on the devices' mean; microseconds."""
    e = estimate
    mean = np.array(e.times)[e.kind_of].mean(axis=0)
    latency = float(np.mean([d.link_latency_us for d in e.devices]))
    slowness = float(np.mean([1e6 / d.link_bytes_per_s if d.link_bytes_per_s else 0.0 for d in e.devices]))
    ranks = [0.0] * len(e.tasks)
    for i in reversed(range(len(e.tasks))):
        ranks[i] += float(mean[i])
        for v, w in e.reads[i]:
            way = 0.0 if e.owner[w] == e.owner[i] else latency + slowness * e.sent[v]
            ranks[w] = max(ranks[w], ranks[i] + way)
    return ranks
