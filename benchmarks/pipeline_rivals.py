"""Contenders of `pipeline.py`: PyTorch's pipeline schedules, its data parallelism, one process, and rec-LRA.

A step is zero_grad, forward and backward passes (or `Program.step`); no optimizer, which is the same for all. Losses
are divided by the number of microbatches before the backward pass, so that the schedules need not scale gradients
after it, and outputs are not collected: both are to their advantage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from pipeline_models import Case, loss_fn
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)
from torch.nn.parallel import DistributedDataParallel

import reclra_compile as rc

BASE = "1F1B"
PIPELINES = (BASE, "GPipe", "interleaved 1F1B", "interleaved zero bubble", "ZBV zero bubble")
DATA_PARALLEL, ALONE = "DDP", "backprop (one process)"
_SINGLE = {BASE: Schedule1F1B, "GPipe": ScheduleGPipe}
_MULTI = {
    "interleaved 1F1B": ScheduleInterleaved1F1B,
    "interleaved zero bubble": ScheduleInterleavedZeroBubble,
    "ZBV zero bubble": ScheduleZBVZeroBubble,
}


@dataclass(frozen=True)
class Contender:
    """One way to make a step. `gradients` are those that it leaves on this rank, by name, to be compared with
    `expected()`.
    """

    name: str
    step: Callable[[], object]
    gradients: Callable[[], dict[str, Tensor]]
    expected: Callable[[], dict[str, Tensor]]

    def worst(self) -> float:
        """The largest relative error of a gradient after one step; on this rank."""
        self.step()
        wanted = self.expected()
        return max((_distance(g, wanted[name]) for name, g in self.gradients().items()), default=0.0)


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by the names of the parameters, where there are any."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def autograd(case: Case, microbatches: int) -> dict[str, Tensor]:
    """Gradients by plain backprop of the microbatches, one after the other."""
    model, (x, y) = case.build(), case.data()
    for part, target in zip(x.chunk(microbatches), y.chunk(microbatches), strict=True):
        (loss_fn(model(part), target) / microbatches).backward()
    return gradients_of(model)


def part_seconds(parts: Sequence[nn.Module], x: Tensor, repeats: int = 5) -> list[float]:
    """The least time that the forward and backward pass of each part takes."""
    found = []
    for part in parts:
        times = []
        for _ in range(repeats + 1):
            started = perf_counter()
            y = part(x)
            y.backward(torch.ones_like(y))
            times.append(perf_counter() - started)
        found.append(min(times[1:]))
        part.zero_grad()
        x = y.detach().requires_grad_()
    return found


def balanced(seconds: Sequence[float], stages: int, ranks: int) -> tuple[int, ...]:
    """Where each of `stages` begins, and the end: the busiest rank's work and the longest stage are least, together.

    Stage k is on rank k mod `ranks`; with two ranks and four stages in a V, rank 0 has the first and the last.
    """

    def cost(cuts: tuple[int, ...]) -> float:
        each = [sum(seconds[a:b]) for a, b in pairwise((0, *cuts, len(seconds)))]
        return max(each) + max(sum(each[r::ranks]) for r in range(ranks))

    best = min(combinations(range(1, len(seconds)), stages - 1), key=cost)
    return (0, *best, len(seconds))


def pipelines(case: Case, microbatches: int, cuts: dict[int, tuple[int, ...]]) -> Iterable[Contender]:
    """PyTorch's schedules. They share one copy of the model: no step changes a weight."""
    model, (x, y) = case.build(), case.data()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    parts = case.parts(model)
    wanted: dict[str, Tensor] = {}

    def expected() -> dict[str, Tensor]:
        if not wanted:
            wanted.update(autograd(case, microbatches))
        return wanted

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return loss_fn(output, target) / microbatches

    def stage(k: int, count: int) -> PipelineStage:
        edges = cuts[count]
        whole = x[: len(x) // microbatches]
        with torch.no_grad():
            given = nn.Sequential(*parts[: edges[k]])(whole)
            made = nn.Sequential(*parts[edges[k] : edges[k + 1]])
            output = made(given)
        return PipelineStage(made, k, count, x.device,
                             input_args=given.requires_grad_(k > 0), output_args=output.requires_grad_())  # fmt: skip

    options: dict[str, Any] = {"loss_fn": loss, "scale_grads": False}
    for name in PIPELINES:
        schedule: Any
        if name in _SINGLE:
            schedule = _SINGLE[name](stage(rank, ranks), microbatches, **options)
        else:
            count = 2 * ranks
            mine = (rank, count - 1 - rank) if name.startswith("ZBV") else (rank, rank + ranks)
            schedule = _MULTI[name]([stage(k, count) for k in mine], microbatches, **options)
        first, last = rank == 0, rank == (0 if name.startswith("ZBV") else ranks - 1)

        def step(schedule: Any = schedule, first: bool = first, last: bool = last) -> None:
            model.zero_grad()
            schedule.step(*((x,) if first else ()), target=y if last else None, return_outputs=False)

        yield Contender(name, step, lambda: gradients_of(model), expected)


def data_parallel(case: Case) -> Contender:
    """DistributedDataParallel: the whole model and an equal share of the batch on each rank, not cut any further."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    model, (x, y) = case.build(), case.data()
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True)
    part, target = x.chunk(ranks)[rank], y.chunk(ranks)[rank]

    def step() -> None:
        wrapped.zero_grad()
        loss_fn(wrapped(part), target).backward()

    return Contender(DATA_PARALLEL, step, lambda: gradients_of(model), lambda: autograd(case, ranks))


def alone(case: Case) -> Contender:
    """Backprop of the whole batch on rank 0; the other ranks have nothing to do."""
    if dist.get_rank():
        return Contender(ALONE, lambda: None, dict, dict)
    model, (x, y) = case.build(), case.data()

    def step() -> None:
        model.zero_grad()
        loss_fn(model(x), y).backward()

    return Contender(ALONE, step, lambda: gradients_of(model), lambda: autograd(case, 1))


def program_gradients(program: rc.Program) -> dict[str, Tensor]:
    """Gradients of the model's parameters and of the synapses."""
    return gradients_of(program.model) | {f"synapses {n}": g for n, g in gradients_of(program.synapses).items()}


def ours(case: Case, name: str, plan: rc.Plan, mesh: Any = None) -> Contender:
    """The plan, by this project: its lanes on the ranks of `mesh`; without one, on rank 0 alone."""
    x, y = case.data()
    if mesh is None and dist.get_rank():
        return Contender(name, lambda: None, dict, dict)

    def program(**options: Any) -> rc.Program:
        return rc.compile(case.build(), x, plan=plan, loss_fn=loss_fn, reduction="mean", **options)

    def expected() -> dict[str, Tensor]:
        """By all devices' lanes in this process."""
        whole = program()
        whole.step(x, y)
        return program_gradients(whole)

    made = program(mesh=mesh) if mesh is not None else program()

    def step() -> None:
        made.zero_grad()
        made.step(x, y)

    return Contender(name, step, lambda: program_gradients(made), expected)
