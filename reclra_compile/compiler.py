"""The whole compile flow, straight down: model and wiring in, plan and program out."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.arrange import arrange
from reclra_compile.auto.design import Designed, Model, design
from reclra_compile.auto.settings import asked_of
from reclra_compile.cost.lookup import priced
from reclra_compile.distributed.network import Network
from reclra_compile.distributed.place import place
from reclra_compile.distributed.recording import Recording
from reclra_compile.distributed.threads import ThreadedProgram
from reclra_compile.errors import Fault, PlanError, WiringError
from reclra_compile.frontend.cut import Cut, Ground, joined, survey
from reclra_compile.frontend.measure import measure, value_names
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.trace import trace
from reclra_compile.ir import Placement, Plan, Region, Target
from reclra_compile.machine import Devices, Machine
from reclra_compile.placement.cost import predict
from reclra_compile.placement.recompute import recomputed
from reclra_compile.runtime.feasible import check_feasible
from reclra_compile.runtime.link import link
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.program import Program
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

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
Unreached = Literal["refuse", "freeze", "backprop"]
WiringSource = str | os.PathLike[str] | Mapping[str, object] | Wiring | Loaded


def compile(
    model: nn.Module,
    example_inputs: ExampleInputs,
    wiring: WiringSource | None = None,
    *,
    plan: Plan | None = None,
    loss_fn: LossFunction = F.cross_entropy,
    reduction: str | None = None,
    seed: int = 0,
    granularity: str | None = None,
    output: str | int | None = None,
    unreached: Unreached = "refuse",
    devices: Devices | Machine | None = None,
    microbatches: int | None = None,
    staleness: int | None = None,
    placement: Mapping[str, str | int] | None = None,
    mesh: Network | None = None,
    record: Recording | None = None,
) -> Program:
    """Compile `model` with `wiring` (a shipped name, a path, a dict or a Wiring; default "depth2").

    `example_inputs`: a tensor, a tuple of positional inputs or a dict of named ones, batch first.
    `loss_fn(output, target)` gives a scalar that is a mean or a sum over the batch (found out on the first
    step, or said by `reduction`). `seed` draws the error synapses; torch's own random state is not touched.
    `granularity` ("layer", "block", "groups=K") replaces that of the wiring; `output` chooses one output of a
    model that has several, by name or position. `unreached`: regions that no error reaches are an error
    ("refuse"), do not learn ("freeze"), or learn by exact backpropagation ("backprop"). `devices` (a number,
    "h100:4", Devices, or a Machine), `microbatches` (parts of a batch), `staleness` (1: gradients at the weights before
    the last update) and `placement` (device of the regions that a glob matches) replace what the wiring says; all
    devices are run in this process, one after the other. With `plan`, that plan is checked against the model and run
    instead of a wiring. With `mesh`, as `rc.connect` gives it, the result is the RankProgram of this rank: it runs the
    part of the plan that is its stage's, and the model keeps that part's parameters alone; a model on the meta device
    gets that part drawn by `seed` and names, as `record` says where its constructor draws. Raises ModelError,
    WiringError, PlacementError, PlanError or RankError.
    """
    machine = _machine(devices, microbatches, staleness, placement)
    plan, ground, cuts = _planned(model, example_inputs, wiring, plan, granularity, output, unreached, machine)
    if mesh is not None:
        return place(plan, ground.traced, cuts, loss_fn, seed, reduction, output, mesh, record)
    linked, synapses = link(plan, ground.traced, cuts, loss_fn, seed, reduction)
    return Program(plan, model, linked, synapses, output)


def threaded(
    model: nn.Module,
    example_inputs: ExampleInputs,
    wiring: WiringSource | None = None,
    *,
    on: Sequence[torch.device | str],
    plan: Plan | None = None,
    loss_fn: LossFunction = F.cross_entropy,
    reduction: str | None = None,
    seed: int = 0,
    granularity: str | None = None,
    output: str | int | None = None,
    unreached: Unreached = "refuse",
    devices: Devices | Machine | None = None,
    microbatches: int | None = None,
    staleness: int | None = None,
    placement: Mapping[str, str | int] | None = None,
) -> ThreadedProgram:
    """As `compile`, for several torch devices of this process: `on` names one for each device of the plan.

    Each is run by a thread of its own; the model's parameters move to the devices of their regions. `devices` describes
    them to the planner, as many as `on` names by default. Raises what `compile` does, RankError (R102) where there are
    more or fewer.
    """
    number = devices if devices is not None or plan is not None else len(on)
    machine = _machine(number, microbatches, staleness, placement)
    plan, ground, cuts = _planned(model, example_inputs, wiring, plan, granularity, output, unreached, machine)
    made = plan
    return ThreadedProgram(
        made, model, [torch.device(d) for d in on],
        lambda mesh: place(made, ground.traced, cuts, loss_fn, seed, reduction, output, mesh),
    )  # fmt: skip


def _planned(
    model: nn.Module, example_inputs: ExampleInputs, wiring: WiringSource | None, plan: Plan | None,
    granularity: str | None, output: str | int | None, unreached: Unreached, machine: Machine,
) -> tuple[Plan, Ground, tuple[Cut, ...]]:  # fmt: skip
    """The plan of a wiring, or `plan` itself once it is checked, with the model's graph and the regions in it."""
    if plan is not None and (wiring is not None or granularity is not None or machine.asked):
        raise PlanError(Fault("P012", "give a wiring, with devices and microbatches, or a plan, not both"))
    ground = survey(trace(model, example_inputs, output))
    found = layers(ground)
    if plan is not None:
        return plan, ground, check_plan(plan, ground, found)
    made, cuts = make_plan(ground, found, "depth2" if wiring is None else wiring, granularity, unreached, machine)
    return made, ground, cuts


def _machine(
    devices: Devices | Machine | None, microbatches: int | None, staleness: int | None,
    placement: Mapping[str, str | int] | None,
) -> Machine:  # fmt: skip
    """The machine that the arguments of `compile` ask for: `devices` may be a whole one, which the others change."""
    machine = devices if isinstance(devices, Machine) else Machine(devices)
    given: dict[str, Any] = {"microbatches": microbatches, "staleness": staleness, "pins": placement}
    return replace(machine, **{name: value for name, value in given.items() if value is not None})


def plan_for(
    model: nn.Module,
    example_inputs: ExampleInputs,
    wiring: WiringSource = "depth2",
    *,
    granularity: str | None = None,
    output: str | int | None = None,
    unreached: Unreached = "refuse",
    machine: Machine | None = None,
) -> Plan:
    """The plan alone: nothing is linked, no synapse is allocated, and a model on the meta device stays there."""
    ground = survey(trace(model, example_inputs, output))
    return make_plan(ground, layers(ground), wiring, granularity, unreached, machine)[0]


def regions_for(
    model: nn.Module,
    example_inputs: ExampleInputs,
    wiring: WiringSource = "backprop",
    *,
    granularity: str | None = None,
    output: str | int | None = None,
) -> tuple[tuple[Part, ...], tuple[Region, ...], tuple[Region, ...]]:
    """The regions a wiring (or `granularity`) makes of a model: as a tree, measured, and the layers they consist of."""
    ground = survey(trace(model, example_inputs, output))
    found = layers(ground)
    measured = measure(ground.traced, found)
    loaded = with_granularity(load_wiring(wiring), granularity)
    if asked_of(loaded):
        loaded = designed(ground, found, loaded, Machine()).loaded
    parts, _, regions = divided(ground, found, measured, loaded)
    return parts, regions, measured


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
    wanted = [(r.name, r.layers or (r.name,)) for r in plan.regions]
    cuts = found
    if Counter(n for _, names in wanted for n in names) == Counter(c.name for c in found):
        cuts = joined(ground, found, wanted)
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


def fingerprint(regions: tuple[Region, ...]) -> str:
    """Twelve hex digits that identify a model's structure: regions, edges, shapes and parameters."""
    facts = [
        (r.name, r.layers, r.op, r.phi, r.inputs, r.outputs, r.shape, r.parameters, r.parameter_count) for r in regions
    ]
    return "m" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
