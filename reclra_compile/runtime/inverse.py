"""Learned inverses (E11): displacements as differences of two inversions, and autoencoding, which trains them.

The inverse of region j, from its activities back to those of the region i that it reads, is G(v) = φ_i(E v + c)
with the pathway's synapses E and one bias c per channel of i.

D. H. Lee, S. Zhang, A. Fischer and Y. Bengio, "Difference target propagation", ECML PKDD 2015.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reclra_compile.ir import Pathway
from reclra_compile.rules.kernels import add_grad
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Slots, StepState, buffers_aside
from reclra_compile.schedule.lower import activity


def _linear(p: Pathway, linked: Linked) -> Callable[[Tensor], Tensor]:
    """v → E v + c: (N, *source) → (N, *target)."""
    synapses, c, region = linked.synapses[p.name], linked.biases[p.name], linked.regions[p.target]
    shape = [region.channels if k == region.channel_axis else 1 for k in range(len(region.shape))]
    return lambda v: synapses.apply_to(v) + c.view(shape)


def displacement(p: Pathway, linked: Linked) -> Step:
    """Task D: d = G(z_j) − G(z_j − e_j) (E11), so that the target y_i = z_i − d is what leads to j's target."""
    linear, phi, synapses = _linear(p, linked), split(linked, p.target).phi, linked.synapses[p.name]
    z, e, d = (linked.slot(n) for n in (activity(linked.regions[p.source]), f"e.{p.source}", f"d.{p.name}"))

    def run(v: Slots) -> None:
        moved = synapses.apply_to(v[e].e)  # not as a difference: a small e would be lost to rounding
        if phi is not None:
            at = linear(v[z])
            moved = phi(at) - phi(at - moved)
        v[d] = moved

    return run


def autoencoding(p: Pathway, linked: Linked) -> Step:
    """Task V: descend ½‖G(f_j(z_i + ε)) − (z_i + ε)‖² with ε ~ N(0, noise²), one sample of noise per activity."""
    source, target = linked.regions[p.source], linked.regions[p.target]
    linear, forward = _linear(p, linked), _forward(p, linked)
    phi = split(linked, p.target).phi
    synapses, c = linked.synapses[p.name], linked.biases[p.name]
    z = linked.slot(activity(target))
    own, given = ([linked.slot(n) for n in r.inputs] for r in (target, source))
    others = [k for k in range(len(target.shape) + 1) if k != target.channel_axis + 1]

    def run(v: Slots) -> None:
        noisy = v[z] if v[z].dtype == torch.float64 else v[z].float()
        noisy = noisy + p.noise * torch.randn_like(noisy)
        ahead = forward(v[0], noisy, [v[i] for i in own], [v[i] for i in given])
        with torch.enable_grad():
            a = linear(ahead).detach().requires_grad_(True)
            back = a if phi is None else phi(a)
        delta = back.detach() - noisy
        if phi is not None:
            (delta,) = torch.autograd.grad(back, a, delta)
        delta = delta * (v[0].scale * p.gamma)
        synapses.accumulate(delta, ahead)
        if c.requires_grad:
            add_grad(c, delta.sum(others).to(c.dtype))

    return run


def _forward(p: Pathway, linked: Linked) -> Callable[[StepState, Tensor, list[Any], list[Any]], Tensor]:
    """(step, z_i, i's inputs, j's inputs) → z_j with z_i in place of what it was; buffers stay as they are."""
    below, above = split(linked, p.target), split(linked, p.source)
    outputs = linked.regions[p.target].outputs
    where = [(k, outputs.index(v)) for k, v in enumerate(linked.regions[p.source].inputs) if v in outputs]
    modules = linked.modules[p.source] + linked.modules[p.target]

    def run(state: StepState, z: Tensor, own: list[Any], inputs: list[Any]) -> Tensor:
        with buffers_aside(modules), torch.no_grad(), state.as_forward():
            made = below.outputs_from(z, own)
            for k, n in where:
                inputs[k] = made[n]
            return above.activities(inputs)

    return run


def split(linked: Linked, name: str) -> SplitRegion:
    """The code of a region that takes part in a pathway with synapses of its own."""
    code = linked.codes[name]
    assert isinstance(code, SplitRegion)
    return code
