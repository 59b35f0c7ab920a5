"""Place units on devices where the model is no chain: a list scheduler."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reclra_compile.placement.estimate import Estimate


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
