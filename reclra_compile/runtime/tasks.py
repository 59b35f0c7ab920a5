"""One builder per task kind: each turns a task into a closure over numbered slots.

The closures hold no values between steps; everything live is in the slots, so freeing a slot frees
the tensor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reclra_compile.ir import Pathway, Region, Target, Task
from reclra_compile.rules import targets as rules
from reclra_compile.rules.blocked import BLOCK, Spread, errors
from reclra_compile.rules.catalogue import TARGETS, UPDATES
from reclra_compile.rules.maps import Mapped
from reclra_compile.runtime.accumulate import accumulate
from reclra_compile.runtime.forward_tasks import forward, loss
from reclra_compile.runtime.inverse import displacement as difference
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.mirror import mirror_mode
from reclra_compile.runtime.precision import laid_out_as
from reclra_compile.runtime.random_tasks import drawing_apart
from reclra_compile.runtime.region import SplitRegion, WholeRegion, heard, total, vjp
from reclra_compile.runtime.settle import contrast, settling
from reclra_compile.runtime.state import Errors, Slots, StepState
from reclra_compile.runtime.synapse_tasks import read_out, synapse_update
from reclra_compile.runtime.tracing import is_traced
from reclra_compile.schedule.lower import activity
from reclra_compile.schedule.settling import settles
from reclra_compile.schedule.values import base

#: below this a region's VJP costs less than the call of autograd that runs it: such updates are run together
SMALL_FLOPS = 20_000_000


def build(task: Task, linked: Linked) -> Step:
    """The closure that executes `task` on its device."""
    linked.slot.device = task.device
    return drawing_apart(_BUILDERS[task.kind](task, linked), task, linked)


def _displacement(task: Task, linked: Linked) -> Step:
    p = linked.pathways[task.subject]
    if p.update == "autoencoding":
        return difference(p, linked)
    applied = _applied(p, linked)
    d = linked.slot(f"d.{p.name}")
    if p.update == "local_loss":  # E10: the displacement that the region's own read-out asks for
        read, r = read_out(p, linked), linked.slot(f"r.{p.name}")

        def own(v: Slots) -> None:
            v[r] = read(v)
            v[d] = applied(v[r].v * (1.0 / v[0].scale))

        return own
    e = linked.slot(f"e.{p.source}")

    def run(v: Slots) -> None:
        v[d] = applied(v[e].e)

    return run


def _applied(p: Pathway, linked: Linked) -> Callable[[Tensor], Tensor | Spread]:
    """E e (E3); where only a blocked target reads it, as cells that are spread over the map there."""
    synapses = linked.synapses[p.name]
    if isinstance(synapses, Mapped) and _blocked(linked.regions[p.target], linked):
        view = synapses.target
        return lambda e: Spread(synapses.cells(e), view, len(e))
    return synapses.apply_to


def _blocked(region: Region, linked: Linked) -> bool:
    """True for a large region that one pathway alone asks for error neurons of the common kind (p = q = 2)."""
    target = linked.targets[region.name]
    if region.size * linked.plan.batch <= BLOCK:
        return False
    arriving = [p for p in linked.plan.pathways if p.target == region.name]
    plain = target.rule == "lra" and (target.p, target.q) == (2, 2) and not target.rescale and target.phi == "same"
    return plain and len(arriving) == 1 and not arriving[0].edge and "d" not in UPDATES[arriving[0].update].reads


def _target(task: Task, linked: Linked) -> Step:
    region, target = linked.regions[task.subject], linked.targets[task.subject]
    arriving = [linked.pathways[base(v)[2:]] for v in task.reads if v.startswith("d.") and v != "d.loss"]
    at_z = [linked.slot(f"d.{p.name}") for p in arriving if not p.edge]
    at_outputs = [linked.slot(f"d.{p.name}") for p in arriving if p.edge]
    if "d.loss" in task.reads:
        at_outputs.append(linked.slot("d.loss"))
    code = linked.codes[task.subject]
    if isinstance(code, WholeRegion):
        return _whole_errors(region, at_outputs, linked)
    if target.rule == "gradient":
        return _gradient_errors(region, code, at_z, at_outputs, linked)
    return _lra_errors(region, target, code, at_z, at_outputs, linked)


def _whole_errors(region: Region, at_outputs: list[int], linked: Linked) -> Step:
    """Cotangents at the outputs, summed over the pathways, in units of the loss."""
    e, one = linked.slot(f"e.{region.name}"), len(at_outputs) == 1
    record = linked.track_discrepancy and region.name == linked.root

    def run(v: Slots) -> None:
        v[e] = v[at_outputs[0]] if one else tuple(map(total, zip(*(v[i] for i in at_outputs), strict=True)))
        if record and v[e][0] is not None:
            _record_output(v[0], region.name, v[e][0])

    return run


def _record_output(state: StepState, name: str, c: Tensor) -> None:
    """The output's term of D(Θ): ‖e_L‖² averaged over the batch, from e_L in units of the loss."""
    flat = c.flatten()
    state.discrepancy[name] = torch.dot(flat, flat) / (state.scale**2 * state.batch)


def _cotangents(v: Slots, slots: list[int], factor: float) -> list[Tensor | None]:
    """What arrives at the outputs, times `factor`."""
    sums = [total(parts) for parts in zip(*(v[i] for i in slots), strict=True)]
    return sums if factor == 1.0 else [s if s is None else s * factor for s in sums]


def _gradient_errors(
    region: Region, code: SplitRegion, at_z: list[int], at_outputs: list[int], linked: Linked
) -> Step:
    """e = d ⊙ φ'(h); kept in units of the loss where nothing per-sample arrives, so that nothing is rounded."""
    e, h, read = linked.slot(f"e.{region.name}"), linked.slot(f"h.{region.name}"), f"e.{region.name}" in linked.read_e
    record = linked.track_discrepancy and region.name == linked.root

    def run(v: Slots) -> None:
        scale: float = v[0].scale
        if at_z:
            at = total([v[i] for i in at_z])
            at = at if at is None else laid_out_as(at, v[h].roots[0]).to(v[h].roots[0].dtype)
            arrived = code.pull(v[h], at, _cotangents(v, at_outputs, 1.0 / scale))
            errors = torch.zeros_like(v[h].roots[0]) if arrived is None else arrived
            v[e] = Errors(errors, errors * scale)
        else:
            arrived = code.pull(v[h], None, _cotangents(v, at_outputs, 1.0))
            c = torch.zeros_like(v[h].roots[0]) if arrived is None else arrived
            v[e] = Errors(c * (1.0 / scale) if read else None, c)
        if record:
            _record_output(v[0], region.name, v[e].c)

    return run


def _lra_errors(
    region: Region, target: Target, code: SplitRegion, at_z: list[int], at_outputs: list[int], linked: Linked
) -> Step:
    """y = φ(h − β d), e from the mismatch z − y (E2–E4)."""
    e, h, z = (linked.slot(n) for n in (f"e.{region.name}", f"h.{region.name}", activity(region)))
    e_root = linked.slot(f"e.{linked.root}")
    alone = len(at_z) == 1 and not at_outputs
    reads_d = any(p.target == region.name and "d" in UPDATES[p.update].reads for p in linked.plan.pathways)
    overwrite = alone and not reads_d
    mismatch = rules.mismatch(target, linked.target_phi[region.name], target.phi == "same", overwrite)
    times_slope = rules.times_derivative(linked.target_phi[region.name]) if TARGETS[target.rule].derivative else None
    direction, factor = rules.direction(target), rules.error_scale(target)
    if _blocked(region, linked):
        return _blocked_errors(region, target, at_z[0], linked)
    read, record = f"e.{region.name}" in linked.read_e, linked.track_discrepancy

    def run(v: Slots) -> None:
        live, scale = v[h], v[0].scale
        h_N = live.roots[0].detach()
        if alone:
            d: Tensor | None = v[at_z[0]]
        else:
            d = code.pull(live, total([v[i] for i in at_z]), _cotangents(v, at_outputs, 1.0 / scale))
        d = torch.zeros_like(h_N) if d is None else laid_out_as(d, h_N)
        if target.rescale:
            d = rules.rescaled(d, h_N, v[e_root].e)
        m = mismatch(h_N, v[z], d)
        if record:
            v[0].discrepancy[region.name] = rules.discrepancy(target, m)
        if direction is not None:
            m = direction(m)
        if times_slope is not None:  # the error is passed on as it is, and learned from times φ'(h)
            errors = m * factor
            v[e] = Errors(errors, times_slope(h_N, errors) * scale)
        elif read:
            errors = m * factor if factor != 1.0 else m
            v[e] = Errors(errors, errors * scale)
        else:
            v[e] = Errors(None, m.mul_(factor * scale))

    return run


def _blocked_errors(region: Region, target: Target, at_z: int, linked: Linked) -> Step:
    """As `_lra_errors` where one displacement arrives, a few samples at a time."""
    e, h, z = (linked.slot(n) for n in (f"e.{region.name}", f"h.{region.name}", activity(region)))
    phi, factor = linked.target_phi[region.name], rules.error_scale(target)
    read, record = f"e.{region.name}" in linked.read_e, linked.track_discrepancy
    exact = rules.mismatch(target, phi, own=True, overwrite=False)

    def run(v: Slots) -> None:
        h_N, d, scale = v[h].roots[0].detach(), v[at_z], 1.0 if read else v[0].scale
        if h_N.dtype in rules.LOW or is_traced():  # what compiles a graph blocks it as it likes
            m = exact(h_N, v[z], d.part(0, len(h_N)) if isinstance(d, Spread) else d)
            c, squares = m * (factor * scale), m.square().sum()
        else:
            c, squares = errors(h_N, v[z], d, target.beta, factor * scale, phi)
        if record:
            v[0].discrepancy[region.name] = squares * (target.kappa / len(h_N))
        v[e] = Errors(c, c * v[0].scale) if read else Errors(None, c)

    return run


def _mirror(task: Task, linked: Linked) -> Step:
    return mirror_mode(linked.pathways[task.subject], linked)


def waits(task: Task, linked: Linked) -> bool:
    """True for a small weight update that is run at the end of the step, together with others."""
    if task.kind != "U" or not linked.alone or settles(linked.plan.targets):
        return False
    region, leaves = linked.regions[task.subject], any(v.startswith("d.") for v in task.writes)
    whole, again = isinstance(linked.codes[region.name], WholeRegion), linked.targets[region.name].recompute
    return not whole and not leaves and not again and region.weight_flops <= SMALL_FLOPS


def _update(task: Task, linked: Linked) -> Step:
    if settles(linked.plan.targets):
        return contrast(task, linked)
    region, code = linked.regions[task.subject], linked.codes[task.subject]
    e, h = linked.slot(f"e.{region.name}"), linked.slot(f"h.{region.name}")
    edges = [(linked.slot(v), _positions(linked.pathways[v[2:]], linked)) for v in task.writes if v.startswith("d.")]
    whole, learned = isinstance(code, WholeRegion), code.learned
    if waits(task, linked):

        def later(v: Slots) -> None:
            if is_traced():  # a graph says which task each operation is of
                vjp(v[h], (v[e].c,), learned)
            else:
                v[0].pending.append((v[h].roots[0], v[e].c, learned))

        return later

    adds = not linked.alone

    def run(v: Slots) -> None:
        live, given = v[h], v[e] if whole else (v[e].c,)
        if not (adds and accumulate(live, given, learned)):
            vjp(live, given, learned + v[0].leaves)
        for slot, positions in edges:
            v[slot] = tuple(total([heard(live, k) for k in ks]) for ks in positions)

    return run


def _positions(p: Pathway, linked: Linked) -> list[list[int]]:
    """For each output of the pathway's target, the positions at which its source reads it."""
    inputs = linked.regions[p.source].inputs
    return [[k for k, v in enumerate(inputs) if v == out] for out in linked.regions[p.target].outputs]


def _carry(task: Task, linked: Linked) -> Step:
    """Tasks P and R in one process: the value passes from its slot to the message's, and from there to the copy's."""
    source, target = linked.slot(task.reads[0]), linked.slot(task.writes[0])

    def run(v: Slots) -> None:
        v[target] = v[source]

    return run


def _free(task: Task, linked: Linked) -> Step:
    slots = [linked.slot(v) for v in task.reads]

    def run(v: Slots) -> None:
        for i in slots:
            v[i] = None

    return run


_BUILDERS: dict[str, Callable[[Task, Linked], Step]] = {
    "F": forward,
    "L": loss,
    "D": _displacement,
    "T": _target,
    "S": settling,
    "U": _update,
    "V": synapse_update,
    "M": _mirror,
    "P": _carry,
    "R": _carry,
    "X": _free,
}
