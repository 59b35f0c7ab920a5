"""What is live during one step of a program: inputs, activities, displacements and errors of every region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reclra_compile.ir import Region, Target, Task
from reclra_compile.rules.blocked import Spread
from reclra_compile.rules.targets import rescaled
from reclra_compile.runtime.precision import laid_out_as
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.region import Live, SplitRegion, total
from reclra_compile.schedule.lower import activity

Read = Callable[[str], Any]


@dataclass
class Seen:
    """One region's part in a step; tensors are (N, …). `random` is the random state it ran from.

    `h` and `d` (the displacement at h) are there for targets of rule lra, `e` for regions that get an error, per
    sample: at h, or at the outputs of a region whose error enters there.
    """

    inputs: list[Any] = field(default_factory=list)
    random: Tensor | None = None
    z: Tensor | None = None
    h: Tensor | None = None
    d: Tensor | None = None
    e: Tensor | None = None


class Observer:
    """Keeps what passes by while a program runs one step: `observer.step(*batch)`, then `observer.seen`."""

    def __init__(self, program: Program) -> None:
        self.program, self.linked = program, program._linked
        self.seen = {r.name: Seen() for r in program.plan.regions}
        self.scale = 1.0

    def step(self, *batch: Any) -> float:
        """Run the step and return the loss."""
        loss = self.program.observe(*batch, before=self._before, after=self._after)
        return float(loss)

    def _before(self, task: Task, read: Read) -> None:
        seen = self.seen.get(task.subject)
        if task.kind == "F" and seen is not None:
            seen.random = random_state(self.program)
        if task.kind == "T" and seen is not None:
            target, code = self.linked.targets[task.subject], self.linked.codes[task.subject]
            if target.rule == "lra" and isinstance(code, SplitRegion):
                live: Live = read(f"h.{task.subject}")
                seen.h = live.roots[0].detach()
                seen.d = self._displacement(task, target, code, live, read)

    def _after(self, task: Task, read: Read) -> None:
        seen = self.seen.get(task.subject)
        if task.kind == "L":
            mean = self.linked.reduction == "mean"
            self.scale = 1.0 / len(read(self.program.plan.output)) if mean else 1.0
        elif task.kind == "F" and seen is not None:
            region = self.linked.regions[task.subject]
            seen.inputs = [read(v) for v in region.inputs]
            seen.z = _first_tensor(read(activity(region)), read(region.outputs[0]))
        elif task.kind == "T" and seen is not None:
            seen.e = self._errors(read(f"e.{task.subject}"))

    def _errors(self, value: Any) -> Tensor | None:
        """Error neurons per sample, from what a target leaves: errors at h, or cotangents at the outputs."""
        c = getattr(value, "c", value)
        first = _first_tensor(*c) if isinstance(c, tuple) else _first_tensor(c)
        return None if first is None else first / self.scale

    def _displacement(self, task: Task, target: Target, code: SplitRegion, live: Live, read: Read) -> Tensor:
        """d at h, as the target is about to use it (E3); a copy, for the target may overwrite its own."""
        h = live.roots[0].detach()
        arriving = [self.linked.pathways[v[2:]] for v in task.reads if v.startswith("d.") and v != "d.loss"]
        at_z = total([_whole(read(f"d.{p.name}"), len(h)) for p in arriving if not p.edge])
        ends = [read(f"d.{p.name}") for p in arriving if p.edge]
        ends += [read("d.loss")] * ("d.loss" in task.reads)
        sums = [total(parts) for parts in zip(*ends, strict=True)]
        d = _pulled(code, live, at_z, [None if s is None else s / self.scale for s in sums])
        d = torch.zeros_like(h) if d is None else laid_out_as(d, h)
        if target.rescale:
            d = rescaled(d, h, read(f"e.{self.linked.root}").e)
        return d.clone()

    def again(self, region: Region) -> Tensor | None:
        """h of the region now, from the inputs and the random state it had in the step; None where it has no h."""
        seen, code = self.seen[region.name], self.linked.codes[region.name]
        if seen.h is None or seen.random is None or not isinstance(code, SplitRegion):
            return None
        set_random_state(self.program, seen.random)
        h: Tensor = code.forward(seen.inputs)[2].roots[0].detach()
        return h


def _pulled(code: SplitRegion, live: Live, at_z: Tensor | None, at_outputs: list[Tensor | None]) -> Tensor | None:
    """As `SplitRegion.pull` of a region without φ in its graph, which the target still needs afterwards."""
    if live.end is None:
        return total([at_z, *at_outputs])
    given = [(o, c) for o, c in zip(live.outputs, at_outputs, strict=False) if c is not None and o.requires_grad]
    if not given:
        return at_z
    (pulled,) = torch.autograd.grad(
        [o for o, _ in given], [live.end], [c for _, c in given], retain_graph=True, allow_unused=True
    )
    return total([pulled, at_z])


def _whole(d: Any, samples: int) -> Tensor | None:
    """A displacement as a tensor, (N, …)."""
    if isinstance(d, Spread):
        return d.part(0, samples)
    return d if isinstance(d, Tensor) else None


def _first_tensor(*values: Any) -> Tensor | None:
    for v in values:
        if isinstance(v, Tensor) and v.is_floating_point():
            return v.detach()
    return None


def device_of(program: Program) -> torch.device:
    """The device that the program draws random numbers on."""
    return next((p.device for p in program.model.parameters()), torch.device("cpu"))


def random_state(program: Program) -> Tensor:
    """The random state of the program's device."""
    device = device_of(program)
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(program: Program, state: Tensor) -> None:
    """Set the random state of the program's device."""
    device = device_of(program)
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
