"""Gradients of replicas are summed while the rest of the step runs: a bucket leaves once its last task is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reclra_compile.distributed.network import Network
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

    def __init__(self, linked: Linked, lane: Lane, mesh: Network) -> None:
        self._mesh = mesh
        last = {i: k for k, (i, _) in enumerate(lane)}
        self._users: dict[nn.Parameter, set[int]] = {}
        for i in last:
            for p in learned_by(linked.plan.tasks[i], linked):
                self._users.setdefault(p, set()).add(i)
        by_end = sorted(self._users, key=lambda p: max(last[i] for i in self._users[p]))  # equals keep their order
        self._ready = by_end
        self._learn: list[bool] = []
        self._buckets: list[list[nn.Parameter]] = []
        self._needs: list[set[int]] = []
        self._kept: list[Tensor | None] = []
        self._under_way: list[tuple[Any, Tensor]] = []
        self._done: set[int] = set()

    def begin(self) -> None:
        """A step begins: gradients that are there already are set aside."""
        learn = [p.requires_grad for p in self._ready]
        if learn != self._learn:  # something was frozen, or learns again
            self._learn = learn
            self._buckets = list(_buckets([p for p in self._ready if p.requires_grad]))
            self._needs = [{i for p in bucket for i in self._users[p]} for bucket in self._buckets]
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

    def _leave(self, bucket: Sequence[nn.Parameter]) -> None:
        for p in bucket:
            if p.grad is not None and p.grad.is_sparse:
                p.grad = p.grad.to_dense()
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        with self._mesh.together():
            work = dist.all_reduce(flat, group=self._mesh.across, async_op=True)
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
    return list(found)


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


def all_rows(rows: Tensor, mesh: Network) -> Tensor:
    """The rows of all replicas of this stage, in their order; each may have another number."""
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(mesh.replicas)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device), group=mesh.across)
    most = max(int(n) for n in counts)
    padded = torch.cat([rows, rows.new_zeros((most - len(rows), *rows.shape[1:]))])
    found = [torch.empty_like(padded) for _ in range(mesh.replicas)]
    dist.all_gather(found, padded, group=mesh.across)
    return torch.cat([part[: int(n)] for part, n in zip(found, counts, strict=True)])


def averaged_buffers(buffers: Sequence[Tensor], peers: Peers, group: Any) -> None:
    """Give buffers the mean over replicas, where they are numbers, or the values of replica 0."""
    for b in buffers:
        if b.is_floating_point():
            dist.all_reduce(b, group=group)
            b.div_(peers.replicas)
        else:
            dist.broadcast(b, src=peers.stage, group=group)
