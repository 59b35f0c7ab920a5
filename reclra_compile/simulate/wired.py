"""Error pathways on equal parts with links: depth 1, depth 2, and groups with exact adjoints inside."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reclra_compile.simulate.engine import Run, run
from reclra_compile.simulate.load import Load
from reclra_compile.simulate.pattern import Builder, Pattern, lanes, peak_bytes


@dataclass(frozen=True, slots=True)
class Wired:
    """Error pathways on `devices` equal parts, with turns for `microbatches`."""

    pattern: Pattern
    devices: int
    microbatches: int
    static_bytes: float

    def run(self) -> Run:
        """Simulate a step."""
        return run(self.pattern, self.microbatches)

    def step_us(self) -> float:
        """Time of a step."""
        return self.run().makespan_us

    def peak_bytes(self) -> float:
        """The most bytes that a device holds."""
        order = list(lanes(self.pattern, self.microbatches))[: self.devices]
        return self.static_bytes + float(peak_bytes(self.pattern, order, self.microbatches).max())


def depth_one(load: Load, devices: int, microbatches: int) -> Wired:
    """Every region hears the output; the error phase makes no input gradient."""
    build = _Parts(load, devices)
    error = build.error_us(load.apply_us + load.learn_us)
    build.star(devices - 1, build.forward[-1], load.forward_us / devices, range(devices - 1), load.error_bytes)
    for s in range(devices):
        build.error(s, error)
    return build.wired(microbatches, load.synapse_bytes * load.layers)


def depth_two(load: Load, devices: int, microbatches: int) -> Wired:
    """About √P relays hear the output; all other regions hear the relay of their part of the model."""
    build = _Parts(load, devices)
    relays = max(1, round(math.sqrt(devices)))
    edges = [round(k * devices / relays) for k in range(relays + 1)]
    heads = [end - 1 for end in edges[1:]]  # the last stage of each part; that of the last part has the output
    build.star(devices - 1, build.forward[-1], load.forward_us / devices, heads[:-1], load.error_bytes)
    share = min(1.0, load.layers / devices)  # of a region on one part: smaller parts have a share of its pathway
    relayed_us = load.relayed_apply_us + load.relayed_learn_us
    follower = build.error_us(relayed_us)
    first = share * (load.apply_us + load.target_us)  # until the relay's own error is there
    for begin, head in zip(edges, heads, strict=False):
        relay = build.error(head, follower + share * (load.apply_us + load.learn_us - relayed_us))
        build.star(head, relay, first, range(begin, head), load.relay_bytes)
    for begin, head in zip(edges, heads, strict=False):
        for s in range(begin, head):
            build.error(s, follower)
    from_output = relays * share  # regions' worth of pathways from the output
    stored = from_output * load.synapse_bytes + (load.layers - from_output) * load.relayed_synapse_bytes
    return build.wired(microbatches, stored)


def grouped(load: Load, devices: int, microbatches: int) -> Wired:
    """One group for each device: exact adjoints inside, errors of its own read-out, so that nobody waits for errors."""
    build = _Parts(load, devices)
    for s in range(devices):
        build.error(s, load.both_us / devices + load.apply_us + load.learn_us, local=True)
    return build.wired(microbatches, load.synapse_bytes * devices)


class _Parts:
    """The forward pass over equal parts, and error phases that hear something."""

    def __init__(self, load: Load, devices: int) -> None:
        self.load, self.devices, self.build = load, devices, Builder()
        self.hears: dict[int, tuple[int, float]] = {}
        self.errors: dict[int, int] = {}
        link, width = load.link, load.width_bytes
        self.held_bytes = load.activation_bytes / devices + width * (devices > 1)  # of a microbatch on a device
        self.forward: list[int] = []
        arrives: tuple[int, float] | None = None
        for s in range(devices):
            node = self.build.node(s, load.forward_us / devices, name=f"F{s}", held=self.held_bytes)
            if arrives:
                self.build.edge(arrives[0], node, arrives[1])
            self.forward.append(node)
            occupied = link.occupied_us(width) if s < devices - 1 else 0.0
            arrives = self.send(s, node, load.forward_us / devices, occupied)

    def send(self, device: int, source: int, ready_us: float, occupied_us: float) -> tuple[int, float]:
        """The node and the lag after its start at which a message from `device` has arrived."""
        if not occupied_us:
            return source, ready_us + self.load.link.latency_us
        port = self.build.node(self.devices + device, occupied_us, name=f"sent by {device}")
        self.build.edge(source, port, ready_us)
        return port, occupied_us + self.load.link.latency_us

    def star(self, device: int, source: int, ready_us: float, to: Sequence[int], bytes_: float) -> None:
        """Send the same message to several devices, one after the other."""
        occupied = self.load.link.occupied_us(bytes_)
        if not to:
            return
        port, _ = self.send(device, source, ready_us, occupied * len(to))
        begin = 0.0 if occupied else ready_us
        for k, there in enumerate(to, 1):
            self.hears[there] = port, begin + k * occupied + self.load.link.latency_us

    def error_us(self, pathways_us: float) -> float:
        """The error phase of one part: its regions' displacements, targets, synapse updates and weight gradients."""
        load = self.load
        return load.weight_us / self.devices + (pathways_us + load.target_us) * load.layers / self.devices

    def error(self, stage: int, length_us: float, local: bool = False) -> int:
        """The error phase of `stage`, after what it hears; its own forward pass where that is nothing."""
        node = self.build.node(stage, length_us, name=f"E{stage}", freed=self.held_bytes)
        source, lag = self.hears.get(stage, (self.forward[stage], self.load.forward_us / self.devices))
        self.build.edge(source, node, lag)
        if local or stage in self.hears:
            self.build.edge(self.forward[stage], node)
        self.errors[stage] = node
        return node

    def wired(self, microbatches: int, synapse_bytes: float) -> Wired:
        """The pattern with turns: each error phase as many behind as its message is late, in periods, where messages
        leave when the turns of their senders let them.
        """
        load, pattern = self.load, self.build.pattern(2 * self.devices)
        period = max(float(pattern.work().max()), 1e-12)
        stage = {node: s for s, node in self.errors.items()}
        into: dict[int, list[int]] = defaultdict(list)
        for e, there in enumerate(pattern.dst.tolist()):
            into[there].append(e)
        begin = np.zeros(pattern.nodes)
        turn = np.zeros(pattern.nodes, np.int64)
        for node in range(pattern.nodes):  # edges lead to later nodes
            begin[node] = max((begin[pattern.src[e]] + pattern.lag[e] for e in into[node]), default=0.0)
            if node in stage:
                first = begin[self.forward[stage[node]]] + load.forward_us / self.devices
                turn[node] = min(microbatches - 1, max(0, math.ceil((begin[node] - first) / period - 1e-9)))
                begin[node] = first + turn[node] * period
            elif pattern.resource[node] >= self.devices:  # a message leaves in its sender's turn
                turn[node] = turn[pattern.src[into[node][0]]]
        static = (load.weight_bytes + synapse_bytes) * load.copies / self.devices
        return Wired(replace(pattern, turn=turn), self.devices, microbatches, static)
