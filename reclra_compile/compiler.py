"""The whole compile flow, straight down: model and wiring in, plan and program out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.errors import Fault, PlanError
from reclra_compile.frontend.measure import measure, value_names
from reclra_compile.frontend.partition import Cut, partition
from reclra_compile.frontend.trace import Traced, trace
from reclra_compile.ir import Placement, Plan, Region
from reclra_compile.placement.cost import predict
from reclra_compile.runtime.feasible import check_feasible
from reclra_compile.runtime.link import link
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.program import Program
from reclra_compile.schedule.lower import lower
from reclra_compile.schedule.order import frees, order
from reclra_compile.spec.advice import warnings_for
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.load import load_wiring
from reclra_compile.spec.resolve import resolve
from reclra_compile.spec.schema import Wiring
from reclra_compile.verify import verify

WiringSource = str | os.PathLike[str] | Mapping[str, object] | Wiring


def compile(
    model: nn.Module,
    example_inputs: Tensor | tuple[Any, ...],
    wiring: WiringSource | None = None,
    *,
    plan: Plan | None = None,
    loss_fn: LossFunction = F.cross_entropy,
    reduction: str | None = None,
    seed: int = 0,
) -> Program:
    """Compile `model` with `wiring` (a shipped name, a path, a dict or a Wiring; default "depth2").

    `example_inputs`: a tensor or a tuple of positional inputs, batch first. `loss_fn(output, target)`
    gives a scalar that is a mean or a sum over the batch (found out on the first step, or said by
    `reduction`). `seed` draws the error synapses; torch's own random state is not touched. With `plan`,
    that plan is checked against the model and run instead of a wiring.
    Raises ModelError, WiringError or PlanError.
    """
    if plan is not None and wiring is not None:
        raise PlanError(Fault("P012", "give a wiring or a plan, not both"))
    traced = trace(model, example_inputs)
    cuts = partition(traced)
    regions = measure(traced, cuts)
    if plan is None:
        plan = make_plan(traced, cuts, regions, "depth2" if wiring is None else wiring)
    else:
        check_plan(plan, regions)
        check_feasible(plan, traced, cuts)
    linked, synapses = link(plan, traced, cuts, loss_fn, seed, reduction)
    return Program(plan, model, linked, synapses)


def plan_for(model: nn.Module, example_inputs: Tensor | tuple[Any, ...], wiring: WiringSource = "depth2") -> Plan:
    """The plan alone: nothing is linked and no synapse is allocated."""
    traced = trace(model, example_inputs)
    cuts = partition(traced)
    return make_plan(traced, cuts, measure(traced, cuts), wiring)


def make_plan(traced: Traced, cuts: tuple[Cut, ...], regions: tuple[Region, ...], wiring: WiringSource) -> Plan:
    """load ▸ resolve ▸ lower ▸ order ▸ frees ▸ verify ▸ check against the layers."""
    batch = len(traced.inputs[0])
    output = value_names(traced, cuts)[next(n for n in traced.graph.nodes if n.op == "output").args[0]]
    loaded = load_wiring(wiring)
    resolved = resolve(loaded, RegionGraph(regions, output), batch)
    tasks = lower(regions, resolved.targets, resolved.pathways, resolved.waves, output)
    tasks = order(tasks)
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
        targets=resolved.targets,
        pathways=resolved.pathways,
        waves=resolved.waves,
        tasks=tasks,
        placement=Placement(regions=tuple((r.name, 0) for r in regions)),
        cost=predict(regions, resolved.targets, resolved.pathways, tasks),
        training=resolved.training,
        warnings=warnings_for(resolved, regions),
    )
    verify(plan)
    check_feasible(plan, traced, cuts)
    return plan


def check_plan(plan: Plan, regions: tuple[Region, ...]) -> None:
    """Raise PlanError where `plan` is unsound (P1xx) or belongs to a model of another structure (P010)."""
    verify(plan)
    model = fingerprint(regions)
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


def fingerprint(regions: tuple[Region, ...]) -> str:
    """Twelve hex digits that identify a model's structure: regions, edges, shapes and parameters."""
    facts = [(r.name, r.op, r.phi, r.inputs, r.outputs, r.shape, r.parameters, r.parameter_count) for r in regions]
    return "m" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
