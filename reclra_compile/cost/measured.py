"""What `reclra-compile profile` has measured, and how long a task takes by it."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from reclra_compile.cost.fit import Line
from reclra_compile.ir import Device, Plan, Task
from reclra_compile.placement.times import task_us

KIND = "measured"  #: `Device.kind` of a device whose rates were fitted, and the profile that asks for it
Time = Callable[[Task, Device, int], float]


@dataclass(frozen=True, slots=True)
class TaskTime:
    """One task's FLOPs and bytes for the batch, and its time: where one device runs the batch as a whole (`alone`), and
    where microbatches or several devices keep small weight updates from being joined (`apart`).
    """

    flops: int
    bytes: int
    alone: Line
    apart: Line


@dataclass(frozen=True, slots=True)
class Measured:
    """Times of a plan's tasks on one machine, by id, and the rates that explain them.

    `fingerprint` is the model's, `work` that of what the wiring asks for; `samples` are the batches that were timed,
    `step_us` whole steps by their samples. `device` has the fitted rates; `host` and `processor` say where it was,
    `threads` and `torch` how.
    """

    fingerprint: str
    work: str
    model: str
    wiring: str
    batch: int
    samples: tuple[int, ...]
    device: Device
    host: str
    processor: str
    threads: int
    torch: str
    dtype: str
    step_us: Mapping[int, float] = field(default_factory=dict)
    tasks: Mapping[str, TaskTime] = field(default_factory=dict)

    def of(self, plan: Plan) -> bool:
        """True where it was this model and this wiring that was measured."""
        return self.fingerprint == plan.fingerprint and self.work == work_of(plan)


def work_of(plan: Plan) -> str:
    """Twelve hex digits for what a wiring asks of a model, whatever the batch and the devices."""
    pathways = [replace(p, flops=0, update_flops=0, reason="") for p in plan.pathways]
    facts = repr((plan.fingerprint, sorted(map(repr, plan.targets)), sorted(map(repr, pathways))))
    return "w" + hashlib.sha256(facts.encode()).hexdigest()[:12]


def time_of(measured: Measured, plan: Plan, alone: bool | None = None) -> Time:
    """The microseconds of a task of `plan`: as measured where this task was, by the roofline elsewhere.

    A task was measured where model, id, and FLOPs and bytes per sample agree and the device is of the measured kind;
    `alone` (what the plan's own devices and microbatches say where it is None) chooses between the two times that it
    has. A microbatch has batch ÷ microbatches samples.
    """
    if alone is None:
        alone = len(plan.devices) == 1 and plan.schedule.microbatches == 1
    known = measured.tasks if measured.fingerprint == plan.fingerprint else {}

    def time(task: Task, device: Device, microbatches: int = 1) -> float:
        found = known.get(task.id) if device.kind == KIND else None
        if found is None or not _same(found, measured.batch, task, plan.batch):
            return task_us(task, device, microbatches)
        return (found.alone if alone else found.apart).us(plan.batch / microbatches)

    return time


def _same(found: TaskTime, batch: int, task: Task, samples: int) -> bool:
    """True for the same work; what grows with the batch does so by its samples, what does not is equal as it is."""
    if samples == batch:
        return (found.flops, found.bytes) == (task.flops, task.bytes)
    low, high = sorted((1.0, samples / batch))
    pairs = ((found.flops, task.flops), (found.bytes, task.bytes))
    return all(0.99 * a * low <= b <= 1.01 * a * high for a, b in pairs)


def host() -> str:
    """The processor of this computer and its number of cores; what times are measured on is looked up by it."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        name = name or "unknown"
    return f"{name} ({os.cpu_count() or 1} cores)"
