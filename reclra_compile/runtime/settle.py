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

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reclra_compile.ir import Region, Task
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.recompute import random_state, set_random_state
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Errors, Slots, buffers_aside
from reclra_compile.schedule.lower import activity
from reclra_compile.schedule.settling import RULE, inputs_of, levels_of, moving, states

States = Mapping[str, Tensor]


class Nudged(NamedTuple):
    """A region's state (N, …) after nudging towards the labels, and away from them."""

    towards: Tensor
    away: Tensor


class Network:
    """The regions of a plan as one function Φ of their states."""

    def __init__(self, linked: Linked) -> None:
        plan = linked.plan
        self.linked, self.regions = linked, plan.regions
        self.states = states(plan.regions, plan.targets)
        self.root = linked.regions[linked.root]
        self.inputs = inputs_of(plan.regions)
        self.moving = moving(plan.regions, plan.targets)
        ruled = next(t for t in plan.targets if t.rule == RULE)
        self.beta, self.step = ruled.beta, ruled.step
        self.steps = max(t.free_steps for t in plan.targets), max(t.nudged_steps for t in plan.targets)
        self.modules = tuple(m for ms in linked.modules.values() for m in ms)
        self.names = {r.name for r in self.states}
        self.position = self.root.outputs.index(plan.output)
        levels, gamma = levels_of(plan.regions, plan.targets), ruled.feedback
        self.weight = {r.name: gamma ** levels[r.name] for r in plan.regions}  #: γ^ℓ

    def code(self, region: Region) -> SplitRegion:
        """The code of a region that has a state."""
        code = self.linked.codes[region.name]
        assert isinstance(code, SplitRegion)
        return code

    def settle(self, given: Mapping[str, Any], start: States, steps: int, nudge: float, y: Any) -> dict[str, Tensor]:
        """The states after `steps` steps from `start`; `nudge` is β times the factor that makes the loss a sum."""
        still = self._still(given)
        now = dict(start)
        random = random_state(next(iter(now.values())).device)
        for _ in range(steps):
            set_random_state(next(iter(now.values())).device, random)  # one dropout mask for all steps
            slopes = self._slopes(given, still, now, nudge, y)
            for region in self.states:
                phi = self.code(region).phi
                aimed = slopes[region.name] if phi is None else phi(slopes[region.name])
                now[region.name] = torch.lerp(now[region.name], aimed, self.step)
        return now

    def _still(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Pre-activations of states, and outputs of other regions, that read no state: computed once a phase."""
        values, found = dict(given), {}
        with torch.no_grad():
            for region in self.regions:
                if region.name in self.moving or region is self.root:
                    continue
                if not all(v in values for v in region.inputs):
                    continue
                inputs = [values[v] for v in region.inputs]
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
        self, given: Mapping[str, Any], still: Mapping[str, Any], now: States, nudge: float, y: Any
    ) -> dict[str, Tensor]:
        """γ^−ℓ ∂Φ/∂s for every state."""
        leaves = {name: s.detach().requires_grad_(True) for name, s in now.items()}
        phi: list[Tensor] = []
        with torch.enable_grad():
            values = self._values(given, still, leaves, phi)
            if nudge:
                output = self._outputs(self.root, [values[v] for v in self.root.inputs])[self.position]
                phi.append(self.linked.loss_fn(output, y) * (-nudge * self.weight[self.root.name]))
            total = torch.stack(phi).sum()
        torch.autograd.backward(total, inputs=list(leaves.values()))
        return {n: torch.zeros_like(s) if s.grad is None else s.grad / self.weight[n] for n, s in leaves.items()}

    def _values(
        self, given: Mapping[str, Any], still: Mapping[str, Any], now: States, phi: list[Tensor] | None = None
    ) -> dict[str, Any]:
        """Every value that regions read, from the states; with `phi` its terms are added to it."""
        values = dict(given)
        for region in self.regions:
            if region is self.root:
                continue
            inputs = [values[v] for v in region.inputs]
            if region.name not in self.names:
                known = still.get(region.name)
                values.update(zip(region.outputs, known or self._outputs(region, inputs), strict=True))
                continue
            code, s = self.code(region), now[region.name]
            if phi is not None:
                h = still.get(region.name)
                h = code.run(*(inputs[k] for k in code.run_inputs)) if h is None else h
                phi.append((s * h).sum() * self.weight[region.name])
            values.update(zip(region.outputs, code.outputs_from(s, inputs), strict=True))
        return values

    def output(self, given: Mapping[str, Any], now: States) -> Tensor:
        """The model's output where the states are `now`."""
        with torch.no_grad():
            values = self._values(given, {}, now)
            result: Tensor = self._outputs(self.root, [values[v] for v in self.root.inputs])[self.position]
        return result

    def descend(self, region: Region, given: Mapping[str, Any], now: States, cotangent: Tensor) -> None:
        """Add the VJP of the region's h (of the root's output) with `cotangent` to `.grad` of its parameters."""
        code = self.linked.codes[region.name]
        with torch.no_grad():
            values = self._values(given, {}, now)
        inputs = [values[v] for v in region.inputs]
        with torch.enable_grad():
            made = self._outputs(region, inputs)[self.position] if region is self.root else None
            if made is None:
                made = self.code(region).run(*(inputs[k] for k in code.run_inputs))
        into = [p for p in code.learned if p.requires_grad]
        if into and made.requires_grad:
            torch.autograd.backward([made], [cotangent], inputs=into)


def settling(task: Task, linked: Linked) -> Step:
    """Task S: the free phase, or the nudged ones."""
    network = network_of(linked)
    given = {name: linked.slot(name) for name in network.inputs}
    free = {r.name: linked.slot(f"s.{r.name}") for r in network.states}
    if task.subject == "free":
        start = {r.name: linked.slot(activity(r)) for r in network.states}
        out = linked.slot(f"s.{linked.root}")

        def freely(v: Slots) -> None:
            inputs = {name: v[i] for name, i in given.items()}
            with buffers_aside(network.modules):
                now = network.settle(inputs, {n: v[i] for n, i in start.items()}, network.steps[0], 0.0, None)
                v[out] = network.output(inputs, now)
            for name, i in free.items():
                v[i] = now[name]

        return freely
    y, nudged = linked.slot("y"), {r.name: linked.slot(f"n.{r.name}") for r in network.states}

    def both(v: Slots) -> None:
        inputs, start = ({name: v[i] for name, i in part.items()} for part in (given, free))
        nudge, state = network.beta / v[0].scale, random_state(next(iter(start.values())).device)
        with buffers_aside(network.modules):
            towards = network.settle(inputs, start, network.steps[1], nudge, v[y])
            set_random_state(next(iter(start.values())).device, state)
            away = network.settle(inputs, start, network.steps[1], -nudge, v[y])
        for name, i in nudged.items():
            v[i] = Nudged(towards[name], away[name])
            if linked.track_discrepancy:  # the target of a state is where it settles when nudged
                v[0].discrepancy[name] = (start[name] - towards[name]).square().sum() / len(towards[name])

    return both


def contrast(task: Task, linked: Linked) -> Step:
    """Task U of a state: its ΔW from the contrast of the nudged phases; of the output, from the loss."""
    network, region = network_of(linked), linked.regions[task.subject]
    given = {name: linked.slot(name) for name in network.inputs}
    if region is network.root:
        free = {r.name: linked.slot(f"s.{r.name}") for r in network.states}
        e = linked.slot(f"e.{region.name}")

        def at_output(v: Slots) -> None:
            c = v[e].c if isinstance(v[e], Errors) else v[e][0]
            inputs, now = ({name: v[i] for name, i in part.items()} for part in (given, free))
            with buffers_aside(network.modules):
                network.descend(region, inputs, now, c)

        return at_output
    nudged = {r.name: linked.slot(f"n.{r.name}") for r in network.states}

    def run(v: Slots) -> None:
        inputs = {name: v[i] for name, i in given.items()}
        factor = v[0].scale / (2 * network.beta) * network.weight[region.name] / network.weight[network.root.name]
        with buffers_aside(network.modules):
            for side, sign in (("towards", -factor), ("away", factor)):
                now = {name: getattr(v[i], side) for name, i in nudged.items()}
                network.descend(region, inputs, now, now[region.name] * sign)

    return run


def network_of(linked: Linked) -> Network:
    """The plan's regions as one network, made once."""
    if linked.network is None:
        linked.network = Network(linked)
    network: Network = linked.network
    return network
