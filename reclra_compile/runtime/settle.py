"""Equilibrium propagation (E13): states settle freely, then nudged by ±β, and weights learn from the contrast.

With the function Φ(s) = Σ_i γ^ℓ(i) ⟨s_i, f_i(s)⟩ of all states, ℓ(i) being the number of states below i, a step is
s_i ← (1 − η) s_i + η φ(γ^−ℓ(i) ∂Φ/∂s_i): each region hears what it computes from below and, through the transpose of
the same weights, γ times the states above it. Nudging subtracts ±β γ^ℓ(L) times the loss from Φ.
ΔW = −(∂Φ/∂W at s⁺ − ∂Φ/∂W at s⁻) ÷ 2β γ^ℓ(L); the output L reads the states and has none.

B. Scellier and Y. Bengio, "Equilibrium propagation", Frontiers in Computational Neuroscience 11, 2017; in the form
of M. Ernoult et al., NeurIPS 2019, and nudged from both sides as by A. Laborieux et al., Frontiers in Neuroscience
15, 2021. γ = 1 is theirs; weaker feedback, which deep networks need to settle on what they are shown, is that of
X. Xie and H. S. Seung, Neural Computation 15, 2003.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reclra_compile.ir import Region, Task
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.randomness import is_random, seeded
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Errors, Slots, StepState, buffers_aside
from reclra_compile.schedule.lower import activity
from reclra_compile.schedule.settling import RULE, inputs_of, levels_of, moving, states

Values = dict[str, Any]
States = Mapping[str, Tensor]


class Nudged(NamedTuple):
    """What belongs to nudging towards the labels and away from them: a state (N, …), or all values."""

    towards: Any
    away: Any


class Network:
    """The regions of a plan as one function Φ of their states; states are float32 where the model is not float64."""

    def __init__(self, linked: Linked) -> None:
        plan = linked.plan
        self.linked, self.regions = linked, plan.regions
        self.states = states(plan.regions, plan.targets)
        self.root = linked.regions[linked.root]
        self.inputs = inputs_of(plan.regions)
        self.moving = moving(plan.regions, plan.targets)
        ruled = next(t for t in plan.targets if t.rule == RULE)  # all have the same options
        self.beta, self.step, self.steps = ruled.beta, ruled.step, (ruled.free_steps, ruled.nudged_steps)
        self.modules = tuple(m for ms in linked.modules.values() for m in ms)
        self.names = {r.name for r in self.states}
        self.position = self.root.outputs.index(plan.output)
        levels = levels_of(plan.regions, plan.targets)
        self.weight = {r.name: ruled.feedback ** levels[r.name] for r in plan.regions}  #: γ^ℓ
        self.random = {r.name: is_random(linked.modules[r.name]) for r in plan.regions}
        self.number = {r.name: k for k, r in enumerate(plan.regions)}

    def code(self, region: Region) -> SplitRegion:
        """The code of a region that has a state."""
        code = self.linked.codes[region.name]
        assert isinstance(code, SplitRegion)
        return code

    def _as_in_this_step(self, region: Region, state: StepState) -> contextlib.AbstractContextManager[Any]:
        """One dropout mask for all phases of a step, whichever order regions are computed in."""
        if not self.random[region.name]:
            return contextlib.nullcontext()
        return seeded(state.seed + self.number[region.name])

    def settle(
        self, state: StepState, given: Values, start: States, steps: int, nudge: float, y: Any, counted: bool = False
    ) -> dict[str, Tensor]:
        """The states after `steps` steps from `start`; `nudge` is β times the factor that makes the loss a sum.

        Batch statistics are written where `counted`: once, in the last step.
        """
        with contextlib.nullcontext() if counted else buffers_aside(self.modules):
            still = self._still(state, given)
        now = {name: s if s.dtype == torch.float64 else s.float() for name, s in start.items()}
        for k in range(steps):
            live = counted and k == steps - 1
            with contextlib.nullcontext() if live else buffers_aside(self.modules):
                slopes = self._slopes(state, given, still, now, nudge, y)
            for region in self.states:
                phi = self.code(region).phi
                aimed = slopes[region.name] if phi is None else phi(slopes[region.name])
                now[region.name] = torch.lerp(now[region.name], aimed, self.step)
        return now

    def _still(self, state: StepState, given: Values) -> Values:
        """Pre-activations of states, and outputs of other regions, that read no state: computed once a phase."""
        values, found = dict(given), {}
        with torch.no_grad(), state.as_forward():
            for region in self.regions:
                if region.name in self.moving or region is self.root or any(v not in values for v in region.inputs):
                    continue
                inputs = [values[v] for v in region.inputs]
                with self._as_in_this_step(region, state):
                    if region.name in self.names:
                        code = self.code(region)
                        found[region.name] = code.run(*(inputs[k] for k in code.run_inputs))
                    else:
                        found[region.name] = self._outputs(region, inputs)
                        values.update(zip(region.outputs, found[region.name], strict=True))
        return found

    def _outputs(self, region: Region, inputs: list[Any]) -> tuple[Any, ...]:
        """Outputs of a region without a state."""
        code = self.linked.codes[region.name]
        if isinstance(code, SplitRegion):
            return code.outputs_from(code.activities(inputs), inputs)
        result = code.run(*(inputs[k] for k in code.run_inputs))
        return result if isinstance(result, tuple) else (result,)

    def _slopes(
        self, state: StepState, given: Values, still: Values, now: States, nudge: float, y: Any
    ) -> dict[str, Tensor]:
        """γ^−ℓ ∂Φ/∂s for every state."""
        leaves = {name: s.detach().requires_grad_(True) for name, s in now.items()}
        phi: list[Tensor] = []
        with torch.enable_grad(), state.as_forward():
            values = self.values(state, given, still, leaves, phi)
            if nudge:
                with self._as_in_this_step(self.root, state):
                    output = self._outputs(self.root, [values[v] for v in self.root.inputs])[self.position]
                phi.append(self.linked.loss_fn(output, y) * (-nudge * self.weight[self.root.name]))
            total = torch.stack([term.to(phi[0].dtype) for term in phi]).sum()
        torch.autograd.backward(total, inputs=list(leaves.values()))
        return {n: torch.zeros_like(s) if s.grad is None else s.grad / self.weight[n] for n, s in leaves.items()}

    def values(
        self, state: StepState, given: Values, still: Values, now: States, phi: list[Tensor] | None = None
    ) -> Values:
        """Every value that regions read, from the states; with `phi` its terms are added to it."""
        values = dict(given)
        for region in self.regions:
            if region is self.root:
                continue
            inputs = [values[v] for v in region.inputs]
            with self._as_in_this_step(region, state):
                if region.name not in self.names:
                    known = still.get(region.name)
                    values.update(zip(region.outputs, known or self._outputs(region, inputs), strict=True))
                    continue
                code, s = self.code(region), now[region.name]
                if phi is not None:
                    h = still.get(region.name)
                    h = code.run(*(inputs[k] for k in code.run_inputs)) if h is None else h
                    phi.append((s * h.to(s.dtype)).sum() * self.weight[region.name])
                values.update(zip(region.outputs, code.outputs_from(s, inputs), strict=True))
        return values

    def output(self, state: StepState, values: Values) -> Tensor:
        """The model's output from what its last region reads."""
        with torch.no_grad(), state.as_forward(), self._as_in_this_step(self.root, state):
            result: Tensor = self._outputs(self.root, [values[v] for v in self.root.inputs])[self.position]
        return result

    def descend(self, state: StepState, region: Region, values: Values, cotangent: Tensor) -> None:
        """Add the VJP of the region's h (of the root's output) with `cotangent` to `.grad` of its parameters."""
        code, inputs = self.linked.codes[region.name], [values[v] for v in region.inputs]
        with torch.enable_grad(), state.as_forward(), self._as_in_this_step(region, state):
            if region is self.root:
                made = self._outputs(region, inputs)[self.position]
            else:
                made = self.code(region).run(*(inputs[k] for k in code.run_inputs))
        into = [p for p in code.learned if p.requires_grad]
        if into and made.requires_grad:
            torch.autograd.backward([made], [cotangent.to(made.dtype)], inputs=into)


def settling(task: Task, linked: Linked) -> Step:
    """Task S: the free phase, or the nudged ones."""
    network = network_of(linked)
    given = {name: linked.slot(name) for name in network.inputs}
    free = {r.name: linked.slot(f"s.{r.name}") for r in network.states}
    if task.subject == "free":
        start = {r.name: linked.slot(activity(r)) for r in network.states}
        out, seen = linked.slot(f"s.{linked.root}"), linked.slot("s.values")
        draws = any(network.random.values())

        def freely(v: Slots) -> None:
            state: StepState = v[0]
            if draws:
                state.seed = int(torch.randint(2**40, ()))
            inputs = {name: v[i] for name, i in given.items()}
            begin = {n: v[i] for n, i in start.items()}
            now = network.settle(state, inputs, begin, network.steps[0], 0.0, None, counted=True)
            with torch.no_grad(), state.as_forward(), buffers_aside(network.modules):
                v[seen] = network.values(state, inputs, {}, now)
            v[out] = network.output(state, v[seen])
            for name, i in free.items():
                v[i] = now[name]

        return freely
    y, values = linked.slot("y"), linked.slot("n.values")
    nudged = {r.name: linked.slot(f"n.{r.name}") for r in network.states}

    def both(v: Slots) -> None:
        state: StepState = v[0]
        inputs, start = ({name: v[i] for name, i in part.items()} for part in (given, free))
        nudge, steps = network.beta * state.share / state.scale, network.steps[1]
        towards, away = (network.settle(state, inputs, start, steps, n, v[y]) for n in (nudge, -nudge))
        with torch.no_grad(), state.as_forward(), buffers_aside(network.modules):
            v[values] = Nudged(*(network.values(state, inputs, {}, now) for now in (towards, away)))
        for name, i in nudged.items():
            v[i] = Nudged(towards[name], away[name])
            if linked.track_discrepancy:  # the target of a state is where it settles when nudged
                state.discrepancy[name] = (start[name] - towards[name]).square().sum() / len(towards[name])

    return both


def contrast(task: Task, linked: Linked) -> Step:
    """Task U of a state: its ΔW from the contrast of the nudged phases; of the output, from the loss."""
    network, region = network_of(linked), linked.regions[task.subject]
    if region is network.root:
        e, seen = linked.slot(f"e.{region.name}"), linked.slot("s.values")

        def at_output(v: Slots) -> None:
            c = v[e].c if isinstance(v[e], Errors) else v[e][0]
            with buffers_aside(network.modules):
                network.descend(v[0], region, v[seen], c)

        return at_output
    n, values = linked.slot(f"n.{region.name}"), linked.slot("n.values")
    share = network.weight[region.name] / network.weight[network.root.name] / (2 * network.beta)

    def run(v: Slots) -> None:
        factor = v[0].scale * share
        with buffers_aside(network.modules):
            for at, s, sign in zip(v[values], v[n], (-factor, factor), strict=True):
                network.descend(v[0], region, at, s * sign)

    return run


def network_of(linked: Linked) -> Network:
    """The plan's regions as one network, made once."""
    if linked.network is None:
        linked.network = Network(linked)
    network: Network = linked.network
    return network
