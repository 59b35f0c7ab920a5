"""Exact finish times of a pattern repeated over microbatches.

The order on every resource is fixed, so that nothing depends on who happens to be first: the start of an event is the
latest of what it waits for, and all starts together are the longest paths of an acyclic graph ("max-plus"). Events that
wait for nothing more are taken all at once, in numpy; where few resources leave few of those, one at a time is faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reclra_compile.errors import Fault, PlanError
from reclra_compile.simulate.pattern import Floats, Ints, Lane, Pattern, lanes

NARROW = 24  #: resources up to which events are taken one by one


@dataclass(frozen=True, slots=True)
class Run:
    """Start times of all events (nodes × microbatches), and what follows from them; microseconds."""

    pattern: Pattern
    start: Floats

    @property
    def makespan_us(self) -> float:
        """When the last node ends; the first starts at 0."""
        return float((self.start.max(axis=1) + self.pattern.duration).max()) if self.start.size else 0.0

    @property
    def busy_us(self) -> Floats:
        """Time that each resource works."""
        busy: Floats = self.pattern.work() * self.start.shape[1]
        return busy

    @property
    def idle_us(self) -> Floats:
        """Time that each resource waits, of the makespan."""
        idle: Floats = self.makespan_us - self.busy_us
        return idle

    @property
    def row_us(self) -> float:
        """Time of a step where steps follow each other at equal distances: no resource begins one before it has ended
        the one before.
        """
        return float(self._spans().max()) if self.start.size else 0.0

    @property
    def bubble_us(self) -> Floats:
        """Time that each resource waits between its own first start and its own last end."""
        bubble: Floats = np.maximum(self._spans() - self.busy_us, 0.0)
        return bubble

    def _spans(self) -> Floats:
        """From the first start to the last end of each resource; 0 for one that has nothing to do."""
        first = np.full(self.pattern.resources, np.inf)
        last = np.zeros(self.pattern.resources)
        np.minimum.at(first, self.pattern.resource, self.start.min(axis=1, initial=np.inf))
        np.maximum.at(last, self.pattern.resource, self.start.max(axis=1, initial=0.0) + self.pattern.duration)
        spans: Floats = np.where(np.isfinite(first), last - first, 0.0)
        return spans


def run(pattern: Pattern, microbatches: int, order: Iterable[Lane] | None = None, narrow: int = NARROW) -> Run:
    """Run `microbatches` copies of `pattern` in `order` (by turns where none is given).

    Raises PlanError (S001) where nodes wait for each other in a circle, naming them.
    """
    events = pattern.nodes * microbatches
    after = np.full(events, -1, np.int32)
    waits = np.repeat(np.bincount(pattern.dst, minlength=pattern.nodes).astype(np.int32), microbatches)
    seen = 0
    for lane in lanes(pattern, microbatches) if order is None else order:
        after[lane[:-1]] = lane[1:]
        waits[lane[1:]] += 1
        seen += lane.size
    if seen != events:
        raise ValueError(f"the lanes hold {seen} events, the pattern has {events}")
    go = _one_by_one if pattern.resources <= narrow else _all_at_once
    start, done = go(pattern, microbatches, after, waits)
    if done < events:
        raise PlanError(_circle(pattern, microbatches, after, waits))
    return Run(pattern, start.reshape(pattern.nodes, microbatches))


def _leaving(pattern: Pattern) -> tuple[Ints, Ints, Ints, Floats]:
    """Edges sorted by their source: first edge and number of edges of each node, targets, lags."""
    by = np.argsort(pattern.src, kind="stable")
    count = np.bincount(pattern.src, minlength=pattern.nodes)
    return np.cumsum(count) - count, count, pattern.dst[by], pattern.lag[by]


def _all_at_once(
    pattern: Pattern, many: int, after: NDArray[np.int32], waits: NDArray[np.int32]
) -> tuple[Floats, int]:
    first, count, target, lag = _leaving(pattern)
    start = np.zeros(pattern.nodes * many)
    ready = np.flatnonzero(waits == 0)
    done = 0
    while ready.size:
        done += ready.size
        node = ready // many
        began = start[ready]
        following = after[ready]
        has = following >= 0
        following = following[has]
        # an event follows one event at most, so that no index occurs twice here; below it may
        start[following] = np.maximum(start[following], (began + pattern.duration[node])[has])
        waits[following] -= 1
        number = count[node]
        total = int(number.sum())
        if total:
            which = np.repeat(np.arange(node.size), number)
            edge = np.arange(total) + (first[node] - np.cumsum(number) + number)[which]
            reached = target[edge] * many + (ready - node * many)[which]
            np.maximum.at(start, reached, began[which] + lag[edge])
            np.subtract.at(waits, reached, 1)
            following = np.concatenate((following, reached))
        ready = np.unique(following[waits[following] == 0])
    return start, done


def _one_by_one(
    pattern: Pattern, many: int, after: NDArray[np.int32], waits: NDArray[np.int32]
) -> tuple[Floats, int]:
    leaving: list[list[tuple[int, float]]] = [[] for _ in range(pattern.nodes)]
    for s, d, g in zip(pattern.src.tolist(), pattern.dst.tolist(), pattern.lag.tolist(), strict=True):
        leaving[s].append((d * many, g))
    duration, following, left = pattern.duration.tolist(), after.tolist(), waits.tolist()
    start = [0.0] * len(left)
    ready = [e for e, n in enumerate(left) if not n]
    done = 0
    while ready:
        event = ready.pop()
        done += 1
        node, microbatch = divmod(event, many)
        began = start[event]
        e = following[event]
        if e >= 0:
            end = began + duration[node]
            if end > start[e]:
                start[e] = end
            left[e] -= 1
            if not left[e]:
                ready.append(e)
        for base, g in leaving[node]:
            e = base + microbatch
            if began + g > start[e]:
                start[e] = began + g
            left[e] -= 1
            if not left[e]:
                ready.append(e)
    waits[:] = left
    return np.array(start), done


def _circle(pattern: Pattern, many: int, after: NDArray[np.int32], waits: NDArray[np.int32]) -> Fault:
    """The events of one circle among those that still wait, each with its resource."""
    before = np.full(after.size, -1, np.int64)
    before[after[after >= 0]] = np.flatnonzero(after >= 0)
    event = int(np.flatnonzero(waits > 0)[0])
    path: dict[int, None] = {}
    while event not in path:
        path[event] = None
        node, microbatch = divmod(event, many)
        sources = [int(s) * many + microbatch for s in pattern.src[pattern.dst == node]]
        behind = [e for e in (int(before[event]), *sources) if e >= 0 and waits[e] > 0]
        event = behind[0]
    walked = list(path)
    circle = walked[walked.index(event) :]
    shown = [_event(pattern, e, many) for e in circle[:6]]
    more = f", and {len(circle) - 6} more" if len(circle) > 6 else ""
    return Fault(
        "S001", f"these wait for each other: {', which waits for '.join(shown)}{more}",
        fix="give each of these tasks at least as late a turn as those that it waits for",
    )  # fmt: skip


def _event(pattern: Pattern, event: int, many: int) -> str:
    node, microbatch = divmod(event, many)
    return f"'{pattern.names[node] or f'node {node}'}' of microbatch {microbatch}"
