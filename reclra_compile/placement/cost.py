"""Predict what a step costs, in FLOPs and bytes, against backprop on the same model."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx

from reclra_compile.ir import Cost, Pathway, Region, Target, Task
from reclra_compile.placement.memory import sizes_of
from reclra_compile.placement.recompute import kept_bytes
from reclra_compile.schedule.order import dependencies
from reclra_compile.schedule.settling import settles
from reclra_compile.spec.graph import FLOAT_BYTES


def predict(
    regions: tuple[Region, ...], targets: tuple[Target, ...], pathways: tuple[Pathway, ...], tasks: tuple[Task, ...]
) -> Cost:
    """Cost of one step of `tasks`; FLOPs as torch counts them, critical paths with unlimited devices."""
    forward = sum(r.forward_flops for r in regions)
    trained = {t.region for t in targets if t.trainable}
    again = {t.region for t in targets if t.recompute}
    weight = sum(r.weight_flops + r.forward_flops * (r.name in again) for r in regions if r.name in trained)
    errors = sum(p.flops for p in pathways)
    if settles(targets):  # errors are what settling costs, and updates run regions again at both equilibria
        weight, errors = (sum(t.flops for t in tasks if t.kind == k) for k in "US")
    return Cost(
        backprop_flops=forward + sum(r.weight_flops + r.input_flops for r in regions),
        forward_flops=forward,
        weight_flops=weight,
        error_flops=errors,
        synapse_update_flops=sum(t.flops for t in tasks if t.kind in ("V", "M")),
        critical_path_flops=_longest(tasks, pathways),
        backprop_critical_path_flops=_backprop_path(regions),
        parameter_bytes=_stored(regions),
        synapse_bytes=FLOAT_BYTES * sum(p.synapses for p in pathways),
        saved_bytes=kept_bytes(regions, targets),
        backprop_saved_bytes=sum(r.saved_bytes for r in regions),
        traffic_bytes=sum(t.bytes for t in tasks if t.kind not in "PRX"),
        sent_bytes=sent_bytes(tasks),
    )


def sent_bytes(tasks: Iterable[Task]) -> int:
    """Bytes that devices send to each other in one step."""
    return sum(t.bytes for t in tasks if t.kind == "P")


def _stored(regions: tuple[Region, ...]) -> int:
    """Bytes of the model's parameters, each once however many regions share it."""
    return sum(dict(pair for r in regions for pair in sizes_of(r)).values())


def _longest(tasks: tuple[Task, ...], pathways: tuple[Pathway, ...]) -> int:
    """Longest chain of tasks; a displacement that leaves along an edge does not wait for the region's ΔW."""
    leaving: dict[str, int] = {}
    for p in pathways:
        if p.edge:
            leaving[p.source] = leaving.get(p.source, 0) + p.flops
    ready: dict[str, int] = {}
    longest = 0
    for i in nx.topological_sort(dependencies(tasks)):
        task = tasks[i]
        start = max((ready[v] for v in task.reads if v in ready), default=0)
        longest = max(longest, start + task.flops)
        for v in task.writes:
            early = task.kind == "U" and bool(leaving) and v.startswith("d.")
            ready[v] = start + (leaving[task.subject] if early else task.flops)
    return longest


def _backprop_path(regions: tuple[Region, ...]) -> int:
    """Longest chain of backprop: forward to the output, back to each region, its weight gradient."""
    reach: dict[str, int] = {}
    for r in regions:
        start = max((reach[v] for v in r.inputs if v in reach), default=0)
        for v in r.outputs:
            reach[v] = start + r.forward_flops
    back: dict[str, int] = dict.fromkeys(reach, 0)
    longest = 0
    total = max(reach.values(), default=0)
    for r in reversed(regions):
        arrived = max(back[v] for v in r.outputs)
        longest = max(longest, total + arrived + r.weight_flops)
        for v in r.inputs:
            if v in back:
                back[v] = max(back[v], arrived + r.input_flops)
    return longest
