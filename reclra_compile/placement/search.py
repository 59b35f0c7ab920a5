"""Look for better placements: all of them where they are few, else moves that shorten the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from reclra_compile.placement.estimate import Estimate

WORK = 600_000  #: tasks that a search may walk over
_GAIN = 1e-6  #: relative: a move that gains less is not worth it


def best_of_all(estimate: Estimate, room: NDArray[np.float64]) -> list[int] | None:
    """The best placement that fits in `room`: the shortest step, then the fewest conflicts and messages.

    None where none fits, or where there are too many to look at.
    """
    limit = WORK // max(1, len(estimate.tasks))
    if len(estimate.devices) ** len(estimate.units) > limit**3:  # not even devices of one kind make so few of these
        return None
    every = [tuple(w) for w in islice(_all(estimate, room, [], room.copy()), limit + 1)]
    if not every or len(every) > limit:
        return None
    taken = [estimate.step_us(w) for w in every]
    least = min(taken) * (1 + _GAIN)
    best = [w for w, t in zip(every, taken, strict=True) if t <= least]
    return list(best[min(range(len(best)), key=lambda k: (estimate.conflicts(best[k]), estimate.messages(best[k])))])


def _all(
    e: Estimate, room: NDArray[np.float64], where: list[int], left: NDArray[np.float64]
) -> Iterator[list[int]]:
    """Every placement that goes on from `where`; of empty devices of one kind, and with one memory, only the first."""
    u = len(where)
    if u == len(e.units):
        yield where
        return
    pinned = e.units[u].pinned
    named = {unit.pinned for unit in e.units}  # a pin makes a device unlike the others
    empty: set[tuple[int, float]] = set()
    for d in range(len(e.devices)) if pinned is None else (pinned,):
        if pinned is None and d not in where and d not in named:
            same = (e.kind_of[d], float(room[d]))
            if same in empty:
                continue
            empty.add(same)
        if e.unit_bytes[u] <= left[d]:
            left[d] -= e.unit_bytes[u]
            where.append(d)
            yield from _all(e, room, where, left)
            where.pop()
            left[d] += e.unit_bytes[u]


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
