"""From a traced model and a wiring to a plan, straight down."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import nn

from reclra_compile.arrange import arrange
from reclra_compile.auto.design import Designed, Model, design
from reclra_compile.auto.settings import asked_of
from reclra_compile.cost.lookup import priced
from reclra_compile.errors import Fault, PlanError, WiringError
from reclra_compile.frontend.cut import Cut, Ground, joined
from reclra_compile.frontend.measure import measure, value_names
from reclra_compile.ir import Placement, Plan, Region, Target
from reclra_compile.machine import Machine
from reclra_compile.placement.cost import predict
from reclra_compile.placement.recompute import recomputed
from reclra_compile.runtime.feasible import check_feasible
from reclra_compile.schedule.lower import lower
from reclra_compile.schedule.order import frees, order
from reclra_compile.schedule.values import with_traffic
from reclra_compile.spec.advice import idle_warning, warnings_for
from reclra_compile.spec.divide import Part, divide, with_granularity, with_unreached
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.load import Loaded, load_wiring
from reclra_compile.spec.nest import resolve_nested
from reclra_compile.spec.schema import MemorySpec, Wiring
from reclra_compile.spec.select import select
from reclra_compile.verify import verify

Unreached = Literal["refuse", "freeze", "backprop"]
WiringSource = str | os.PathLike[str] | Mapping[str, object] | Wiring | Loaded


def make_plan(
    ground: Ground,
    found: tuple[Cut, ...],
    wiring: WiringSource,
    granularity: str | None = None,
    unreached: Unreached = "refuse",
    machine: Machine | None = None,
) -> tuple[Plan, tuple[Cut, ...]]:
    """load ▸ divide ▸ measure ▸ resolve ▸ lower ▸ order ▸ arrange ▸ verify ▸ check; the plan and its regions' nodes."""
    traced, batch = ground.traced, len(ground.traced.inputs[0])
    loaded = with_granularity(load_wiring(wiring), granularity)
    if asked_of(loaded):
        made = designed(ground, found, loaded, machine or Machine())
        loaded, machine = made.loaded, made.machine
    loaded = with_unreached(loaded, unreached)
    parts, cuts, regions = divided(ground, found, measure(traced, found), loaded)
    output = value_names(traced, cuts)[ground.output]
    resolved = resolve_nested(loaded, parts, {r.name: r for r in regions}, output, batch)
    idle = idle_parameters(traced.model, regions)
    targets = keep_within(resolved.targets, loaded, RegionGraph(regions, output))
    tasks = lower(regions, targets, resolved.pathways, resolved.waves, output)
    tasks = with_traffic(order(tasks), regions, targets, resolved.pathways)
    tasks = frees(tasks)
    plan = Plan(
        name=loaded.wiring.name,
        model=type(traced.model).__name__,
        fingerprint=fingerprint(regions),
        batch=batch,
        inputs=tuple(
            (f"x{i}", tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")) for i, x in enumerate(traced.inputs)
        ),
        output=output,
        regions=regions,
        targets=targets,
        pathways=resolved.pathways,
        waves=resolved.waves,
        tasks=tasks,
        placement=Placement(regions=tuple((r.name, 0) for r in regions)),
        cost=predict(regions, targets, resolved.pathways, tasks),
        training=resolved.training,
        warnings=(*warnings_for(resolved, regions), *idle_warning(idle)),
        idle=idle,
    )
    machine = (machine or Machine()).over(loaded)
    if machine.asked:
        plan, on, time = priced(plan, machine, precision(traced.model))
        plan = arrange(plan, on, machine, time)  # verified there
    else:
        verify(plan)
    check_feasible(plan, traced, cuts)
    return plan, cuts


def designed(ground: Ground, found: tuple[Cut, ...], loaded: Loaded, machine: Machine) -> Designed:
    """The wiring that section `auto` of `loaded` asks for; raises WiringError or PlacementError."""
    measured = measure(ground.traced, found)
    output = next(c.name for c in found if ground.output in c.nodes)
    model = Model(measured, output, len(ground.traced.inputs[0]), precision(ground.traced.model))

    def regions_of(wiring: Loaded) -> tuple[tuple[Part, ...], tuple[Region, ...]]:
        parts, _, regions = divided(ground, found, measured, wiring)
        return parts, regions

    return design(loaded, model, regions_of, machine)


def precision(model: nn.Module) -> str:
    """The precision that most of a model's parameters have, such as "bfloat16"; float32 where it has none."""
    sizes = Counter({"float32": 0})
    for p in model.parameters():
        if p.is_floating_point():
            sizes[str(p.dtype).removeprefix("torch.")] += p.numel()
    return sizes.most_common(1)[0][0]


def keep_within(targets: tuple[Target, ...], loaded: Loaded, graph: RegionGraph) -> tuple[Target, ...]:
    """`targets` with `recompute` set as the wiring's `memory:` asks."""
    wiring = loaded.wiring
    if not isinstance(wiring, Wiring) or wiring.memory == MemorySpec():
        return targets
    chosen: list[str] = []
    if wiring.memory.recompute is not None:
        selected = select(wiring.memory.recompute, graph, graph.regions)
        if selected.problems:
            where = loaded.where("memory", "recompute")
            raise WiringError(Fault(p.code, p.message, where, p.fix) for p in selected.problems)
        chosen = selected.regions
    return recomputed(tuple(graph.regions.values()), targets, chosen, wiring.memory.activations or 0)


def idle_parameters(model: nn.Module, regions: tuple[Region, ...]) -> tuple[str, ...]:
    """Parameters in no region: the output does not depend on them."""
    used = {name for r in regions for name in r.parameters}
    return tuple(name for name, p in model.named_parameters() if name not in used and p.requires_grad)


def divided(
    ground: Ground, found: tuple[Cut, ...], regions: tuple[Region, ...], loaded: Loaded
) -> tuple[tuple[Part, ...], tuple[Cut, ...], tuple[Region, ...]]:
    """The regions a wiring makes of the layers `found` (measured: `regions`): as a tree, as nodes, measured."""
    last = next(c.name for c in found if ground.output in c.nodes)
    parts = divide(regions, last, loaded)
    finals = [final for part in parts for final in part.regions()]
    if any(part.layers != (part.name,) for part, _ in finals):
        found = joined(ground, found, [(part.name, part.layers) for part, _ in finals])
        regions = measure(ground.traced, found)
    within = {part.name: around for part, around in finals}
    return parts, found, tuple(replace(r, within=within[r.name]) for r in regions)


def check_plan(plan: Plan, ground: Ground, found: tuple[Cut, ...]) -> tuple[Cut, ...]:
    """The regions of `plan` in the model; raises PlanError for an unsound plan (P1xx) or another model's (P010)."""
    verify(plan)
    cuts = regions_of(plan, ground, found)
    model = fingerprint(measure(ground.traced, cuts))
    if not plan.fingerprint == fingerprint(plan.regions) == model:
        edited = "; its regions were edited since" if plan.fingerprint == model else ""
        raise PlanError(
            Fault(
                "P010",
                f"the plan was made for another model: its fingerprint is {plan.fingerprint}, the model's is {model}"
                f"{edited}",
                fix="compile the model again, or load the model the plan was made for",
            )
        )
    check_feasible(plan, ground.traced, cuts)
    return cuts


def regions_of(plan: Plan, ground: Ground, found: tuple[Cut, ...]) -> tuple[Cut, ...]:
    """The regions of `plan` as nodes of a graph whose layers are `found`; the layers where these are others."""
    wanted = [(r.name, r.layers or (r.name,)) for r in plan.regions]
    if Counter(n for _, names in wanted for n in names) == Counter(c.name for c in found):
        return joined(ground, found, wanted)
    return found


def fingerprint(regions: tuple[Region, ...]) -> str:
    """Twelve hex digits that identify a model's structure: regions, edges, shapes and parameters."""
    facts = [
        (r.name, r.layers, r.op, r.phi, r.inputs, r.outputs, r.shape, r.parameters, r.parameter_count) for r in regions
    ]
    return "m" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
