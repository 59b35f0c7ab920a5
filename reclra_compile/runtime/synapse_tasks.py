"""Task V: one builder per synapse update, each a closure from live values to the factors of ΔE."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reclra_compile.ir import Pathway, Task
from reclra_compile.rules import updates
from reclra_compile.rules.catalogue import READOUTS
from reclra_compile.rules.maps import Mapped
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.loss import is_plain_cross_entropy, loss_and_gradient
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Slots
from reclra_compile.schedule.lower import activity


def synapse_update(task: Task, linked: Linked) -> Step:
    """The closure that adds the update of a pathway's synapses to their gradients."""
    p = linked.pathways[task.subject]
    if p.update in READOUTS:
        learn = _learn(p, linked)
        if p.update == "local_loss":  # read out already, for the displacement
            r = linked.slot(f"r.{p.name}")
            return lambda v: learn(v[r])
        read = read_out(p, linked)
        return lambda v: learn(read(v))
    factors = _UPDATES[p.update](p, linked)
    synapses = linked.synapses[p.name]

    def run(v: Slots) -> None:
        synapses.accumulate(*factors(v))

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


class ReadOut(NamedTuple):
    """A region's own read-out of the target: z as it was read, and ∂loss/∂r of the read-out r (E9)."""

    z: Tensor
    v: Tensor


def read_out(p: Pathway, linked: Linked) -> Callable[[Slots], ReadOut]:
    """The closure that reads the target's activities out, with the gradient in units of the loss, (N, *source)."""
    z, y = linked.slot(activity(linked.regions[p.target])), linked.slot("y")
    synapses, bias = linked.synapses[p.name], linked.biases.get(p.name)
    root, shape = linked.codes[linked.root], linked.regions[linked.root].shape
    assert isinstance(root, SplitRegion)
    loss_fn, bare = linked.loss_fn, root.phi is None and root.tail is None

    def gradient(r: Tensor, v: Slots) -> Tensor:
        if bare and is_plain_cross_entropy(loss_fn, r, v[y]):
            if v[0].one_hot is None:
                v[0].one_hot = F.one_hot(v[y], r.shape[1]).to(r.dtype)
            return torch.softmax(r, 1).sub_(v[0].one_hot).mul_(v[0].scale)
        return loss_and_gradient(lambda x, t: loss_fn(root.head(x), t), r.view(-1, *shape), v[y])[1]

    def run(v: Slots) -> ReadOut:
        if isinstance(synapses, Mapped):  # pooled once, for the read-out and for its update
            rows = synapses.pooled(v[z])
            return ReadOut(rows, gradient(synapses.read_pooled(rows, bias), v))
        return ReadOut(v[z], gradient(synapses.read(v[z], bias), v))

    return run


def _learn(p: Pathway, linked: Linked) -> Callable[[ReadOut], None]:
    """The closure that adds ΔE and Δb of a read-out (E9) to their gradients."""
    synapses, bias = linked.synapses[p.name], linked.biases.get(p.name)
    accumulate = synapses.accumulate_pooled if isinstance(synapses, Mapped) else synapses.accumulate

    def run(read: ReadOut) -> None:
        accumulate(*updates.local_readout(read.z, read.v, p.gamma), bias)

    return run


_UPDATES: dict[str, Callable[[Pathway, Linked], FactorsOf]] = {"kolen_pollack": _kolen_pollack, "lra": _lra}
