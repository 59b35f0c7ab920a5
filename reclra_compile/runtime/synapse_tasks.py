"""Task V: one builder per synapse update, each a closure from live values to the factors of ΔE."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from reclra_compile.ir import Pathway, Task
from reclra_compile.rules import updates
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.loss import is_plain_cross_entropy, loss_and_gradient
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Slots
from reclra_compile.schedule.lower import activity


def synapse_update(task: Task, linked: Linked) -> Step:
    """The closure that adds the update of a pathway's synapses to their gradients."""
    p = linked.pathways[task.subject]
    factors = _UPDATES[p.update](p, linked)
    synapses = linked.synapses[p.name]
    bias = linked.biases.get(p.name)

    def run(v: Slots) -> None:
        u, c = factors(v)
        synapses.accumulate(u, c, bias)

    return run


FactorsOf = Callable[[Slots], updates.Factors]


def _kolen_pollack(p: Pathway, linked: Linked) -> FactorsOf:
    z, e = linked.slot(activity(linked.regions[p.target])), linked.slot(f"e.{p.source}")
    return lambda v: updates.kolen_pollack(v[z], v[e].c, p.gamma)


def _lra(p: Pathway, linked: Linked) -> FactorsOf:
    ds = [linked.slot(f"d.{q.name}") for q in linked.plan.pathways if q.target == p.target and not q.edge]
    e = linked.slot(f"e.{p.source}")
    guard = updates.GrowthGuard(linked.synapses[p.name], p.growth_limit)
    return lambda v: updates.lra(sum(v[d] for d in ds), guard(v[e].c), p.gamma)


def read_out(p: Pathway, linked: Linked) -> Callable[[Slots], Tensor]:
    """The closure that gives ∂loss/∂r of the target's own read-out r (E9), in units of the loss: (N, *source)."""
    z, y = linked.slot(activity(linked.regions[p.target])), linked.slot("y")
    synapses, bias = linked.synapses[p.name], linked.biases.get(p.name)
    root, shape = linked.codes[linked.root], linked.regions[linked.root].shape
    assert isinstance(root, SplitRegion)
    loss_fn, bare = linked.loss_fn, root.phi is None and root.tail is None

    def gradient(v: Slots) -> Tensor:
        r = synapses.read(v[z], bias)
        if bare and is_plain_cross_entropy(loss_fn, r, v[y]):
            if v[0].one_hot is None:
                v[0].one_hot = F.one_hot(v[y], r.shape[1]).to(r.dtype)
            return torch.softmax(r, 1).sub_(v[0].one_hot).mul_(v[0].scale)
        return loss_and_gradient(lambda x, t: loss_fn(root.head(x), t), r.view(-1, *shape), v[y])[1]

    return gradient


def _local_readout(p: Pathway, linked: Linked) -> FactorsOf:
    z, gradient = linked.slot(activity(linked.regions[p.target])), read_out(p, linked)
    return lambda v: updates.local_readout(v[z], gradient(v), p.gamma)


def _local_loss(p: Pathway, linked: Linked) -> FactorsOf:
    z, r = linked.slot(activity(linked.regions[p.target])), linked.slot(f"r.{p.name}")
    return lambda v: updates.local_readout(v[z], v[r], p.gamma)


_UPDATES: dict[str, Callable[[Pathway, Linked], FactorsOf]] = {
    "kolen_pollack": _kolen_pollack,
    "lra": _lra,
    "local_readout": _local_readout,
    "local_loss": _local_loss,
}
