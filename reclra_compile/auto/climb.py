"""Local search over sets of relays for many regions: add one, drop one, swap two, whole neighbourhoods at once.

Errors go two waves deep here: relays hear the output, each other region its cheapest relay downstream, or the output
where none is. `settle.py` goes on from there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reclra_compile.auto.ask import Ask
from reclra_compile.auto.attach import Effort
from reclra_compile.auto.cost import FORBIDDEN, Ints, Problem

Flags = NDArray[np.bool_]
Key = tuple[int, ...]
STARTS = 3  #: of the sets of narrowest regions, how many are improved
PARTNERS = 24  #: regions that a relay is swapped for: the cheapest, and as many that lie evenly
MOST_COLUMNS = 3_000  #: sets of relays that one start's improvement looks at


def climb(problem: Problem, ask: Ask, effort: Effort) -> list[frozenset[int]]:
    """Good sets of relays for two waves, the best first; [] where none can be."""
    if ask.named is not None:
        return [frozenset(ask.named)]
    table = _Table(problem)
    useful = [i for i in range(problem.output) if bool((table.rank[:, i] < problem.output).any())]
    if ask.depth < 2 or not useful or (ask.count or 0) > len(useful):
        return []
    useful.sort(key=lambda i: (int(problem.job[i, -1]), int(problem.synapse_bytes[i, -1]), -i))
    starts = _starts(table, useful, ask.count)
    found = [_improved(table, np.array(start), useful, ask.count, effort) for start in starts]
    ranked = sorted(dict.fromkeys((key, tuple(np.flatnonzero(relays).tolist())) for key, relays in found))
    return [frozenset(relays) for _, relays in ranked]


class _Table:
    """Sources of each region from the cheapest to the dearest, the output last, and what they cost."""

    def __init__(self, p: Problem) -> None:
        self.problem, n = p, p.output
        self.rank = np.full((n, n), n, np.int64)
        self.source = np.full((n, n + 1), n, np.int64)
        for i in range(n):
            down = np.flatnonzero(p.job[i, :n] < FORBIDDEN)
            order = down[np.lexsort((down, p.distance[i, down], p.synapse_bytes[i, down], p.job[i, down]))]
            self.source[i, : len(order)] = order
            self.rank[i, order] = np.arange(len(order))
        rows = np.arange(n)[:, None]
        self.job, self.stored = p.job[rows, self.source], p.synapse_bytes[rows, self.source]
        self.counted, self.distance = p.counted[rows, self.source], p.distance[rows, self.source]
        self.message = p.message[self.source]
        self.rows = rows

    def nearest(self, relays: Flags) -> Ints:
        """The rank of each region's cheapest relay, n where it has none."""
        n = self.problem.output
        found: Ints = np.where(relays[None, :], self.rank, n).min(axis=1, initial=n)
        return found

    def best(self, nearest: Ints, relays: Flags, effort: Effort) -> tuple[Key, int]:
        """The best of many sets of relays (columns): its key and its column."""
        p, n = self.problem, self.problem.output
        effort.evaluations += relays.shape[1]
        ranks = np.where(relays, n, nearest)
        first = ranks == n
        job, message = self.job[self.rows, ranks], self.message[self.rows, ranks]
        makespan = np.zeros(relays.shape[1], np.int64)
        for wave in (first, ~first):
            work = np.where(wave, job, 0)
            slowest = p.latency + np.where(wave, message, 0).max(axis=0)
            busy = np.maximum(p.devices * work.max(axis=0), work.sum(axis=0))
            makespan += np.where(wave.any(axis=0), busy + p.devices * slowest, 0)
        heard = np.zeros((n + 1, relays.shape[1]), bool)
        heard[self.source[self.rows, ranks], np.arange(relays.shape[1])] = True
        silent = (relays & ~heard[:n]).sum(axis=0)
        over = self.counted[self.rows, ranks].sum(axis=0) - p.limit if p.limit else np.zeros_like(makespan)
        stored, far = (t[self.rows, ranks] for t in (self.stored, self.distance))
        keys = (np.maximum(over, 0), silent, makespan, stored.sum(axis=0), np.where(first, 0, far).sum(axis=0))
        column = int(np.lexsort((*reversed(keys),))[0])
        return tuple(int(k[column]) for k in keys), column


def _starts(table: _Table, useful: list[int], count: int | None) -> list[Flags]:
    """The best of many plain sets: the narrowest regions of the whole model or of its beginning, single ones, and some
    that lie evenly. `useful` are regions from the narrowest to the widest.
    """
    n = table.problem.output
    sets: list[list[int]] = []
    for share in (1, 2, 4):  # relays at the beginning leave what follows them to the output
        early = [i for i in useful if i * share < n]
        sizes = [count] if count else range(1, len(early) + 1)
        sets += [early[:k] for k in sizes if k <= len(early)]
    spread = sorted(useful)
    if count:
        sets.append([spread[(2 * k + 1) * len(spread) // (2 * count)] for k in range(count)])
        sets.append(spread[:count])
    else:
        sets += [[i] for i in useful]
    flags = np.zeros((n, len(sets)), bool)
    for column, members in enumerate(sets):
        flags[members, column] = True
    keys = []
    for column in range(len(sets)):
        relays = flags[:, column]
        key, _ = table.best(table.nearest(relays)[:, None], relays[:, None], Effort())
        keys.append((key, tuple(np.flatnonzero(relays).tolist())))
    found = [members for _, members in sorted(dict.fromkeys(keys))][: STARTS + 2 * bool(count)]
    return [np.isin(np.arange(n), members) for members in found]


def _improved(
    table: _Table, relays: Flags, useful: list[int], count: int | None, effort: Effort
) -> tuple[Key, Flags]:
    """Follow the best move until none is better."""
    key, _ = table.best(table.nearest(relays)[:, None], relays[:, None], effort)
    before = effort.evaluations
    while effort.evaluations - before < MOST_COLUMNS:
        moved = None
        if not count:
            moved = _added(table, relays, useful, key, effort) or _dropped(table, relays, key, effort)
        moved = moved or _swapped(table, relays, useful, key, effort)
        if moved is None:
            break
        key, relays = moved
    return key, relays


def _added(
    table: _Table, relays: Flags, useful: list[int], key: Key, effort: Effort, without: int | None = None
) -> tuple[Key, Flags] | None:
    """The best set with one relay more, if it is better; with `without`, one that takes the place of that relay."""
    left = relays.copy()
    if without is not None:
        left[without] = False
    extra = np.array([i for i in useful if not relays[i]], np.int64)
    if not len(extra):
        return None
    sets = np.repeat(left[:, None], len(extra), axis=1)
    sets[extra, np.arange(len(extra))] = True
    nearest = np.minimum(table.nearest(left)[:, None], table.rank[:, extra])
    found, column = table.best(nearest, sets, effort)
    return (found, sets[:, column]) if found < key else None


def _dropped(table: _Table, relays: Flags, key: Key, effort: Effort) -> tuple[Key, Flags] | None:
    present = np.flatnonzero(relays)
    if len(present) < 2:
        return None
    sets = np.repeat(relays[:, None], len(present), axis=1)
    sets[present, np.arange(len(present))] = False
    ranks = table.rank[:, present]
    two = np.sort(ranks, axis=1)[:, :2]
    nearest = np.where(ranks == two[:, :1], two[:, 1:2], two[:, :1])
    found, column = table.best(nearest, sets, effort)
    return (found, sets[:, column]) if found < key else None


def _swapped(
    table: _Table, relays: Flags, useful: list[int], key: Key, effort: Effort
) -> tuple[Key, Flags] | None:
    """The first relay whose place another region takes better."""
    partners = useful
    if len(useful) > 2 * PARTNERS:
        spread = sorted(useful)
        partners = [*useful[:PARTNERS], *spread[:: max(1, len(spread) // PARTNERS)]]
    for without in np.flatnonzero(relays).tolist():
        moved = _added(table, relays, list(dict.fromkeys(partners)), key, effort, without)
        if moved is not None:
            return moved
    return None


def leanest(problem: Problem) -> Problem:
    """The same regions with bytes for time: its makespan is the bytes that the budget counts."""
    possible = problem.job < FORBIDDEN
    job = np.where(possible, problem.counted, FORBIDDEN)
    return replace(
        problem, job=job, devices=1, latency=0, message=np.zeros_like(problem.message), limit=0, tick_us=1.0
    )
