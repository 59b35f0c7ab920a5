"""A plan linked to the model that it is attached to: what runs, and on which parameters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import nn

from reclra_compile.compiler import planned
from reclra_compile.errors import Fault, UserError
from reclra_compile.frontend.outputs import ALL
from reclra_compile.integrate.borrow import Borrowed
from reclra_compile.integrate.program import AttachedProgram
from reclra_compile.integrate.reader import LossFunctions
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.planning import Unreached, WiringSource
from reclra_compile.rules.catalogue import UPDATES
from reclra_compile.runtime.halves import Halves
from reclra_compile.runtime.link import link
from reclra_compile.schedule.settling import settles


@dataclass(frozen=True)
class Settings:
    """The arguments of `attach` that linking needs again."""

    loss_fn: LossFunctions
    reduction: str | None
    seed: int
    output: str | int | None


class LinkedModel:
    """A plan linked to one model. Raises what `compile` does, and UserError (A003) for a plan that no loop can run."""

    def __init__(
        self, model: nn.Module, example_inputs: Any, settings: Settings, plan: Plan | None,
        wiring: WiringSource | None = None, granularity: str | None = None, unreached: Unreached = "refuse",
        synapses: nn.Module | None = None,
    ) -> None:  # fmt: skip
        output = ALL if settings.output is None else settings.output
        loss_fn = settings.loss_fn if callable(settings.loss_fn) else F.cross_entropy
        self.borrowed = Borrowed(model)
        with self.borrowed.lent():
            made, ground, cuts = planned(
                model, example_inputs, wiring, plan, granularity, output, unreached, Machine()
            )
            _check(made)
            linked, holder = link(made, ground.traced, cuts, loss_fn, settings.seed, settings.reduction)
            inputs = {name for name, _, _ in made.inputs}
            inner = {p for r in made.regions if not set(r.inputs) <= inputs for p in r.parameters}
            weights = [p for name, p in model.named_parameters() if name in inner]
        self.synapses = copy.deepcopy(holder) if synapses is None else synapses
        self.borrowed.pair(self.synapses, holder)
        regions = (m for modules in linked.modules.values() for m in modules)
        self.borrowed.follow(model, regions, ground.traced.modules)
        self.program = AttachedProgram(made, model, linked, self.synapses, self.borrowed, output)
        self.halves = Halves(self.program)
        self.any_batch = ground.traced.route == "torch.fx"
        #: the parameters, by identity of their aliases, that plain backpropagation would read in its backward pass
        self.deep = frozenset(id(p) for p in (*weights, *holder.parameters()) if p.ndim > 1)


def _check(plan: Plan) -> None:
    """Raise UserError (A003) for a plan that cannot stop between its forward pass and the rest."""
    instead = "compile it with rc.compile and let the loop call program.step(x, y)"
    if settles(plan.targets):
        raise UserError(Fault("A003", f"the states of '{plan.name}' settle with the labels in view", fix=instead))
    if len(plan.devices) > 1 or plan.schedule.microbatches > 1 or plan.schedule.staleness:
        what = "several devices, microbatches or stale weights"
        raise UserError(Fault("A003", f"the plan is for {what}: one forward pass cannot run it", fix=instead))
    for p in plan.pathways:
        if "y" in UPDATES[p.update].reads:
            message = f"the synapse update '{p.update}' reads labels, which the loop does not hand over"
            raise UserError(Fault("A003", message, fix=instead))
