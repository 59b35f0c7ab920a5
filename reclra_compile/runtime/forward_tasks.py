"""Tasks F and L: the forward pass of a region, and the loss at the output."""

from __future__ import annotations

import torch

from reclra_compile.ir import Region, Task
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.loss import loss_and_gradient, reduction_of
from reclra_compile.runtime.region import SplitRegion, WholeRegion
from reclra_compile.runtime.state import Slots, StepState, buffers_aside
from reclra_compile.schedule.lower import activity
from reclra_compile.schedule.settling import settles


def forward(task: Task, linked: Linked) -> Step:
    """The closure that runs a region forward, and keeps what its update needs."""
    region, code = linked.regions[task.subject], linked.codes[task.subject]
    reads = [linked.slot(v) for v in region.inputs]
    outs = [linked.slot(v) for v in region.outputs]
    h = linked.slot(f"h.{region.name}")
    if settles(linked.plan.targets):
        return _start(region, code, reads, outs, linked)
    if isinstance(code, WholeRegion):

        def whole(v: Slots) -> None:
            outputs, v[h] = code.forward([v[i] for i in reads])
            for slot, value in zip(outs, outputs, strict=True):
                v[slot] = value

        return whole
    z = linked.slot(activity(region))

    def split(v: Slots) -> None:
        outputs, activities, v[h] = code.forward([v[i] for i in reads])
        for slot, value in zip(outs, outputs, strict=True):
            v[slot] = value
        v[z] = activities

    return split


def _start(
    region: Region, code: WholeRegion | SplitRegion, reads: list[int], outs: list[int], linked: Linked
) -> Step:
    """Where states start to settle: without a graph, and batch statistics are those of the settled states."""
    z = linked.slot(activity(region))

    def run(v: Slots) -> None:
        inputs = [v[i] for i in reads]
        with torch.no_grad(), buffers_aside(linked.modules[region.name]):
            if isinstance(code, WholeRegion):
                result = code.run(*(inputs[k] for k in code.run_inputs))
                outputs = result if isinstance(result, tuple) else (result,)
            else:
                v[z] = code.activities(inputs)
                outputs = code.outputs_from(v[z], inputs)
        for slot, value in zip(outs, outputs, strict=True):
            v[slot] = value

    return run


def loss(task: Task, linked: Linked) -> Step:
    """The closure that compares the output with the labels."""
    output, y, value, d = (linked.slot(n) for n in (task.reads[0], "y", "loss", "d.loss"))
    loss_fn = linked.loss_fn

    def run(v: Slots) -> None:
        if linked.reduction is None:
            linked.reduction = reduction_of(loss_fn, v[output], v[y])
        state: StepState = v[0]
        state.scaled(linked.reduction, len(v[output]))
        if not state.share:  # no label of this microbatch counts, and a mean over none is not a number
            v[value], v[d] = v[output].new_zeros(()), (torch.zeros_like(v[output]),)
            return
        v[value], gradient = loss_and_gradient(loss_fn, v[output], v[y])
        if state.share != 1.0:  # in units of the whole batch's loss
            v[value], gradient = v[value] * state.share, gradient * state.share
        v[d] = (gradient,)

    return run
