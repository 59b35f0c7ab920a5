"""Plans without a model: chains of equal regions, and random region graphs, for planners and simulators."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import networkx as nx

from reclra_compile.ir import Pathway, Placement, Plan, Region, Target
from reclra_compile.schedule.lower import lower
from reclra_compile.schedule.order import frees, order
from reclra_compile.spec.resolve import waves_of

UNIT = 1_000  #: FLOPs of one product of a region


def region(name: str, inputs: Sequence[str], batch: int, size: int = 8, cost: int = UNIT) -> Region:
    """A dense region whose forward pass, weight gradient and input gradient cost `cost` FLOPs each."""
    z = 4 * size * batch
    return Region(
        name=name, op="Linear", phi="tanh", inputs=tuple(inputs), outputs=(f"z.{name}",), shape=(size,),
        parameters=(f"{name}.weight",), parameter_count=size * size, weight_count=size * size,
        forward_flops=cost, weight_flops=cost, input_flops=cost, output_bytes=(z,), z_bytes=z,
        parameter_sizes=(4 * size * size,),
    )  # fmt: skip


def plan_of(regions: Sequence[Region], pathways: Sequence[Pathway], rule: str = "lra", batch: int = 8) -> Plan:
    """The plan of regions (the last makes the output) and pathways, on one device."""
    output = regions[-1].outputs[0]
    errors: nx.DiGraph[str] = nx.DiGraph()
    errors.add_node(regions[-1].name)
    errors.add_edges_from((p.source, p.target) for p in pathways)
    waves = waves_of(errors, {r.name: k for k, r in enumerate(regions)})
    root = regions[-1].name
    targets = tuple(
        Target(n, "gradient" if n == root else rule, beta=1.0 if n == root or rule == "gradient" else 0.1)
        for wave in waves for n in wave
    )  # fmt: skip
    tasks = frees(order(lower(tuple(regions), targets, tuple(pathways), waves, output)))
    placement = tuple((r.name, 0) for r in regions)
    return Plan("synthetic", "Chain", "m0", batch, (("x0", (8,), "float32"),), output,
                tuple(regions), targets, tuple(pathways), waves, tasks, placement=Placement(placement))  # fmt: skip


def dense(source: str, target: str, flops: int = 0) -> Pathway:
    """A pathway with fixed synapses."""
    return Pathway(f"{source}->{target}", source, target, "dense", "fixed", init="normal", flops=flops)


def chain(length: int, wiring: str = "depth1", batch: int = 8) -> Plan:
    """A chain of equal regions with errors from the output (depth1) or back along it (backprop)."""
    names = [f"r{k}" for k in range(length)]
    regions = [region(n, [f"z.r{k - 1}" if k else "x0"], batch) for k, n in enumerate(names)]
    if wiring == "backprop":
        edges = reversed(list(itertools.pairwise(names)))
        pathways = [Pathway(f"{b}->{a}", b, a, "adjoint", "tied", flops=UNIT) for a, b in edges]
        return plan_of(regions, pathways, "gradient", batch)
    pathways = [dense(names[-1], n) for n in reversed(names[:-1])]
    return plan_of(regions, pathways, batch=batch)


def dag(seed: int, length: int, batch: int = 8) -> Plan:
    """A random region graph with a random error graph: sources are the output or any region downstream."""
    rng = random.Random(seed)
    regions: list[Region] = []
    for k in range(length):
        before = [f"z.r{i}" for i in range(k)]
        reads = rng.sample(before, min(len(before), rng.randint(1, 2))) if before else ["x0"]
        if before and f"z.r{k - 1}" not in reads and (k == length - 1 or rng.random() < 0.7):
            reads.append(before[-1])
        regions.append(region(f"r{k}", reads, batch, rng.randint(2, 12), rng.randint(1, 9) * UNIT))
    read = {v for r in regions for v in r.inputs}
    last = regions[-1]
    unread = tuple(r.outputs[0] for r in regions[:-1] if r.outputs[0] not in read)
    regions[-1] = region(last.name, (*last.inputs, *unread), batch, 4)
    root = regions[-1].name
    pathways = []
    for k in reversed(range(length - 1)):
        name = regions[k].name
        source = root if rng.random() < 0.5 else f"r{rng.randint(k + 1, length - 1)}"
        pathways.append(dense(source, name, rng.randint(0, 3) * UNIT))
    return plan_of(regions, pathways, batch=batch)
