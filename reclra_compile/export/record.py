"""Write one step of a program down: every operation of every task, autograd's own among them, in one flat graph.

The step runs once, in a sandbox, on an example batch. What it reads that lives longer than a step (parameters, buffers,
synapses) comes in as arguments, so that no operation on them is taken for a constant.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from reclra_compile.errors import Fault, UserError
from reclra_compile.export.part import Part
from reclra_compile.export.sandbox import untouched
from reclra_compile.ir import Task
from reclra_compile.runtime.linked import Step
from reclra_compile.runtime.microbatch import microbatches
from reclra_compile.runtime.precision import autocast_of, outside_autocast
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.state import Slots, StepState
from reclra_compile.runtime.tasks import build
from reclra_compile.runtime.tracing import traced


def lasting(program: Program) -> dict[str, Tensor]:
    """Parameters, buffers and synapses by their paths in a step graph, each once."""
    model, synapses = program.model, program.synapses
    own = {id(p) for p in synapses.parameters()}  # which an attached model names as well
    named = [
        *((f"model.{n}", p) for n, p in model.named_parameters() if id(p) not in own),
        *((f"model.{n}", b) for n, b in model.named_buffers()),
        *((f"synapses.{n}", p) for n, p in synapses.named_parameters()),
        *((f"synapses.{n}", b) for n, b in synapses.named_buffers()),
    ]
    found: dict[int, str] = {}
    for path, tensor in named:
        found.setdefault(id(tensor), path)
    return {path: tensor for path, tensor in named if found[id(tensor)] == path}


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A step as torch's tracer left it: arguments are what lasts, by `held`, then the batch; the output is a list of
    the loss and the gradients of `learned`, both by their paths."""

    graph: fx.GraphModule
    held: dict[str, Tensor]
    learned: tuple[str, ...]


def record(program: Program, batch: Sequence[Tensor]) -> Recorded:
    """One step on `batch`; its operations know their task by `meta["task"]`.

    Raises UserError (X005) where a task looks at values.
    """
    with program.at_work():
        return _recorded(program, batch)


def _recorded(program: Program, batch: Sequence[Tensor]) -> Recorded:
    steps, held = _steps(program), lasting(program)
    learned: list[str] = []

    def step(_: list[Tensor], values: list[Tensor]) -> list[Tensor]:
        loss = _run(program, steps, values)
        grads = {path: p.grad for path, p in held.items() if p.requires_grad and p.grad is not None}
        learned[:] = grads
        return [loss, *grads.values()]

    torch.clear_autocast_cache()  # casts that are kept there were made outside, and would be constants
    with untouched(program), torch.no_grad(), traced():
        graph = make_fx(step)(list(held.values()), list(batch))
    torch.clear_autocast_cache()
    for node in graph.graph.nodes:
        if _sized_by_values(node):
            raise _depends(node.meta.get("task"), f"{node.target} gives a tensor whose size depends on values")
    return Recorded(graph, held, tuple(learned))


def _sized_by_values(node: fx.Node) -> bool:
    """True for operations whose result has as many elements as a condition holds for."""
    if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
        return False
    if node.target is not torch.ops.aten.index.Tensor:
        return True
    masks = [i.meta["tensor_meta"].dtype for i in node.all_input_nodes[1:] if "tensor_meta" in i.meta]
    return torch.bool in masks or torch.uint8 in masks


def _steps(program: Program) -> list[Step]:
    """The program's tasks, without recomputing: a graph keeps what it likes, and draws each random number once."""
    linked = program._linked
    again = {t.region for t in program.plan.targets if t.recompute}
    once = {name: dataclasses.replace(c, rerun=None) if name in again else c for name, c in linked.codes.items()}
    copy = dataclasses.replace(linked, codes=once)
    copy.slot = linked.slot
    steps = [
        build(task, copy) if task.kind == "F" and task.subject in again else run
        for task, run in zip(program.plan.tasks, program._steps, strict=True)
    ]
    linked.slot.device = None
    return steps


def _run(program: Program, steps: Sequence[Step], batch: Sequence[Tensor]) -> Tensor:
    """`Program.step`, task by task, noting the task of every operation; returns the loss."""
    alone = program._linked.alone
    live = [program._filled(batch, StepState(autocast=autocast_of(batch)))] if alone else _cut(program, batch)
    _note(Part("B", "batch", -1))
    order: Iterable[tuple[int, int]] = ((i, 0) for i in range(len(steps))) if alone else program._sequence
    autocast = live[0][0].autocast
    for i, m in order:
        if m >= len(live):
            continue
        task = program.plan.tasks[i]
        passes = i < program._after_loss if alone else program._passes[i]
        with contextlib.nullcontext() if passes or autocast is None else outside_autocast(autocast[0]):
            _traceable(task, steps[i], live[m])
        _note(Part.of(task, m))
    losses = [slots[program._loss] for slots in live]
    loss: Tensor = losses[0] if alone else torch.stack(losses).sum()
    _note(Part("L", "loss", 0))
    return loss


def _cut(program: Program, batch: Sequence[Tensor]) -> list[Slots]:
    """The slots of each microbatch; its part of a mean is that of its samples."""
    parts = microbatches(batch, program.plan.schedule.microbatches, program._fewest)
    whole = sum(n for n, _ in parts)
    return [
        program._filled(values, StepState(autocast=autocast_of(batch), number=m, part=n / whole, samples=n, whole=whole,
                                          parts=len(parts), batch=n))
        for m, (n, values) in enumerate(parts)
    ]  # fmt: skip


def _traceable(task: Task, run: Callable[[Slots], None], slots: Slots) -> None:
    """Run a task; raises UserError (X005) where it asks for a value, which a graph does not know."""
    try:
        run(slots)
    except RuntimeError as error:
        if "tracing tensor" not in str(error):
            raise
        reason = "it asks for the value of a tensor, by `if`, bool(), float() or .item()"
        raise _depends(Part.of(task, 0), reason) from error


def _depends(part: Any, reason: str) -> UserError:
    where = f"task '{part.kind} {part.subject}'" if isinstance(part, Part) else "the step"
    return UserError(
        Fault("X005", f"{where} cannot be part of a graph: {reason}",
              fix="write it with tensor operations (torch.where in place of `if`), or train with program.step")
    )  # fmt: skip


def _note(part: Part) -> None:
    """Say of the newest operations that they are of this task."""
    mode = get_proxy_mode()
    assert mode is not None
    for node in reversed(mode.tracer.graph.nodes):
        if "task" in node.meta or node.op == "placeholder":
            return
        node.meta["task"] = part
