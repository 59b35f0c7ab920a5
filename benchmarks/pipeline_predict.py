"""What `pipeline.py` predicts: plans by measured times, their simulated steps, those of the rivals, and bounds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.distributed as dist
from pipeline_models import Case, Wired, loss_fn
from pipeline_rivals import ALONE, BASE, DATA_PARALLEL, balanced

from reclra_compile.arrange import arrange
from reclra_compile.compiler import plan_for
from reclra_compile.cost.measured import Time, time_of
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.times import task_us
from reclra_compile.profile.bench import bench
from reclra_compile.simulate.compare import compare

SIMULATED = {
    BASE: "1f1b", "GPipe": "gpipe", "interleaved 1F1B": "interleaved", DATA_PARALLEL: "data_parallel",
    ALONE: "one_device",
}  # fmt: skip
"""Contenders and how the simulator calls them; it has no interleaved zero bubble schedules."""
CONSECUTIVE = " (halves)"  #: the placement that is tried beside the planner's
LINK_BYTES = 2**20  #: of a message that the link's rate is measured with


def ours_name(wired: Wired) -> str:
    """What a wiring is called among the contenders."""
    return f"rec-LRA {wired.wiring}" if wired.wiring != "backprop" else "backprop (this engine)"


def alone_name(wired: Wired) -> str:
    """What it is called in one process."""
    return f"{ours_name(wired)} (one process)"


@dataclass(frozen=True)
class Link:
    """What a message between two ranks meets."""

    bytes_per_s: float
    latency_us: float


def measured_link(repeats: int = 40) -> Link:
    """The link between ranks 0 and 1 by messages to and fro; all ranks call it."""
    halves = []
    for count in (1, LINK_BYTES // 4):
        message, times = torch.zeros(count), []
        for _ in range(repeats):
            dist.barrier()
            started = time.perf_counter()
            if dist.get_rank() == 0:
                dist.send(message, 1)
                dist.recv(message, 1)
            elif dist.get_rank() == 1:
                dist.recv(message, 0)
                dist.send(message, 0)
            times.append((time.perf_counter() - started) / 2)
        halves.append(sorted(times)[repeats // 2])
    small, large = halves
    return Link(LINK_BYTES / max(large - small, 1e-9), small * 1e6)


@dataclass(frozen=True)
class Planned:
    """One wiring on the devices with some microbatches, and what is predicted: by measured times, and by FLOPs."""

    name: str
    plan: Plan
    predicted_us: float
    bound: float


class Predictions:
    """A case's plans and predictions; made on one rank, while the others wait."""

    def __init__(self, case: Case, ranks: int, link: Link, microbatches: Sequence[int], rounds: int) -> None:
        self.case, self.ranks = case, ranks
        x, y = case.data()
        few = len(x) // min(microbatches)  # so that samples that are timed are those of microbatches
        self.plain: dict[str, Plan] = {}
        self.time: dict[str, tuple[Time, Time]] = {}
        self.device: dict[str, Device] = {}
        benches = []
        for w in case.wirings:
            options = {"granularity": w.granularity, "loss_fn": loss_fn}
            benches.append(bench(case.build(), x[:few], w.wiring, (x[:few], y[:few]), **options))
            benches[-1].warm_up()
        for _ in range(rounds):  # in turn, so that a drift of the machine is the same for all
            for made in benches:
                made.round()
        for wired, made in zip(case.wirings, benches, strict=True):
            name, found = ours_name(wired), made.measured(torch.device("cpu"))
            plain = plan_for(case.build(), x, wired.wiring, granularity=wired.granularity)
            self.plain[name] = plain
            self.time[name] = time_of(found, plain, True), time_of(found, plain, False)
            self.device[name] = replace(
                found.device, link_bytes_per_s=link.bytes_per_s, link_latency_us=link.latency_us
            )

    def _arranged(self, name: str, count: int, parts: int, rated: bool, pins: Mapping[str, int] | None = None) -> Plan:
        """The plan on `count` devices: priced by measured times, or in FLOPs with links that take no time."""
        device = self.device[name] if rated else Device()
        devices = [replace(device, name=f"cpu:{k}") for k in range(count)]
        time_us = self.time[name][count > 1 or parts > 1] if rated else task_us
        return arrange(self.plain[name], devices, Machine(microbatches=parts, pins=pins or {}), time_us)

    def planned(self, wired: Wired, parts: int, alone: bool = False) -> Planned:
        """A wiring on all ranks, placed by the planner, or on one with the batch as a whole."""
        name, count, parts = ours_name(wired), 1 if alone else self.ranks, 1 if alone else parts
        return self._planned(name, alone_name(wired) if alone else name, count, parts)

    def consecutive(self, wired: Wired, found: Plan, parts: int) -> Planned | None:
        """The same with one stretch of the model on each rank, about equally long; None where `found` is so anyway."""
        of = {p.name: p.target for p in found.pathways}
        work = dict.fromkeys((r for r, _ in found.placement.regions), 0.0)
        for t in found.tasks:
            if (region := of.get(t.subject, t.subject)) in work:
                work[region] += t.us
        edges = balanced(list(work.values()), self.ranks, self.ranks)
        pins = {r: k for k, (a, b) in enumerate(pairwise(edges)) for r in list(work)[a:b]}
        if pins == dict(found.placement.regions):
            return None
        name = ours_name(wired)
        return self._planned(name, f"{name}{CONSECUTIVE}", self.ranks, parts, pins)

    def _planned(self, name: str, label: str, count: int, parts: int, pins: Mapping[str, int] | None = None) -> Planned:
        """A plan, and what it comes to in FLOPs with the same placement."""
        plan = self._arranged(name, count, parts, True, pins)
        flops = self._arranged(name, count, parts, False, dict(plan.placement.regions))
        return Planned(label, plan, plan.simulate().makespan_us, flops.simulate().makespan_us)

    def rivals(self, parts: int) -> dict[str, tuple[float, float]]:
        """Microseconds and FLOPs of a step of backprop's schedules, by the tasks of the wiring `backprop`."""
        name = ours_name(Wired("backprop"))
        anywhere = {r.name: 0 for r in self.plain[name].regions}  # rivals are cut into stages of their own
        found: dict[str, tuple[float, float]] = {}
        for rival, simulated in SIMULATED.items():
            many = {DATA_PARALLEL: self.ranks, ALONE: 1}.get(rival, parts)
            steps = []
            for rated in (True, False):
                plan = self._arranged(name, self.ranks, many, rated, anywhere)
                (step,) = compare(plan, [simulated], self.time[name][1] if rated else task_us)
                steps.append(step.step_us if step.possible else 0.0)
            found[rival] = steps[0], steps[1]
        return found
