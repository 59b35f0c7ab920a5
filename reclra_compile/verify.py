"""Check every invariant of a plan; all faults are reported at once.

Run after every compilation, and on every plan read from a file before it is linked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import networkx as nx

from reclra_compile.errors import Fault, PlanError
from reclra_compile.ir import Plan
from reclra_compile.rules.catalogue import KERNELS, RULES, UPDATES_OF
from reclra_compile.schedule.lower import lower
from reclra_compile.schedule.order import KEPT


def verify(plan: Plan) -> Plan:
    """The plan itself where it is sound; raises PlanError (P1xx) with every fault otherwise."""
    faults = [Fault("P100", message) for check in CHECKS for message in check(plan)]
    if faults:
        raise PlanError(faults)
    return plan


def _names(plan: Plan) -> Iterator[str]:
    for what, names in (
        ("region", [r.name for r in plan.regions]),
        ("target", [t.region for t in plan.targets]),
        ("pathway", [p.name for p in plan.pathways]),
        ("task", [t.id for t in plan.tasks]),
        ("value", [v for r in plan.regions for v in r.outputs]),
    ):
        yield from (f"{what} '{n}' appears {k} times" for n, k in Counter(names).items() if k > 1)


def _references(plan: Plan) -> Iterator[str]:
    regions = {r.name for r in plan.regions}
    made = {v for r in plan.regions for v in r.outputs}
    known = made | {name for name, _, _ in plan.inputs}
    yield from (f"region '{r.name}' reads unknown value '{v}'" for r in plan.regions for v in r.inputs if v not in known)
    if plan.output not in made:
        yield f"the plan's output '{plan.output}' is made by no region"
    yield from (f"target of unknown region '{t.region}'" for t in plan.targets if t.region not in regions)
    for p in plan.pathways:
        yield from (f"pathway '{p.name}' names unknown region '{n}'" for n in (p.source, p.target) if n not in regions)
    placed = Counter(n for n, _ in plan.placement.regions)
    yield from (f"region '{n}' is placed {placed[n]} times" for n in sorted(regions | set(placed)) if placed[n] != 1)
    count = len(plan.placement.devices)
    yield from (f"region '{n}' is on device {d} of {count}" for n, d in plan.placement.regions if not 0 <= d < count)
    yield from (f"task '{t.id}' is on device {t.device} of {count}" for t in plan.tasks if not 0 <= t.device < count)


def _rules(plan: Plan) -> Iterator[str]:
    for t in plan.targets:
        if t.rule not in RULES:
            yield f"region '{t.region}' has unknown rule '{t.rule}'"
        if t.beta <= 0 or t.kappa <= 0 or t.p not in (1, 2) or t.q not in (1, 2):
            yield f"region '{t.region}' has β={t.beta}, κ={t.kappa}, p={t.p}, q={t.q} out of range"
    for p in plan.pathways:
        if p.kernel not in KERNELS or p.kernel == "auto":
            yield f"pathway '{p.name}' has unknown kernel '{p.kernel}'"
        elif p.update not in UPDATES_OF[p.kernel]:
            yield f"pathway '{p.name}': kernel {p.kernel} cannot have update '{p.update}'"
        if (p.kernel == "low_rank") != (p.rank > 0):
            yield f"pathway '{p.name}': kernel {p.kernel} with rank {p.rank}"


def _waves(plan: Plan) -> Iterator[str]:
    """Waves are the generations of the error graph: a DAG rooted at the output region."""
    roots = [r.name for r in plan.regions if plan.output in r.outputs]
    errors: nx.DiGraph[str] = nx.DiGraph()
    errors.add_nodes_from(roots)
    errors.add_edges_from((p.source, p.target) for p in plan.pathways)
    if not nx.is_directed_acyclic_graph(errors):
        yield "the pathways form a cycle"
        return
    generations = [set(g) for g in nx.topological_generations(errors)]
    if [set(w) for w in plan.waves] != generations:
        yield "the waves are not the generations of the error graph"
    if generations and generations[0] != set(roots):
        yield f"the error graph starts at {sorted(generations[0])}, not at the output region"
    if {t.region for t in plan.targets} != set(errors):
        yield "targets and the error graph name different regions"


def _tasks(plan: Plan) -> Iterator[str]:
    """Tasks do what regions and pathways need: no more, no less, each with its exact reads and writes."""
    try:
        needed = {t.id: t for t in lower(plan.regions, plan.targets, plan.pathways, plan.waves, plan.output)}
    except (KeyError, IndexError, StopIteration):
        return  # a dangling reference, reported by the checks above
    present = {t.id: t for t in plan.tasks if t.kind != "X"}
    yield from (f"task '{i}' is missing" for i in needed if i not in present)
    yield from (f"task '{i}' does not belong to this wiring" for i in present if i not in needed)
    for i in needed.keys() & present.keys():
        if (needed[i].reads, needed[i].writes) != (present[i].reads, present[i].writes):
            yield f"task '{i}' reads or writes other values than its region or pathway needs"


def _order(plan: Plan) -> Iterator[str]:
    """Every read finds its value written and not yet freed; nothing is written twice; all is freed."""
    alive = {name for name, _, _ in plan.inputs} | {"y"}
    written: set[str] = set(alive)
    for t in plan.tasks:
        for v in t.reads:
            if v not in written:
                yield f"task '{t.id}' reads '{v}' before it is written"
            elif v not in alive:
                yield f"task '{t.id}' {'frees' if t.kind == 'X' else 'reads'} '{v}' after it was freed"
        for v in t.writes:
            if v in written:
                yield f"task '{t.id}' writes '{v}' a second time"
        alive |= set(t.writes)
        written |= set(t.writes)
        if t.kind == "X":
            alive -= set(t.reads)
    unused = {name for name, _, _ in plan.inputs} | {"y"}
    left = sorted(v for v in alive - unused if not v.startswith(KEPT))
    if left:
        yield f"never freed: {', '.join(left)}"


CHECKS = (_names, _references, _rules, _waves, _tasks, _order)
