"""A step in two halves: the forward pass on its own, and, once the gradient at the output is known, the rest.

Between the halves is whatever somebody else's training loop does with the output. The plan's loss task is left out:
its result, the gradient, comes from outside, and with it the factor between that gradient and the error e_L.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reclra_compile.runtime.precision import autocast_of, outside_autocast
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.region import SplitRegion
from reclra_compile.runtime.state import Slots, StepState


class Halves:
    """The forward and the other tasks of a program that runs on one device, with one microbatch."""

    def __init__(self, program: Program) -> None:
        self._program = program
        tasks = program.plan.tasks
        root = next(t for t in tasks if t.kind == "L")
        late: set[str] = {*root.reads, *root.writes, "y"}  # values that tasks of the second half still need
        ahead: list[int] = []
        for k, task in enumerate(tasks):
            if task.kind == "F" or (task.kind == "X" and not late & set(task.reads)):
                ahead.append(k)
            else:
                late |= {*task.reads, *task.writes}
        self._ahead = ahead
        self._after = [k for k in range(len(tasks)) if k not in set(ahead) and tasks[k].kind != "L"]
        slot = program._linked.slot
        self._output, self._gradient, self._loss = slot(root.reads[0]), slot("d.loss"), slot("loss")
        #: positions of the inputs whose gradient the regions that read them can give
        self.pulled = frozenset(k for k, (name, _, _) in enumerate(program.plan.inputs) if self._pulls(name))

    def _pulls(self, name: str) -> bool:
        """True where all regions that read this input take a VJP of all that they compute from it."""
        plan, linked = self._program.plan, self._program._linked
        updated = {t.subject for t in plan.tasks if t.kind == "U"}
        for region in (r for r in plan.regions if name in r.inputs):
            code = linked.codes[region.name]
            at_tail = isinstance(code, SplitRegion) and region.inputs.index(name) in code.tail_inputs
            if region.name not in updated or at_tail or code.rerun is not None:
                return False
        return True

    def begin(self, inputs: Sequence[Any], wanted: Sequence[int] = ()) -> tuple[Slots, Tensor]:
        """The forward pass on the program's inputs: its live values, for `finish`, and the output, detached.

        `wanted`: positions of the inputs whose gradients `finish` returns.
        """
        program = self._program
        if program.recorder is not None:
            program.recorder.begin()
        given = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        leaves = tuple(given[k].requires_grad_(True) for k in wanted)
        with torch.no_grad():
            slots: Slots = program._filled(given, StepState(autocast=autocast_of(given), given=True, leaves=leaves))
            for k in self._ahead:
                program._steps[k](slots)
        return slots, slots[self._output]

    def finish(
        self, slots: Slots, gradient: Tensor, factor: float, amplified: float, target: Any
    ) -> list[Tensor | None]:
        """Everything else: adds to `.grad` as `step` does; returns the gradients of the inputs that want one.

        `gradient`: that of the loop's loss at the output, in the output's shape. It is `factor` · e_L, with e_L per
        sample; `amplified` times what the loss alone would give. `target`: what read-outs of the output's region are
        compared with.
        """
        state: StepState = slots[0]
        state.scale, state.amplified, state.batch = factor, amplified, len(gradient)
        slots[self._gradient], slots[self._loss] = (gradient,), gradient.new_zeros(())
        slots[self._program._y] = target
        with torch.no_grad(), outside_autocast(gradient.device.type):
            for k in self._after:
                self._program._steps[k](slots)
            state.finish()
        self._program._discrepancy = state.discrepancy
        slots.clear()
        if self._program.recorder is not None:
            self._program.recorder.end()
        return [leaf.grad for leaf in state.leaves]


def reads_labels(tasks: Sequence[Any]) -> bool:
    """True where tasks other than the loss read labels."""
    return any(t.kind not in "LX" and "y" in t.reads for t in tasks)
