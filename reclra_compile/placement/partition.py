"""Cut a chain into consecutive parts, one for each device in order: exact, by dynamic programming.

Part p is [cuts[p], cuts[p + 1]). In order of importance: the fewest conflicts (what `conflicts` counts), the
smallest largest time of a device, the smallest sum of squared times. O(devices × items²), vectorised over items².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SLACK = 1e-9  #: relative: how much two sums of the same times may differ by rounding


@dataclass(frozen=True, slots=True)
class Chain:
    """What there is to cut: times and bytes of each item on each device, (devices, items).

    `limits` is the memory of each device, inf where unlimited; `base_times` and `base_bytes` what it has already;
    `allowed` says which item may be on which device. With `gaps` a device may be left without items.
    """

    times: Array
    bytes_: Array
    limits: Array
    base_times: Array
    base_bytes: Array
    allowed: NDArray[np.bool_]
    gaps: bool = False


def conflict_table(groups: list[list[int]]) -> Array:
    """For each [i, j) how many of its items share a group with an earlier item of it; `groups` of each item."""
    n = len(groups)
    table = np.zeros((n + 1, n + 1))
    for i in range(n):
        seen: set[int] = set()
        count = 0
        for j in range(i, n):
            count += sum(g in seen for g in groups[j])
            seen.update(groups[j])
            table[i, j + 1] = count
    return table


def cut(chain: Chain, conflicts: Array | None = None) -> tuple[int, ...] | None:
    """The cuts of the best parts, len(devices) + 1 of them; None where no cuts fit."""
    first = _solve(chain, conflicts, None)
    if first is None:
        return None
    cuts, bottleneck = first
    second = _solve(chain, conflicts, bottleneck * (1 + _SLACK))
    return cuts if second is None else second[0]


def _solve(chain: Chain, conflicts: Array | None, bound: float | None) -> tuple[tuple[int, ...], float] | None:
    """Cuts and their largest time; with `bound`, no time is above it and the sum of squares is smallest."""
    devices, n = chain.times.shape
    clashes, value = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    clashes[0] = value[0] = 0.0
    came = np.zeros((devices, n + 1), dtype=np.int64)
    for p in range(devices):
        low, high = (0, n) if chain.gaps else (p, n - devices + p)  # where part p may begin
        rows, cols = slice(low, high + 1), slice(low, high + 1) if chain.gaps else slice(low + 1, high + 2)
        part, fits = _part(chain, p, rows, cols, bound)
        count = clashes[rows, None] + (conflicts[rows, cols] if conflicts is not None else 0.0)
        worth = value[rows, None] + part * part if bound is not None else np.maximum(value[rows, None], part)
        count = np.where(fits & np.isfinite(value[rows, None]), count, np.inf)
        fewest = count.min(axis=0)
        worth = np.where((count == fewest) & np.isfinite(count), worth, np.inf)
        came[p, cols] = worth.argmin(axis=0) + low
        clashes, value = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
        clashes[cols], value[cols] = fewest, worth.min(axis=0)
    if not np.isfinite(value[n]):
        return None
    cuts = [n]
    for p in reversed(range(devices)):
        cuts.append(int(came[p, cuts[-1]]))
    return tuple(reversed(cuts)), float(value[n])


def _part(chain: Chain, p: int, rows: slice, cols: slice, bound: float | None) -> tuple[Array, NDArray[np.bool_]]:
    """The time on device p of each part [row, column), and whether it may be there."""

    def sums(of: Array, base: float) -> Array:
        total = np.concatenate(([0.0], np.cumsum(of)))
        return total[None, cols] - total[rows, None] + base

    n = chain.times.shape[1]
    times = sums(chain.times[p], chain.base_times[p])
    ends, starts = np.arange(n + 1)[None, cols], np.arange(n + 1)[rows, None]
    fits = ends >= starts if chain.gaps else ends > starts
    if not chain.allowed[p].all():
        fits &= sums((~chain.allowed[p]).astype(np.float64), 0.0) == 0
    if np.isfinite(chain.limits[p]):
        fits &= sums(chain.bytes_[p], chain.base_bytes[p]) <= chain.limits[p]
    if bound is not None:
        fits &= times <= bound
    return times, fits
