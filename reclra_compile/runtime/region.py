"""A region linked to live modules: its forward pass, how errors enter it, and its VJP (E1, E5).

Two forms. `WholeRegion`: one autograd graph from the inputs to the outputs; error enters at the
outputs (gradient rule along the model's edges). `SplitRegion`: the graph ends at h and error neurons
enter there, so ΔW never contains φ' (E5); φ and tail run apart, with a graph only where one is needed.

Inputs are detached: no graph spans two regions. `requires_grad` is set on an input only where an
edge pathway listens to its cotangent, so dX is never computed for the rest. A region with `rerun` (its
module) keeps only its inputs, and runs again for its VJP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reclra_compile.runtime.recompute import first_run

Elementwise = Callable[[Tensor], Tensor]
Cotangents = Sequence[Tensor | None]


@dataclass(slots=True)
class Live:
    """What a forward pass leaves behind for the error phase of one region.

    `roots` end the graph of E5; `leaves` are the listened-to inputs by position; `outputs`, `end` and
    `z` belong to the graph of φ and tail, where there is one; `extra` are its cotangents of inputs. `again`
    makes the roots anew, with their graph, where the region recomputes.
    """

    roots: tuple[Any, ...] = ()
    leaves: dict[int, Tensor] = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()
    end: Tensor | None = None
    z: Tensor | None = None
    extra: dict[int, Tensor] = field(default_factory=dict)
    again: Callable[[], tuple[Any, ...]] | None = None

    def leaf(self, k: int, value: Any, listens: frozenset[int]) -> Any:
        """Input k as it enters the graph: a fresh leaf where somebody listens, the value itself elsewhere."""
        if k not in listens:
            return value
        if k not in self.leaves:
            self.leaves[k] = value.detach().requires_grad_(True)
        return self.leaves[k]


@dataclass(frozen=True)
class WholeRegion:
    """A region whose error arrives at its outputs and leaves through its inputs."""

    run: Callable[..., Any]
    run_inputs: tuple[int, ...]
    listens: frozenset[int]
    learned: tuple[nn.Parameter, ...]
    rerun: nn.Module | None = None

    def forward(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], Live]:
        """Detached outputs, in order, and the live graph; `values` are the region's inputs."""
        live = Live()
        result = _run(self, live, values)
        live.roots = result if isinstance(result, tuple) else (result,)
        return tuple(o.detach() if isinstance(o, Tensor) else o for o in live.roots), live


@dataclass(frozen=True)
class SplitRegion:
    """A region whose error neurons sit at h: z = φ(h), outputs = tail(z, inputs).

    `phi_graph`: e = d ⊙ φ'(h) needs φ's graph. `tail_graph`: cotangents arrive at the outputs and are
    pulled back to z. `phi` None is the identity, `tail` None means that z is the output.
    """

    run: Callable[..., Any]
    run_inputs: tuple[int, ...]
    listens: frozenset[int]
    learned: tuple[nn.Parameter, ...]
    phi: Elementwise | None
    tail: Callable[..., Any] | None
    tail_inputs: tuple[int, ...]
    phi_graph: bool
    tail_graph: bool
    rerun: nn.Module | None = None

    def forward(self, values: Sequence[Any]) -> tuple[tuple[Tensor, ...], Tensor, Live]:
        """Detached outputs, detached z, and the live graphs; `values` are the region's inputs."""
        live = Live()
        h = _run(self, live, values)
        live.roots = (h,)
        z = h.detach()
        if self.phi_graph:
            live.end = z.requires_grad_(True)
            with torch.enable_grad():
                z = z if self.phi is None else self.phi(z)
        elif self.phi is not None:
            z = self.phi(z)
        if self.tail is None:
            live.z, live.outputs = z, (z,)
            z = z.detach() if self.phi_graph else z
            return (z,), z, live
        if self.tail_graph and not self.phi_graph:
            live.end = z = z.detach().requires_grad_(True)
        live.z = z
        inputs = [live.leaf(k, values[k], self.listens) for k in self.tail_inputs]
        with torch.set_grad_enabled(self.tail_graph):
            result = self.tail(z, *inputs)
        live.outputs = result if isinstance(result, tuple) else (result,)
        return tuple(o.detach() for o in live.outputs), z.detach(), live

    def activities(self, values: Sequence[Any]) -> Tensor:
        """z from the region's inputs, with the graph that the caller's mode asks for."""
        h: Tensor = self.run(*(values[k] for k in self.run_inputs))
        return h if self.phi is None else self.phi(h)

    def outputs_from(self, z: Tensor, values: Sequence[Any]) -> tuple[Any, ...]:
        """The region's outputs, in order, from z and its inputs."""
        if self.tail is None:
            return (z,)
        result = self.tail(z, *(values[k] for k in self.tail_inputs))
        return result if isinstance(result, tuple) else (result,)

    def head(self, h: Tensor) -> Tensor:
        """The region's main output from a pre-activation, for a tail that reads nothing else."""
        z = h if self.phi is None else self.phi(h)
        result = z if self.tail is None else self.tail(z)
        first: Tensor = result[0] if isinstance(result, tuple) else result
        return first

    def pull(self, live: Live, at_z: Tensor | None, at_outputs: Cotangents) -> Tensor | None:
        """Sum of what arrives at z and at the outputs, as a displacement at z, or at h if `phi_graph`.

        Cotangents of the tail's other inputs are kept for the edge pathways that listen to them.
        """
        if live.end is None:  # neither φ nor tail in between
            return total([at_z, *at_outputs])
        given = [(o, c) for o, c in zip(live.outputs, at_outputs, strict=False) if c is not None]
        if self.phi_graph and at_z is not None and live.z is not None:
            given.append((live.z, at_z))
        given = [(o, c) for o, c in given if o.requires_grad]
        if not given:
            return at_z
        inputs = [(k, live.leaves[k]) for k in self.tail_inputs if k in live.leaves]
        grads = torch.autograd.grad(
            [o for o, _ in given], [live.end, *(t for _, t in inputs)], [c for _, c in given], allow_unused=True
        )
        live.extra = {k: g for (k, _), g in zip(inputs, grads[1:], strict=True) if g is not None}
        return total([grads[0], None if self.phi_graph else at_z])


def _run(code: WholeRegion | SplitRegion, live: Live, values: Sequence[Any]) -> Any:
    """What the region's graph gives from its inputs, with the graph, or with a way to make it again."""
    inputs = [live.leaf(k, values[k], code.listens) for k in code.run_inputs]
    if code.rerun is not None:
        result, live.again = first_run(code.run, inputs, code.rerun)
        return result
    with torch.set_grad_enabled(bool(code.learned or code.listens)):
        return code.run(*inputs)


def vjp(live: Live, cotangents: Cotangents, learned: Sequence[Tensor]) -> None:
    """E5: accumulate the VJP of the region's roots into `.grad` of the parameters and of the listened-to inputs."""
    given = [
        (r, c)
        for r, c in zip(live.again() if live.again else live.roots, cotangents, strict=False)
        if c is not None and isinstance(r, Tensor) and r.requires_grad
    ]
    into = [p for p in learned if p.requires_grad] + list(live.leaves.values())
    if given and into:
        torch.autograd.backward([r for r, _ in given], [c for _, c in given], inputs=into)


def heard(live: Live, position: int) -> Tensor | None:
    """The cotangent of input `position`, after `vjp`."""
    return total([live.leaves[position].grad, live.extra.get(position)])


def total(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Sum of the tensors that are there; None where none is."""
    result: Tensor | None = None
    for t in tensors:
        if t is not None:
            result = t if result is None else result + t
    return result
