"""The whole compile flow, straight down: model and wiring in, plan and program out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.auto.settings import asked_of
from reclra_compile.distributed.evaluation import in_eval_mode
from reclra_compile.distributed.network import Network
from reclra_compile.distributed.place import place
from reclra_compile.distributed.recording import Recording
from reclra_compile.distributed.threads import ThreadedProgram
from reclra_compile.errors import Fault, PlanError
from reclra_compile.frontend.cut import Cut, Ground, survey
from reclra_compile.frontend.measure import measure
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.trace import trace
from reclra_compile.ir import Plan, Region
from reclra_compile.machine import Devices, Machine
from reclra_compile.planning import Unreached, WiringSource, check_plan, designed, divided, make_plan
from reclra_compile.runtime.link import link
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.program import Program
from reclra_compile.spec.divide import Part, with_granularity
from reclra_compile.spec.load import load_wiring

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]


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
    plan, ground, cuts = planned(model, example_inputs, wiring, plan, granularity, output, unreached, machine)
    if mesh is not None:
        evaluating = in_eval_mode(model, example_inputs, output, plan, ground.traced, cuts)
        return place(plan, ground.traced, cuts, loss_fn, seed, reduction, output, mesh, record, evaluating)
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
    plan, ground, cuts = planned(model, example_inputs, wiring, plan, granularity, output, unreached, machine)
    made, evaluating = plan, in_eval_mode(model, example_inputs, output, plan, ground.traced, cuts)
    return ThreadedProgram(
        made, model, [torch.device(d) for d in on],
        lambda mesh: place(made, ground.traced, cuts, loss_fn, seed, reduction, output, mesh, None, evaluating),
    )  # fmt: skip


def planned(
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
