"""Check every invariant of a plan; all faults are reported at once.

Run after every compilation, and on every plan read from a file before it is linked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

import networkx as nx

import reclra_compile.verify_lanes as lanes
from reclra_compile.errors import Fault, PlanError
from reclra_compile.ir import Pathway, Plan, Region, Target, Task
from reclra_compile.placement.memory import peaks
from reclra_compile.rules.catalogue import INITS, KERNELS, TARGETS, UPDATES, can_have, reads_out, updates_of
from reclra_compile.schedule.comms import placed
from reclra_compile.schedule.lower import lower
from reclra_compile.schedule.order import KEPT
from reclra_compile.schedule.settling import RULE, options
from reclra_compile.schedule.values import base
from reclra_compile.spec.parts import ACTIVATIONS
from reclra_compile.spec.synapses import kind


def verify(plan: Plan, foreign: bool = False) -> Plan:
    """The plan itself where it is sound; raises PlanError (P101–P112) with every fault otherwise.

    `foreign` plans may have rules that are registered elsewhere, and then what these need is taken as stated.
    """
    stated = foreign and not _registered(plan)
    faults = [Fault(c, m) for c, check in CHECKS.items() if not (stated and c == "P104") for m in check(plan)]
    if not faults and not stated:  # what tasks are needed is known only where all names stand for something
        faults = [Fault("P106", message) for message in _tasks(plan)]
    faults += [Fault("P107", message) for message in _order(plan)]
    faults += [Fault("P109", message) for message in lanes.turns(plan)]
    faults += [Fault("P112", message) for message in lanes.numbers(plan)]
    if not faults:  # the rest follows the tasks through the devices
        faults += [Fault("P110", message) for message in lanes.messages(plan)]
        faults += [Fault("P111", message) for message in lanes.waiting(plan)]
        faults += [Fault("P108", message) for message in _memory(plan)]
    if faults:
        raise PlanError(faults)
    return plan


def _registered(plan: Plan) -> bool:
    """True where all rules of the plan are known here."""
    return all(t.rule in TARGETS for t in plan.targets) and all(p.update in UPDATES for p in plan.pathways)


def _names(plan: Plan) -> Iterator[str]:
    """No two things have one name."""
    for what, names in (
        ("region", [r.name for r in plan.regions]),
        ("target", [t.region for t in plan.targets]),
        ("pathway", [p.name for p in plan.pathways]),
        ("input", [name for name, _, _ in plan.inputs]),
        ("value", [v for r in plan.regions for v in r.outputs]),
        ("region in the waves", [n for wave in plan.waves for n in wave]),
    ):
        yield from (f"{what} '{n}' appears {k} times" for n, k in Counter(names).items() if k > 1)


def _references(plan: Plan) -> Iterator[str]:
    """Every name stands for something."""
    regions = {r.name for r in plan.regions}
    made = {v for r in plan.regions for v in r.outputs}
    known = made | {name for name, _, _ in plan.inputs}
    for r in plan.regions:
        yield from (f"region '{r.name}' reads unknown value '{v}'" for v in r.inputs if v not in known)
        if not r.outputs:
            yield f"region '{r.name}' has no output"
    if plan.output not in made:
        yield f"the plan's output '{plan.output}' is made by no region"
    yield from (f"target of unknown region '{t.region}'" for t in plan.targets if t.region not in regions)
    for p in plan.pathways:
        yield from (f"pathway '{p.name}' names unknown region '{n}'" for n in (p.source, p.target) if n not in regions)


def _devices(plan: Plan) -> Iterator[str]:
    """Every region is on one device that exists, and so are its tasks."""
    regions = {r.name for r in plan.regions}
    placed = Counter(n for n, _ in plan.placement.regions)
    yield from (f"region '{n}' is placed {placed[n]} times" for n in sorted(regions) if placed[n] != 1)
    yield from (f"placement of unknown region '{n}'" for n in sorted(set(placed) - regions))
    count = len(plan.devices)
    yield from (f"region '{n}' is on device {d} of {count}" for n, d in plan.placement.regions if not 0 <= d < count)
    yield from (f"task '{t.id}' is on device {t.device} of {count}" for t in plan.tasks if not 0 <= t.device < count)


def _rules(plan: Plan) -> Iterator[str]:
    """Targets and pathways have options that exist and fit together."""
    output = next((r.name for r in plan.regions if plan.output in r.outputs), "")
    by_name = {r.name: r for r in plan.regions}
    for t in plan.targets:
        yield from (f"region '{t.region}' {problem}" for problem in _target(t, output, by_name.get(t.region)))
    yield from _settling(plan, output)
    leaving: dict[str, Pathway] = {}
    for p in plan.pathways:
        yield from (f"pathway '{p.name}' {problem}" for problem in _pathway(p, output))
        source, target = by_name.get(p.source), by_name.get(p.target)
        if p.update == "autoencoding" and source and target and not set(source.inputs) & set(target.outputs):
            yield f"pathway '{p.name}' has update autoencoding, but '{p.source}' does not read '{p.target}'"
        if p.edge and source and target:
            yield from _edge(p, source, target, leaving.setdefault(p.source, p))


def _target(t: Target, output: str, region: Region | None) -> Iterator[str]:
    if t.rule not in TARGETS:
        yield f"has unknown rule '{t.rule}'"
    if t.region == output and t.rule != "gradient":
        yield "is the output: its rule is gradient, as its error comes from the loss"
    if not (_positive(t.beta) and _positive(t.kappa)) or t.p not in (1, 2) or t.q not in (1, 2):
        yield f"has β={t.beta:g}, κ={t.kappa:g}, p={t.p}, q={t.q} out of range"
    if t.phi not in ACTIVATIONS:
        yield f"has unknown target activation '{t.phi}'"
    if t.trainable and region and not region.learns:
        yield "is trainable but has no parameters that learn"


def _pathway(p: Pathway, output: str) -> Iterator[str]:
    if p.kernel not in KERNELS or p.kernel == "auto":
        yield f"has unknown kernel '{p.kernel}'"
    elif not can_have(p.kernel, p.update):
        yield f"has kernel {p.kernel}, which cannot have update '{p.update}'"
    if reads_out(p.update) and p.source != output:
        yield f"has update {p.update}, but comes from '{p.source}', not from the output"
    if (p.kernel == "low_rank") != (p.rank > 0) or p.rank < 0:
        yield f"has kernel {p.kernel} with rank {p.rank}"
    if p.init not in _inits(p.kernel):
        yield f"has kernel {p.kernel}, which cannot have init '{p.init}'"
    if not (math.isfinite(p.scale) and p.scale >= 0 and _positive(p.gamma)):
        yield f"has scale={p.scale:g}, gamma={p.gamma:g} out of range"
    if not (math.isfinite(p.noise) and p.noise >= 0) or (p.update == "weight_mirror" and not p.noise):
        yield f"has update {p.update} with noise={p.noise:g}"
    if p.update == "lra" and not p.growth_limit > 1:
        yield f"has update lra with growth_limit={p.growth_limit:g}, which has to be above 1"


def _settling(plan: Plan, output: str) -> Iterator[str]:
    """All regions settle together, along the model's own edges, or none does."""
    ruled = [t for t in plan.targets if t.rule == RULE]
    if not ruled:
        return
    for t in plan.targets:
        if t.region != output and t.rule != RULE:
            yield f"region '{t.region}' has rule {t.rule}, but others settle to an equilibrium"
    if len(set(map(options, ruled))) > 1:
        yield "regions that settle together have different options"
    yield from (f"pathway '{p.name}' has kernel {p.kernel}, but the regions settle" for p in plan.pathways
                if p.kernel != "adjoint")  # fmt: skip
    if any(t.free_steps < 1 or t.nudged_steps < 1 or not (0 < t.step <= 1 and 0 < t.feedback <= 1) for t in ruled):
        yield "rule equilibrium needs at least one step in each phase, and step and feedback above 0 and at most 1"


def _inits(kernel: str) -> set[str]:
    """Initial distributions that synapses of `kernel` can have; "none" where it has no synapses of its own."""
    if updates_of(kernel) == ("tied",):
        return {"none"}
    return set(INITS) - {"auto"} - (set() if kernel in ("dense", "conv") else {"transpose"})


def _edge(p: Pathway, source: Region, target: Region, first: Pathway) -> Iterator[str]:
    if not set(source.inputs) & set(target.outputs):
        yield f"pathway '{p.name}' has kernel {p.kernel}, but '{p.source}' does not read '{p.target}'"
    if kind(p) != kind(first):
        yield f"pathways '{first.name}' and '{p.name}' leave '{p.source}' along edges with different kernels"


def _positive(x: float) -> bool:
    return math.isfinite(x) and x > 0


def _waves(plan: Plan) -> Iterator[str]:
    """Waves are the generations of the error graph: a DAG rooted at the output region."""
    roots = {r.name for r in plan.regions if plan.output in r.outputs}
    errors: nx.DiGraph[str] = nx.DiGraph()
    errors.add_nodes_from(roots)
    errors.add_edges_from((p.source, p.target) for p in plan.pathways)
    if not nx.is_directed_acyclic_graph(errors):
        cycle = [u for u, *_ in nx.find_cycle(errors)]
        yield "the pathways form a cycle: " + " → ".join([*cycle, cycle[0]])
        return
    generations = [set(g) for g in nx.topological_generations(errors)]
    if [set(w) for w in plan.waves] != generations:
        yield "the waves are not the generations of the error graph"
    if generations and generations[0] != roots:
        yield f"the error graph starts at {_listed(generations[0])}, not at the output region alone"
    targeted = {t.region for t in plan.targets}
    if targeted != set(errors):
        yield f"either a target or a pathway is missing for {_listed(targeted ^ set(errors))}"


def _tasks(plan: Plan) -> Iterator[str]:
    """Tasks do what regions and pathways need: no more, no less, each with its exact reads and writes."""
    tasks = lower(plan.regions, plan.targets, plan.pathways, plan.waves, plan.output)
    needed = {t.id: t for t in placed(tasks, dict(plan.placement.regions), plan.pathways, plan.waves[0][0])}
    present = {t.id: t for t in plan.tasks if t.kind not in "XPR"}
    yield from (f"task '{i}' is missing" for i in needed if i not in present)
    yield from (f"task '{i}' does not belong to this wiring" for i in present if i not in needed)
    for i in (i for i in needed if i in present):
        if (needed[i].reads, needed[i].writes) != (tuple(map(base, present[i].reads)), present[i].writes):
            yield f"task '{i}' reads or writes other values than its region or pathway needs"
        elif needed[i].wave != present[i].wave:
            yield f"task '{i}' is in wave {present[i].wave}, not {needed[i].wave}"
        elif needed[i].device != present[i].device:
            yield f"task '{i}' is on device {present[i].device}, but what it works on is on {needed[i].device}"


def _order(plan: Plan) -> Iterator[str]:
    """Every read finds its value written and not yet freed; nothing is written twice; all is freed."""
    yield from (f"task '{i}' appears {k} times" for i, k in Counter(t.id for t in plan.tasks).items() if k > 1)
    given = {name for name, _, _ in plan.inputs} | {"y"}
    alive, written = set(given), set(given)
    stay = given if len(plan.devices) > 1 else set()  # each device reads them when its turn comes
    for t in plan.tasks:
        yield from _reads(t, alive, written)
        if t.kind == "X":
            yield from (f"task '{t.id}' writes '{v}', but is only to free values" for v in t.writes)
            yield from (f"task '{t.id}' frees '{v}', which outlives the step" for v in t.reads if v.startswith(KEPT))
            alive -= set(t.reads)
        yield from (f"task '{t.id}' writes '{v}' a second time" for v in t.writes if v in written)
        alive |= set(t.writes)
        written |= set(t.writes)
    read = {v for t in plan.tasks for v in t.reads}
    left = sorted(v for v in alive if not v.startswith(KEPT) and (v in read or v not in given) and v not in stay)
    if left:
        yield f"never freed: {', '.join(left)}"


def _reads(t: Task, alive: set[str], written: set[str]) -> Iterator[str]:
    for v in t.reads:
        if v not in written:
            yield f"task '{t.id}' reads '{v}' before it is written"
        elif v not in alive:
            yield f"task '{t.id}' {'frees' if t.kind == 'X' else 'reads'} '{v}' after it was freed"


def _memory(plan: Plan) -> Iterator[str]:
    """What the plan states to live on each device at once is what its lanes need, and fits."""
    stated = plan.placement.peak_bytes
    if not stated:
        return
    if len(stated) != len(plan.devices):
        yield f"the placement states the memory of {len(stated)} devices of {len(plan.devices)}"
        return
    for d, told, needed in zip(plan.devices, stated, peaks(plan), strict=True):
        if told != needed:
            yield f"device '{d.name}' is stated to need {told} bytes, but its tasks need {needed}"
        if d.memory_bytes and needed > d.memory_bytes:
            yield f"device '{d.name}' needs {needed} bytes, but has {d.memory_bytes}"


def _listed(names: set[str]) -> str:
    return ", ".join(f"'{n}'" for n in sorted(names)) or "no region"


CHECKS: dict[str, Callable[[Plan], Iterator[str]]] = {
    "P101": _names,
    "P102": _references,
    "P103": _devices,
    "P104": _rules,
    "P105": _waves,
}
CODES = {
    "P101": "two things of a plan have one name",
    "P102": "a name in the plan stands for nothing",
    "P103": "a region or task is on no device, or on one that does not exist",
    "P104": "a target or pathway of the plan has options that do not exist or do not fit together",
    "P105": "the plan's waves are not the generations of its error graph",
    "P106": "the plan's tasks are not those that its regions and pathways need",
    "P107": "the plan's order reads a value that is not there, or never frees one",
    "P108": "the memory that the plan states is not what its lanes need, or is more than a device has",
}
