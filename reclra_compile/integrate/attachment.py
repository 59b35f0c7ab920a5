"""What hangs on an attached model: its program, its synapses, and how the loop's gradient is read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.compiler import planned
from reclra_compile.errors import Fault, PlanError, TrainingError
from reclra_compile.frontend.example import Example, example_of, with_batch
from reclra_compile.integrate.backward import Pass
from reclra_compile.integrate.borrow import Borrowed
from reclra_compile.integrate.classes import plain
from reclra_compile.integrate.factor import cross_entropy
from reclra_compile.integrate.inputs import Inputs
from reclra_compile.integrate.program import AttachedProgram
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.planning import Unreached, WiringSource
from reclra_compile.runtime.halves import Halves
from reclra_compile.runtime.link import link
from reclra_compile.runtime.loss import LossFunction

LossScale = float | Callable[[], float] | None


@dataclass(frozen=True)
class Settings:
    """The arguments of `attach` that linking needs again."""

    loss_fn: LossFunction
    reduction: str | None
    seed: int
    output: str | int | None


class _Linked:
    """A plan linked to one model: made when it is first needed."""

    def __init__(
        self, model: nn.Module, example: Any, settings: Settings, plan: Plan | None, wiring: WiringSource | None,
        granularity: str | None, unreached: Unreached, synapses: nn.Module | None,
    ) -> None:  # fmt: skip
        borrowed = Borrowed(model)
        with borrowed.lent():
            made, ground, cuts = planned(
                model, example, wiring, plan, granularity, settings.output, unreached, Machine()
            )
            linked, holder = link(made, ground.traced, cuts, settings.loss_fn, settings.seed, settings.reduction)
        self.synapses = copy.deepcopy(holder) if synapses is None else synapses
        borrowed.pair(self.synapses, holder)
        self.program = AttachedProgram(made, model, linked, self.synapses, borrowed, settings.output)
        self.halves, self.borrowed = Halves(self.program), borrowed
        self.any_batch = ground.traced.route == "torch.fx"
        inputs = {name for name, _, _ in made.inputs}
        inner = {p for r in made.regions if not set(r.inputs) <= inputs for p in r.parameters}
        with borrowed.lent():
            weights = [p for name, p in model.named_parameters() if name in inner]
        self.deep = frozenset(id(p) for p in (*weights, *holder.parameters()) if p.ndim > 1)


class Attachment:
    """`model.reclra`: the program that runs in an attached model, and the settings that a loop may change.

    `loss_scale`: what the loop multiplies the loss with, a number or a function without arguments; None: found out.
    `save_synapses`: whether `model.state_dict()` has the synapses.
    """

    def __init__(
        self, model: nn.Module, example: Example, settings: Settings, plan: Plan, synapses: nn.Module,
        loss_scale: LossScale = None, save_synapses: bool = False,
    ) -> None:  # fmt: skip
        self._model, self._example, self._settings = model, example, settings
        self.plan, self.synapses = plan, synapses
        self.loss_scale, self.save_synapses = loss_scale, save_synapses
        self._inputs = Inputs(type(model).forward.__get__(model), example)
        self._made: _Linked | None = None

    @classmethod
    def new(
        cls, model: nn.Module, example_inputs: Any, settings: Settings, plan: Plan | None, wiring: WiringSource | None,
        granularity: str | None, unreached: Unreached, loss_scale: LossScale, save_synapses: bool,
    ) -> Attachment:  # fmt: skip
        """For a model that has its own class yet."""
        made = _Linked(model, example_inputs, settings, plan, wiring, granularity, unreached, None)
        example = example_of(model, example_inputs)
        example = with_batch(example, 2) if made.any_batch and len(example.tensors[0]) > 2 else example
        self = cls(model, example, settings, made.program.plan, made.synapses, loss_scale, save_synapses)
        self._made = made
        return self

    @property
    def _linked(self) -> _Linked:
        if self._made is None:  # a copy links itself when it is first trained
            example = self._example
            given = example.named if example.named else example.args
            with plain(self._model):
                self._made = _Linked(
                    self._model, given, self._settings, self.plan, None, None, "refuse", self.synapses
                )
        return self._made

    @property
    def program(self) -> AttachedProgram:
        """The program; `program.step(x, y)` works too."""
        return self._linked.program

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the model's forward() returns, with a graph that ends in the schedule."""
        made = self._linked
        return Pass(made.halves, made.borrowed, self._undone, made.deep).run(self._inputs.of(args, kwargs))

    def _undone(self, output: Tensor, gradient: Tensor) -> tuple[float, float, Any]:
        fit = cross_entropy(output, gradient)
        f, y = fit.factors, fit.labels

        def loss(r: Tensor) -> Tensor:
            return (torch.log_softmax(r, 1) * y.to(r.dtype) * f.to(r.dtype)[:, None]).sum().neg()

        factor = float(f.mean())
        return factor, factor * len(output), loss

    def state_dict(self) -> dict[str, Any]:
        """The synapses' state and the plan's fingerprint, as `Program.state_dict`."""
        return {"fingerprint": self.plan.fingerprint, "synapses": self.synapses.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the synapses; raises PlanError (P011) for another model's or wiring's state."""
        if state.get("fingerprint") != self.plan.fingerprint:
            raise PlanError(Fault("P011", "these synapses belong to another model", fix="load the matching checkpoint"))
        try:
            self.synapses.load_state_dict(state["synapses"])
        except RuntimeError as error:
            raise PlanError(Fault("P011", f"these synapses belong to another wiring: {error}")) from error

    def load_synapses(self, held: Mapping[str, Any], faults: list[str]) -> None:
        """Load synapses that a model's checkpoint has; what does not fit is added to `faults`, as torch does."""
        try:
            self.synapses.load_state_dict(dict(held))
        except RuntimeError as error:
            faults.append(str(error))

    def refuse_replicas(self) -> None:
        """Raise TrainingError (A007): threads that share one set of regions would mix up their values."""
        raise TrainingError(
            Fault("A007", "DataParallel copies an attached model to each device in every step",
                  fix="use torch.nn.parallel.DistributedDataParallel")
        )  # fmt: skip

    def copied(self, model: nn.Module, memo: dict[int, Any]) -> Attachment:
        """The same for a copy of the model, with synapses of its own."""
        synapses = copy.deepcopy(self.synapses, memo)
        scale = self.loss_scale
        return Attachment(model, self._example, self._settings, self.plan, synapses, scale, self.save_synapses)

    def saved(self) -> Saved:
        """All of it but the model, to be pickled."""
        return Saved(self._example, self._settings, str(self.plan), self.synapses, self.loss_scale, self.save_synapses)

    def __repr__(self) -> str:
        return f"Attachment({self.plan.model} × {self.plan.name})"


@dataclass(frozen=True)
class Saved:
    """What is pickled with an attached model, besides the model itself."""

    example: Example
    settings: Settings
    plan: str
    synapses: nn.Module
    loss_scale: LossScale
    save_synapses: bool

    def onto(self, model: nn.Module) -> Attachment:
        """What was attached, for the model that was read."""
        plan = Plan.parse(self.plan)
        return Attachment(
            model, self.example, self.settings, plan, self.synapses, self.loss_scale, self.save_synapses
        )
