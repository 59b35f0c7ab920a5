"""Ranks as a mesh: stages of one plan × replicas of it, over torch.distributed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from reclra_compile.distributed import word
from reclra_compile.distributed.channel import Incoming, Outgoing
from reclra_compile.distributed.meeting import MISSING, meet
from reclra_compile.distributed.network import Ways
from reclra_compile.distributed.variables import check_variables
from reclra_compile.distributed.wire import ProcessWire, reason
from reclra_compile.errors import Fault, RankError
from reclra_compile.ir import Plan

LAUNCH = "start it with `torchrun --nproc-per-node {n} your_script.py`"


@dataclass(frozen=True)
class Mesh:
    """rank = replica × stages + stage; implements `runtime.peers.Peers`.

    `store` keeps small facts that ranks leave for each other; `timeout` is the longest wait for another rank, in
    seconds. `across` is the group of ranks with this rank's stage, None where there is one replica. `own`: the process
    group was made for this mesh, and ends with it.
    """

    rank: int
    stages: int
    replicas: int
    device: torch.device
    timeout: float
    store: Any = field(compare=False)
    across: Any = field(default=None, compare=False)
    apart: bool = True
    own: bool = True

    @property
    def count(self) -> int:
        """All ranks."""
        return self.stages * self.replicas

    @property
    def stage(self) -> int:
        """The device of the plan that this rank runs."""
        return self.rank % self.stages

    @property
    def replica(self) -> int:
        """Which copy of the model this rank belongs to."""
        return self.rank // self.stages

    def rank_of(self, stage: int) -> int:
        """The rank of another stage of this replica."""
        return self.replica * self.stages + stage

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums of each value over all ranks, in float64 (float32 where the device has none)."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(list(values), dtype=dtype, device=self._home)
        if len(sums):
            with self.together():
                dist.all_reduce(sums)
        return [float(v) for v in sums.tolist()]

    def gather(self, text: str) -> list[str]:
        """The text of each rank, by rank."""
        mine = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0).byte()
        sizes = [int(n) for n in self._collected(torch.tensor([len(mine)], device=self._home))]
        padded = torch.zeros(max(1, *sizes), dtype=torch.uint8, device=self._home)
        padded[: len(mine)] = mine.to(self._home)
        rows = self._collected(padded)
        return [bytes(row[:n].cpu().tolist()).decode() for row, n in zip(rows, sizes, strict=True)]

    def channels(self, ways: Ways, plan: Plan) -> tuple[dict[int, Outgoing], dict[int, Incoming]]:
        """What leaves this stage and what arrives, by the other stage. Every rank calls it with the same plan.

        NCCL runs what two ranks send each other in one order for both directions, where one waits for the other; a
        group for each direction keeps them apart. All ranks make all groups, as NCCL splits them off together.
        """
        leaving: dict[int, Outgoing] = {}
        arriving: dict[int, Incoming] = {}
        pairs = sorted({pair for order in ways.values() for pair in order})
        groups: dict[tuple[int, int], Any] = {}
        if dist.get_backend() == "nccl":
            for replica in range(self.replicas):
                for a, b in pairs:
                    made = dist.new_group([replica * self.stages + a, replica * self.stages + b])
                    if replica == self.replica:
                        groups[a, b] = made
        for a, b in pairs:
            if self.stage not in (a, b):
                continue
            group = groups.get((a, b))
            other = b if self.stage == a else a
            wire = ProcessWire(self.rank_of(other), group, self.timeout, self._home)
            sent = {way: orders[a, b] for way, orders in ways.items() if (a, b) in orders}
            if self.stage == a:
                leaving[other] = Outgoing(wire, sent, lambda i: plan.tasks[i].subject)
            else:
                arriving[other] = Incoming(wire, sent, self.device)
        return leaving, arriving

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.total([0.0])

    def close(self) -> None:
        """Leave the process group, but one that others have made; who leaves early ends the others' waiting."""
        if self.own and dist.is_initialized():
            dist.destroy_process_group()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Inside, a collective operation that fails is a RankError: R104 where it took too long, R105 elsewhere."""
        started = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            if time.monotonic() - started >= 0.9 * self.timeout:
                raise RankError(
                    Fault("R104", f"rank {self.rank} waited {self.timeout:g} s for all ranks to come together",
                          fix="see where the others are; if steps really take so long, give a longer --rank-timeout")
                ) from error  # fmt: skip
            raise RankError(
                Fault("R105", f"rank {self.rank} lost another rank while all come together: {reason(error)}",
                      fix="see what the other ranks say")
            ) from error  # fmt: skip

    @property
    def _home(self) -> torch.device:
        """Where collectives want their tensors."""
        return self.device if dist.get_backend() == "nccl" else torch.device("cpu")

    def _collected(self, mine: torch.Tensor) -> list[torch.Tensor]:
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        with self.together():
            dist.all_gather(rows, mine)
        return rows


def connect(stages: int, device: str = "cpu", timeout: float = 300.0) -> Mesh:
    """The mesh of the ranks that a launcher started, for a plan of `stages` devices.

    `device` is a type: each rank takes the device of its number on its host. A process group that is there already is
    used. Raises RankError: R101 without a launcher, R102 where the ranks are no multiple of the stages, R103 where
    torch has no transport for the device, R107 where the ranks do not find each other.
    """
    there = dist.is_available() and dist.is_initialized()
    if not there:
        check_variables(LAUNCH.format(n=stages))
    rank = dist.get_rank() if there else int(os.environ["RANK"])
    world = dist.get_world_size() if there else int(os.environ["WORLD_SIZE"])
    if world % stages:
        raise RankError(
            Fault("R102", f"the plan is for {stages} devices, which {world} processes cannot share out",
                  fix=f"start {stages} processes, or a multiple of it for replicas")
        )  # fmt: skip
    here, limit = _device(device, rank), timedelta(seconds=timeout)
    if not there:
        _init(_backend(here), here, limit)
    replicas = world // stages
    across = None
    if replicas > 1:  # every rank makes all groups, in the same order
        groups = [dist.new_group([r * stages + s for r in range(replicas)], limit) for s in range(stages)]
        across = groups[rank % stages]
    store = dist.distributed_c10d.PrefixStore("reclra", dist.distributed_c10d._get_default_store())
    return Mesh(rank, stages, replicas, here, timeout, store, across, own=not there)


def _init(backend: str, device: torch.device, limit: timedelta) -> None:
    try:
        store, rank, world = next(rendezvous("env://", timeout=limit))
        store.set_timeout(limit)
        attempt = dist.distributed_c10d.PrefixStore(meet(store, rank, world, limit.total_seconds()), store)
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=world, timeout=limit,
                                device_id=device if backend == "nccl" else None)  # fmt: skip
    except (RuntimeError, ValueError) as error:  # DistNetworkError and DistStoreError among them
        address, why = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}", reason(error)
        raise RankError(Fault("R107", f"the ranks do not find each other at {address}: {why}",
                              fix=_to_meet(why))) from error  # fmt: skip


def _to_meet(why: str) -> str:
    """What to do where the ranks do not find each other."""
    if why.startswith((MISSING, "Timed out")):
        return "start all ranks, with an address that all hosts reach; if one begins late, give a longer --rank-timeout"
    if word.folder() is not None:  # `train` chooses the port itself
        return "let this host connect to itself, at localhost, or use --one-process"
    return "give a free port, with --master-port or --rdzv-endpoint, and an address that all hosts reach"


def _device(kind: str, rank: int) -> torch.device:
    """The device of this process; raises RankError (R103) where the host has fewer than processes."""
    named = torch.device(kind)
    if named.type != "cuda":
        return torch.device(named.type)
    local, there = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
    if local >= there:
        raise RankError(Fault("R103", f"process {local} of this host has no GPU: there are {there}",
                              fix="start as many processes on a host as it has GPUs, or use --device cpu"))  # fmt: skip
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _backend(device: torch.device) -> str:
    backend = "nccl" if device.type == "cuda" else "gloo"
    there = dist.is_available() and (dist.is_nccl_available() if backend == "nccl" else dist.is_gloo_available())
    if not there:
        raise RankError(Fault("R103", f"this torch has no {backend}, which ranks on {device.type} talk through",
                              fix="install a torch that has it, or train with --one-process"))  # fmt: skip
    return backend

