"""Gradients of replicas are summed while the rest of the step runs: a bucket leaves once its last task is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reclra_compile.ir import Task
from reclra_compile.runtime.linked import Linked
from reclra_compile.runtime.peers import Peers
from reclra_compile.schedule.expand import Lane

BUCKET = 4 * 1024 * 1024  #: bytes of gradients that go together


class Averaging:
    """Sums `.grad` of what a rank learns over the replicas of its stage.

    Microbatches of all replicas are parts of one batch, weighted accordingly, so that sums are the batch's gradients.
    Buckets are fixed and go in one order, which all replicas share; gradients that were there before the step are added
    afterwards.
    """

    def __init__(self, linked: Linked, lane: Lane, group: Any) -> None:
        self._group = group
        last = {i: k for k, (i, _) in enumerate(lane)}
        users: dict[nn.Parameter, set[int]] = {}
        for i in last:
            for p in learned_by(linked.plan.tasks[i], linked):
                users.setdefault(p, set()).add(i)
        ready = sorted(users, key=lambda p: max(last[i] for i in users[p]))  # sorting keeps the order of equals
        self._buckets = list(_buckets(ready))
        self._needs = [{i for p in bucket for i in users[p]} for bucket in self._buckets]
        self._kept: list[Tensor | None] = []
        self._under_way: list[tuple[Any, Tensor]] = []
        self._done: set[int] = set()

    def begin(self) -> None:
        """A step begins: gradients that are there already are set aside."""
        self._kept = [p.grad for bucket in self._buckets for p in bucket]
        for bucket in self._buckets:
            for p in bucket:
                p.grad = None
        self._under_way, self._done = [], set()

    def done(self, task: int, last: bool) -> None:
        """A task has run, for the `last` microbatch or another: what is whole now leaves."""
        if not last:
            return
        self._done.add(task)
        while len(self._under_way) < len(self._buckets) and self._needs[len(self._under_way)] <= self._done:
            self._leave(self._buckets[len(self._under_way)])

    def finish(self) -> None:
        """Wait for all sums and put them in place."""
        while len(self._under_way) < len(self._buckets):
            self._leave(self._buckets[len(self._under_way)])
        for bucket, (work, flat) in zip(self._buckets, self._under_way, strict=True):
            work.wait()
            at = 0
            for p in bucket:
                part = flat[at : at + p.numel()].view(p.shape)
                at += p.numel()
                if p.grad is not None:
                    p.grad.copy_(part)
                elif bool(part.any()):  # another replica has one
                    p.grad = part.clone()
        for p, before in zip((p for bucket in self._buckets for p in bucket), self._kept, strict=True):
            if before is not None:
                p.grad = before if p.grad is None else before.add_(p.grad)
        self._under_way, self._kept = [], []

    @property
    def buckets(self) -> int:
        """How many sums a step takes."""
        return len(self._buckets)

    def _leave(self, bucket: Sequence[nn.Parameter]) -> None:
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        work = dist.all_reduce(flat, group=self._group, async_op=True)
        self._under_way.append((work, flat))


def learned_by(task: Task, linked: Linked) -> list[nn.Parameter]:
    """What a task adds gradients to."""
    found: Iterable[nn.Parameter] = ()
    if task.kind == "U":
        found = linked.codes[task.subject].learned
    elif task.kind == "V":
        found = linked.synapses[task.subject].parameters()
    elif task.kind == "M":
        found = [B for _, B, _ in linked.mirrors.get(linked.pathways[task.subject].source, [])]
    return [p for p in found if p.requires_grad]


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    """Parameters in order, in runs of one precision and of about BUCKET bytes."""
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or size >= BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel() * p.element_size()
    if bucket:
        yield bucket


def averaged_buffers(buffers: Sequence[Tensor], peers: Peers, group: Any) -> None:
    """Give buffers the mean over replicas, where they are numbers, or the values of replica 0."""
    for b in buffers:
        if b.is_floating_point():
            dist.all_reduce(b, group=group)
            b.div_(peers.replicas)
        else:
            dist.broadcast(b, src=peers.stage, group=group)
