"""What is simulated: the work of one microbatch as a small graph, and the order in which each resource takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Lane: TypeAlias = NDArray[np.int64]
"""Event numbers in the order in which one resource takes them: node × microbatches + microbatch."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One microbatch's nodes and edges; repeated for each microbatch. Times are in microseconds.

    Node k occupies resource `resource[k]` for `duration[k]`, and has its place `turn[k]` turns behind. Edge e says
    that node `dst[e]` starts no earlier than `lag[e]` after the start of node `src[e]`, for the same microbatch.
    `held` bytes are taken when a node starts, `freed` bytes are given back when it ends.
    """

    resource: Ints
    duration: Floats
    turn: Ints
    src: Ints
    dst: Ints
    lag: Floats
    resources: int
    names: tuple[str, ...]
    held: Floats
    freed: Floats

    @property
    def nodes(self) -> int:
        """Nodes of one microbatch."""
        return len(self.duration)

    def work(self) -> Floats:
        """Time that each resource is busy with one microbatch."""
        return np.bincount(self.resource, weights=self.duration, minlength=self.resources).astype(np.float64)


@dataclass(slots=True)
class Builder:
    """Collects the nodes and edges of a pattern."""

    _nodes: list[tuple[int, float, int, str, float, float]] = field(default_factory=list)
    _edges: list[tuple[int, int, float]] = field(default_factory=list)

    def node(
        self, resource: int, duration: float, turn: int = 0, name: str = "", held: float = 0.0, freed: float = 0.0
    ) -> int:
        """Add a node and return its number; nodes of one resource and turn run in the order they are added."""
        self._nodes.append((resource, duration, turn, name, held, freed))
        return len(self._nodes) - 1

    def edge(self, src: int, dst: int, lag: float | None = None) -> None:
        """Let `dst` start no earlier than `lag` after the start of `src`; None is the end of `src`."""
        self._edges.append((src, dst, self._nodes[src][1] if lag is None else lag))

    def length(self, node: int) -> float:
        """The duration of a node."""
        return self._nodes[node][1]

    def pattern(self, resources: int) -> Pattern:
        """The pattern of all that was added."""
        resource, duration, turn, names, held, freed = zip(*self._nodes, strict=True) if self._nodes else [()] * 6
        src, dst, lag = zip(*self._edges, strict=True) if self._edges else ((), (), ())
        ints, floats = np.int64, np.float64
        return Pattern(
            np.array(resource, ints), np.array(duration, floats), np.array(turn, ints), np.array(src, ints),
            np.array(dst, ints), np.array(lag, floats), resources, names, np.array(held, floats),
            np.array(freed, floats),
        )  # fmt: skip


def lanes(pattern: Pattern, microbatches: int, batches: int = 1, stale: bool = False) -> Iterator[Lane]:
    """Each resource's events by turn, and within a turn as the pattern lists them.

    Several batches follow each other: a resource ends one before it begins the next, or, where `stale`, takes the next
    batch's first turns while the last ones of this batch are still to come.
    """
    many = microbatches * batches
    by_resource = np.argsort(pattern.resource, kind="stable")
    ends = np.cumsum(np.bincount(pattern.resource, minlength=pattern.resources))
    for begin, end in zip((0, *ends[:-1]), ends, strict=True):
        nodes = by_resource[begin:end]
        behind = pattern.turn[nodes]
        if stale or batches == 1:
            yield _turns(nodes, behind, many, many)
        else:
            one = _turns(nodes, behind, microbatches, many)
            yield (one + microbatches * np.arange(batches)[:, None]).ravel()


def _turns(nodes: Ints, behind: Ints, microbatches: int, stride: int) -> Lane:
    if not nodes.size:
        return np.zeros(0, np.int64)
    if (behind == behind[0]).all():
        return (np.arange(microbatches)[:, None] + nodes * stride).ravel()
    turns = np.arange(behind.min(), microbatches + behind.max())[:, None]
    microbatch = turns - behind
    there = (microbatch >= 0) & (microbatch < microbatches)
    found: Lane = (microbatch + nodes * stride)[there]
    return found


def peak_bytes(pattern: Pattern, order: Sequence[Lane], microbatches: int) -> Floats:
    """The most bytes that each resource holds at once while it takes its events in order."""
    peaks = np.zeros(pattern.resources)
    for k, lane in enumerate(order):
        if lane.size:
            node = lane // microbatches
            after = np.cumsum(pattern.held[node] - pattern.freed[node])
            peaks[k] = max(0.0, float((after + pattern.freed[node]).max()))
    return peaks
