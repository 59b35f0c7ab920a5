"""Backprop's schedules on pipelines of stages, as published: GPipe, 1F1B, interleaved 1F1B, ZB-H1 and ZB-H2.

All but the interleaved one are turns: in turn i a stage runs F of microbatch i, B of an earlier and W of a still
earlier one. With p stages, the turns that stage s is behind are

  GPipe    B and W in one: M − 1                             (Huang et al. 2019)
  1F1B     B and W in one: p − 1 − s                         (Narayanan et al. 2019; Fan et al. 2021)
  ZB-H1    B: p − 1 − s,     W: p − 1                        (Qi, Wan, Huang, Lin 2023, "Zero Bubble Pipeline
  ZB-H2    B: 2 (p − 1 − s), W: 2 (p − 1)                     Parallelism", the handcrafted schedules)

so that each stage has p microbatches in flight in ZB-H1, as the first one has in 1F1B, and 2p − 1 in ZB-H2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reclra_compile.simulate.engine import Run, run
from reclra_compile.simulate.interleaved import interleaved_lanes
from reclra_compile.simulate.pattern import Builder, Ints, Lane, Pattern, lanes, peak_bytes
from reclra_compile.simulate.stages import Link, Stage

Turns = Callable[[int, int, int], tuple[int, int]]
"""(stage, stages, microbatches) → turns that B and W are behind F."""

SPLIT: dict[str, Turns] = {
    "zb_h1": lambda s, p, m: (p - 1 - s, p - 1),
    "zb_h2": lambda s, p, m: (2 * (p - 1 - s), 2 * (p - 1)),
}
WHOLE: dict[str, Turns] = {
    "gpipe": lambda s, p, m: (m - 1, m - 1),
    "1f1b": lambda s, p, m: (p - 1 - s, p - 1 - s),
}


@dataclass(frozen=True, slots=True)
class Rival:
    """A schedule of backprop's stages on devices: a pattern, and its lanes where turns do not say them."""

    name: str
    pattern: Pattern
    devices: int
    microbatches: int
    static_bytes: tuple[float, ...]
    explicit: tuple[tuple[Ints, Ints], ...] | None = None  #: nodes and microbatches of each lane

    def order(self, batches: int = 1) -> Iterator[Lane]:
        """Each resource's events; a device ends one batch before it begins the next."""
        if self.explicit is None:
            yield from lanes(self.pattern, self.microbatches, batches)
            return
        many = self.microbatches * batches
        for node, microbatch in self.explicit:
            one = node * many + microbatch
            yield (one + self.microbatches * np.arange(batches)[:, None]).ravel()

    def run(self, batches: int = 1) -> Run:
        """Simulate `batches` steps."""
        return run(self.pattern, self.microbatches * batches, self.order(batches))

    def peak_bytes(self) -> tuple[float, ...]:
        """The most bytes that each device holds."""
        peaks = peak_bytes(self.pattern, list(self.order()), self.microbatches)[: self.devices]
        return tuple(float(s + p) for s, p in zip(self.static_bytes, peaks, strict=True))


def pipeline(name: str, stages: Sequence[Stage], microbatches: int, links: Sequence[Link] = ()) -> Rival:
    """Schedule `name` ("gpipe", "1f1b", "zb_h1", "zb_h2") with a device for each stage; KeyError for another name."""
    split = name in SPLIT
    turns = (SPLIT | WHOLE)[name]
    p = len(stages)
    behind = [turns(s, p, microbatches) for s in range(p)]
    pattern = _pattern(stages, p, links, split, behind)
    return Rival(name, pattern, p, microbatches, tuple(s.static_bytes for s in stages))


def interleaved(
    stages: Sequence[Stage], devices: int, microbatches: int, links: Sequence[Link] = ()
) -> Rival | None:
    """Interleaved 1F1B (Narayanan et al. 2021): stage k on device k mod `devices`; None where M does not allow it."""
    order = interleaved_lanes(len(stages) // devices, devices, microbatches)
    if order is None:
        return None
    behind = [(0, 0)] * len(stages)
    pattern = _pattern(stages, devices, links, False, behind)
    by_name = {name: k for k, name in enumerate(pattern.names)}
    number = np.array([[by_name[f"{kind}{k}"] for k in range(len(stages))] for kind in "FB"])
    sent = np.array([by_name.get(f"{name} sent", -1) for name in pattern.names])
    compute = [(number[lane.backward, lane.stage], lane.microbatch) for lane in order]
    ports = [(sent[node][there], m[there]) for node, m in compute for there in [sent[node] >= 0]]
    static = [0.0] * devices
    for k, s in enumerate(stages):
        static[k % devices] += s.static_bytes
    return Rival("interleaved", pattern, devices, microbatches, tuple(static), (*compute, *ports))


def _pattern(
    stages: Sequence[Stage], devices: int, links: Sequence[Link], split: bool, behind: Sequence[tuple[int, int]]
) -> Pattern:
    """One microbatch: F down the stages, B (or B and W in one) up; stage k computes on resource k mod `devices`."""
    build = Builder()
    links = links or (Link(),) * devices
    count = len(stages)

    def send(node: int, source: int, target: int, bytes_: float, turn: int, name: str) -> tuple[int, float | None]:
        """Where the next stage's start counts from: the node itself, or its message."""
        a, b = source % devices, target % devices
        if a == b:
            return node, None
        occupied = links[a].occupied_us(bytes_)
        if not occupied:
            return node, build.length(node) + links[a].latency_us
        port = build.node(devices + a, occupied, turn, f"{name} sent")
        build.edge(node, port)
        return port, occupied + links[a].latency_us

    arrives: tuple[int, float | None] | None = None
    forward = []
    for k, s in enumerate(stages):
        node = build.node(k % devices, s.forward_us, 0, f"F{k}", held=s.activation_bytes)
        forward.append(node)
        if arrives:
            build.edge(arrives[0], node, arrives[1])
        if k < count - 1:
            arrives = send(node, k, k + 1, s.message_bytes, 0, f"F{k}")
    arrives = (forward[-1], None)
    for k in reversed(range(count)):
        s, (late, later) = stages[k], behind[k]
        length, freed = (s.input_us, 0.0) if split else (s.both_us, s.activation_bytes)
        node = build.node(k % devices, length, late, f"B{k}", freed=freed)
        build.edge(arrives[0], node, arrives[1])
        if k:
            arrives = send(node, k, k - 1, stages[k - 1].message_bytes, late, f"B{k}")
        if split:
            weight = build.node(k % devices, s.weight_us, later, f"W{k}", freed=s.activation_bytes)
            build.edge(node, weight)
    return build.pattern(2 * devices)
