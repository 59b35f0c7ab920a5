"""What a placement comes to, quickly: the time of one microbatch, the busiest device, conflicts, bytes per unit.

One walk over the tasks in the plan's order, with messages that occupy the link of the device they leave. Placements
are compared by it in searches; the simulator decides among the few that are left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from reclra_compile.ir import Device, Placement, Plan, Task
from reclra_compile.placement.memory import batch_bytes, microbatch_bytes, peaks, static_bytes
from reclra_compile.placement.pins import Unit
from reclra_compile.placement.times import task_us
from reclra_compile.schedule.comms import communicate, placed
from reclra_compile.schedule.order import frees

Time = Callable[[Task, Device, int], float]


class Estimate:
    """The tasks of a plan by unit, with their times on each kind of device; `plan` has devices and a schedule."""

    def __init__(self, plan: Plan, units: Sequence[Unit], time: Time = task_us) -> None:
        self.plan, self.units, self.devices = plan, units, plan.devices
        self.microbatches = plan.schedule.microbatches
        names = [r.name for r in plan.regions]
        self.unit_of = {names[i]: u for u, unit in enumerate(units) for i in unit.regions}
        home = placed(plan.tasks, self.unit_of, plan.pathways, plan.waves[0][0])  # "devices" are units here
        self.tasks = plan.tasks
        self.owner = [t.device for t in home]
        rates = [replace(d, name="", memory_bytes=0) for d in self.devices]
        self.kinds = {d: k for k, d in enumerate(dict.fromkeys(rates))}
        self.kind_of = [self.kinds[d] for d in rates]
        self.times = [[time(t, d, self.microbatches) for t in self.tasks] for d in self.kinds]
        writer = {v: i for i, t in enumerate(self.tasks) for v in t.writes}
        self.reads = [[(v, writer[v]) for v in dict.fromkeys(t.reads) if v in writer] for t in self.tasks]
        readers: dict[str, list[int]] = defaultdict(list)
        for i, reads in enumerate(self.reads):
            for v, _ in reads:
                readers[v].append(i)
        self.readers = readers
        sizes = batch_bytes(plan)
        self.sent = {v: sizes.get(v, 0) / self.microbatches for v in writer}
        self.writes = [[v for v in t.writes if v in readers] for t in self.tasks]
        waves = {n: w for w, names in enumerate(plan.waves) for n in names}
        self.waves_of = [[waves[names[i]] for i in unit.regions if names[i] in waves] for unit in units]

    @cached_property
    def unit_times(self) -> NDArray[np.float64]:
        """Microseconds that each unit keeps each device busy for one microbatch, (devices, units)."""
        by_kind = np.zeros((len(self.kinds), len(self.units)))
        for k, times in enumerate(self.times):
            np.add.at(by_kind[k], self.owner, times)
        return by_kind[self.kind_of]

    @cached_property
    def unit_bytes(self) -> NDArray[np.float64]:
        """Bytes that each unit surely takes at the end of one microbatch's forward pass: weights, synapses, and what
        its own tasks read later.
        """
        alone = tuple(Device() for _ in self.units)
        where = tuple((r.name, self.unit_of[r.name]) for r in self.plan.regions)
        apart = replace(self.plan, devices=alone, placement=Placement(where), tasks=())
        found = np.array(static_bytes(apart), dtype=np.float64)
        sizes = microbatch_bytes(self.plan)
        for i, t in enumerate(self.tasks):
            if t.kind == "F":
                later = {v for v in t.writes for k in self.readers.get(v, ())
                         if self.tasks[k].kind != "F" and self.owner[k] == self.owner[i]}  # fmt: skip
                found[self.owner[i]] += sum(sizes.get(v, 0) for v in later)
        return found

    def step_us(self, where: Sequence[int]) -> float:
        """Microseconds of a step with unit u on device where[u]: one microbatch, and the busiest device's time for
        each further one.
        """
        latency, busiest = self.walk(where)
        return latency + (self.microbatches - 1) * busiest

    def walk(self, where: Sequence[int]) -> tuple[float, float]:
        """Microseconds of one microbatch alone, and those that the busiest device or link works for it."""
        count = len(self.devices)
        on = [where[u] for u in self.owner]
        free, port, busy, link = ([0.0] * count for _ in range(4))
        end = [0.0] * len(on)
        arrived: dict[tuple[str, int], float] = {}
        for i, d in enumerate(on):
            start = free[d]
            for v, w in self.reads[i]:
                ready = end[w] if on[w] == d else arrived[v, d]
                if ready > start:
                    start = ready
            took = self.times[self.kind_of[d]][i]
            busy[d] += took
            end[i] = free[d] = start + took
            for v in self.writes[i]:
                for there in sorted({on[k] for k in self.readers[v]} - {d}):
                    device = self.devices[d]
                    takes = self.sent[v] / device.link_bytes_per_s * 1e6 if device.link_bytes_per_s else 0.0
                    link[d] += takes
                    port[d] = max(port[d], end[i]) + takes
                    arrived[v, there] = port[d] + device.link_latency_us
        return max(max(free), 0.0), max(*busy, *link)

    def conflicts(self, where: Sequence[int]) -> int:
        """Regions that share their device with another region of their wave, the first of each not counted."""
        seen: set[tuple[int, int]] = set()
        count = 0
        for u, waves in enumerate(self.waves_of):
            for w in waves:
                count += (w, where[u]) in seen
                seen.add((w, where[u]))
        return count

    def messages(self, where: Sequence[int]) -> int:
        """Values that are sent, each counted once for every device that it is sent to."""
        owners = self.owner
        sent = {(v, where[owners[i]]) for i, reads in enumerate(self.reads) for v, k in reads
                if where[owners[k]] != where[owners[i]]}  # fmt: skip
        return len(sent)

    def by_region(self, where: Sequence[int]) -> dict[str, int]:
        """The device of each region, in the model's order."""
        return {r.name: where[self.unit_of[r.name]] for r in self.plan.regions}

    def needs(self, where: Sequence[int]) -> tuple[int, ...]:
        """The least that each device needs: its peak where microbatches follow each other one by one, in bytes."""
        regions = self.by_region(where)
        tasks = placed(self.plan.tasks, regions, self.plan.pathways, self.plan.waves[0][0])
        tasks = frees(communicate(tasks, defaultdict(int)))
        placement = Placement(tuple(regions.items()))
        return peaks(replace(self.plan, tasks=tasks, placement=placement))
