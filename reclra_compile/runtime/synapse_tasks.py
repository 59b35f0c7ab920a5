"""Task V: one builder per synapse update, each a closure from live values to the factors of ΔE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reclra_compile.errors import Fault, UserError
from reclra_compile.ir import Pathway, Task
from reclra_compile.rules.catalogue import UPDATES
from reclra_compile.rules.growth import GrowthGuard
from reclra_compile.rules.maps import Mapped
from reclra_compile.runtime.inverse import autoencoding
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.loss import is_plain_cross_entropy, loss_and_gradient, reduction_of
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Slots, StepState
from reclra_compile.schedule.lower import activity


def synapse_update(task: Task, linked: Linked) -> Step:
    """The closure that adds the update of a pathway's synapses to their gradients."""
    p = linked.pathways[task.subject]
    if p.update == "autoencoding":
        return autoencoding(p, linked)
    if UPDATES[p.update].readout:
        learn = _learn(p, linked)
        if p.update == "local_loss":  # read out already, for the displacement
            r = linked.slot(f"r.{p.name}")
            return lambda v: learn(v[r])
        out = read_out(p, linked)
        return lambda v: learn(out(v))
    function = UPDATES[p.update].function
    assert function is not None  # the others have no task, or one of their own above
    read = [(name, _reader(name, p, linked)) for name in UPDATES[p.update].reads]
    synapses, scaled = linked.synapses[p.name], _scaled(p, linked)

    def run(v: Slots) -> None:
        u, w = factors(p.update, function(**{name: get(v) for name, get in read}))
        synapses.accumulate(u, scaled(w))

    return run


def factors(name: str, made: Any) -> tuple[Tensor, Tensor]:
    """What a synapse update gives; raises UserError (L004) where it is not two tensors."""
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Tensor) and isinstance(made[1], Tensor):
        return made
    message = f"the synapse update '{name}' returns a {type(made).__name__}, not two tensors"
    raise UserError(Fault("L004", message, fix="return (u, v) of ΔE = Σ u vᵀ, u of the target and v of the source"))


def _reader(name: str, p: Pathway, linked: Linked) -> Callable[[Slots], Any]:
    """The closure that gives an update what it reads by this name."""
    if name == "d":
        ds = [linked.slot(f"d.{q.name}") for q in linked.plan.pathways if q.target == p.target and not q.edge]
        return lambda v: sum(v[d] for d in ds)
    if name == "h":
        h = linked.slot(f"h.{p.target}")
        return lambda v: v[h].roots[0].detach()
    if name == "e":
        e = linked.slot(f"e.{p.source}")
        return lambda v: v[e].c
    value = linked.slot("y" if name == "y" else activity(linked.regions[p.target]))
    return lambda v: v[value]


def _scaled(p: Pathway, linked: Linked) -> Callable[[Tensor], Tensor]:
    """γ times the second factor of an update, which is zero where its synapses have outgrown their limit."""
    if p.growth_limit:
        guard = GrowthGuard(linked.synapses[p.name], p.growth_limit)
        return lambda w: guard(w if p.gamma == 1.0 else w * p.gamma)
    return lambda w: w if p.gamma == 1.0 else w * p.gamma


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

    def seen(r: Tensor) -> Tensor:
        """What the loss sees where `r` is the output's pre-activation."""
        return root.head(r.view(-1, *shape))

    def gradient(r: Tensor, v: Slots) -> Tensor:
        state: StepState = v[0]
        if state.given:  # in place of labels there is the loop's own loss, as a function of the output
            closed = getattr(v[y], "gradient", None) if bare else None
            if closed is not None:
                return closed(r.view(-1, *shape))  # type: ignore[no-any-return]
            return loss_and_gradient(lambda x, loss: loss(root.head(x)), r.view(-1, *shape), v[y])[1]
        if linked.reduction is None:
            linked.reduction = reduction_of(loss_fn, seen(r), v[y])
        state.scaled(linked.reduction, len(r) if bare else len(seen(r)))  # as task L does, which may be yet to come
        if not state.share:
            return torch.zeros_like(r)
        if bare and (state.one_hot is not None or is_plain_cross_entropy(loss_fn, r, v[y])):
            if v[0].one_hot is None:
                v[0].one_hot = F.one_hot(v[y], r.shape[1]).to(r.dtype)
            factor = state.share / len(r) if linked.reduction == "mean" else 1.0
            return torch.softmax(r, 1).sub_(v[0].one_hot).mul_(factor)
        return loss_and_gradient(lambda x, t: loss_fn(root.head(x), t), r.view(-1, *shape), v[y])[1] * state.share

    def run(v: Slots) -> ReadOut:
        if isinstance(synapses, Mapped):  # pooled once, for the read-out and for its update
            rows = synapses.pooled(v[z])
            return ReadOut(rows, gradient(synapses.read_pooled(rows, bias), v))
        return ReadOut(v[z], gradient(synapses.read(v[z], bias), v))

    return run


def _learn(p: Pathway, linked: Linked) -> Callable[[ReadOut], None]:
    """The closure that adds ΔE and Δb of a read-out (E9) to their gradients."""
    synapses, bias = linked.synapses[p.name], linked.biases.get(p.name)
    function, reads = UPDATES[p.update].function, UPDATES[p.update].reads
    assert function is not None
    accumulate = synapses.accumulate_pooled if isinstance(synapses, Mapped) else synapses.accumulate
    scaled = _scaled(p, linked)

    def run(read: ReadOut) -> None:
        given = {"z": read.z, "r": read.v}
        u, w = factors(p.update, function(**{name: given[name] for name in reads}))
        accumulate(u, scaled(w), bias)

    return run

