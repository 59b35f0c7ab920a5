"""What backprop costs on a plan's devices: the model in consecutive stages, priced as the plan's own tasks are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from reclra_compile.ir import Device, Plan, Region, Task
from reclra_compile.placement.memory import STATE, inputs_bytes, weight_bytes
from reclra_compile.placement.partition import Chain, cut
from reclra_compile.placement.times import task_us
from reclra_compile.simulate.stages import Link, Stage

Time = Callable[[Task, Device, int], float]
_STEPS = 100  #: halvings of an interval of floats, until it cannot be halved


@dataclass(frozen=True, slots=True)
class Price:
    """One region's forward pass, input gradient, weight gradient, and both gradients in one call, in µs."""

    forward_us: float
    input_us: float
    weight_us: float
    both_us: float

    @property
    def total_us(self) -> float:
        """A forward and a backward pass."""
        return self.forward_us + self.both_us


def links_of(devices: Sequence[Device]) -> tuple[Link, ...]:
    """The links that leave the devices."""
    return tuple(Link(d.link_bytes_per_s, d.link_latency_us) for d in devices)


class Prices:
    """Backprop's work of each region on each device; one microbatch.

    `time` gives the microseconds of a task. Where the plan's own times differ (they were measured), each region's are
    scaled by as much: its forward pass as that of its F, its gradients as those of its U.
    """

    def __init__(self, plan: Plan, time: Time = task_us) -> None:
        self.plan, self.time, self.parts = plan, time, plan.schedule.microbatches
        self.factor: dict[tuple[str, str], float] = {}
        self.loss_us = 0.0
        for t in plan.tasks:
            if t.kind in "FU":
                guess = time(t, plan.devices[t.device], self.parts)
                self.factor[t.kind, t.subject] = t.us / guess if guess and t.us else 1.0
            elif t.kind == "L":
                self.loss_us = t.us
        self.given = {name for name, _, _ in plan.inputs}

    def factor_of(self, task: Task) -> float:
        """How many times longer than `time` says the plan's own task of this kind and subject takes."""
        return self.factor.get((task.kind, task.subject), 1.0)

    def of(self, region: Region, device: Device, parts: int = 0) -> Price:
        """What `region` costs on `device`, with a batch in `parts` microbatches (0: as many as the plan has)."""

        def us(kind: str, flops: int, bytes_: int, needed: bool = True) -> float:
            if not needed or not (flops or bytes_):
                return 0.0
            task = Task(kind, region.name, (), flops=flops, bytes=bytes_)
            return self.time(task, device, parts or self.parts) * self.factor_of(task)

        weight, inputs = region.learns, not set(region.inputs) <= self.given
        return Price(
            us("F", region.forward_flops, region.forward_bytes),
            us("U", region.input_flops, region.input_bytes, inputs),
            us("U", region.weight_flops, region.weight_bytes, weight),
            us("U", region.weight_flops * weight + region.input_flops * inputs,
               region.weight_bytes * weight + region.input_bytes * inputs),
        )  # fmt: skip


def kind_of(device: Device) -> Device:
    """The device without what does not change a task's time."""
    return replace(device, name="", memory_bytes=0)


def stages(
    plan: Plan, count: int, devices: Sequence[Device], time: Time = task_us, parts: int = 0, share: int = 1
) -> tuple[Stage, ...]:
    """The model in `count` consecutive stages, stage k on device k mod len(devices), the longest as short as can be.

    They cost what one of `parts` microbatches costs (0: as many as the plan has), and hold the inputs of a `share`-th
    of the batch.
    """
    prices, regions, many = Prices(plan, time), plan.regions, parts or plan.schedule.microbatches
    on = [kind_of(devices[k % len(devices)]) for k in range(count)]
    table = {d: [prices.of(r, d, many) for r in regions] for d in dict.fromkeys(on)}
    cuts = _cuts([[p.total_us for p in table[d]] for d in on], len(table) == 1)
    crossing = _crossing(plan, cuts)
    copies, given = 2 + STATE.get(plan.training.optimizer, 2), inputs_bytes(plan)
    made: list[Stage] = []
    held: set[tuple[str, int]] = set()
    for k, (begin, end) in enumerate(pairwise(cuts)):
        mine, here = table[on[k]][begin:end], regions[begin:end]
        weights = sum(weight_bytes(r) for r in here if r.learns)
        kept = sum(r.saved_bytes + r.z_bytes * (1 + r.tail) + sum(r.output_bytes or (r.z_bytes,)) for r in here)
        arriving = crossing[k - 1] if k else 0
        reads = {(v, k % len(devices)) for r in here for v in r.inputs if v in given} - held
        held |= reads  # the batch's inputs stay on each device that reads them
        made.append(Stage(
            forward_us=sum(p.forward_us for p in mine) + (prices.loss_us if k == count - 1 else 0.0),
            input_us=sum(p.input_us for p in mine),
            weight_us=sum(p.weight_us for p in mine),
            backward_us=sum(p.both_us for p in mine),
            activation_bytes=(kept + arriving) / many,
            message_bytes=crossing[k] / many,
            static_bytes=weights * copies + sum(weight_bytes(r) for r in here if not r.learns)
            + sum(given[v] for v, _ in reads) / share,
            gradient_bytes=weights,
        ))  # fmt: skip
    return tuple(made)


def _cuts(times: Sequence[Sequence[float]], alike: bool) -> tuple[int, ...]:
    """Where each stage begins, and the end: len(times) parts, none of them empty."""
    count, items = len(times), len(times[0])
    if not alike:
        free = np.zeros(count)
        chain = Chain(np.array(times), np.zeros((count, items)), np.full(count, np.inf), free, free,
                      np.ones((count, items), bool))  # fmt: skip
        found = cut(chain)
        assert found is not None, "without limits there is always a cut"
        return found
    low, high = max(times[0]), math.fsum(times[0])
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (low, middle) if _parts(times[0], middle) <= count else (middle, high)
    return _filled(times[0], high * (1 + 1e-12), count)


def _parts(times: Sequence[float], limit: float) -> int:
    parts, used = 1, 0.0
    for t in times:
        used += t
        if used > limit:
            parts, used = parts + 1, t
    return parts


def _filled(times: Sequence[float], limit: float, count: int) -> tuple[int, ...]:
    """Parts filled up to `limit` one after the other, as long as enough items are left for the rest."""
    cuts, used = [0], 0.0
    for k, t in enumerate(times):
        rest = count - len(cuts)
        if k > cuts[-1] and rest and (used + t > limit or len(times) - k <= rest):
            cuts.append(k)
            used = 0.0
        used += t
    return (*cuts, len(times))


def _crossing(plan: Plan, cuts: Sequence[int]) -> list[int]:
    """Bytes that cross the end of each stage: values made before it and read after it, relayed from stage to stage."""
    made: dict[str, tuple[int, int]] = {}
    last: dict[str, int] = {}
    for k, r in enumerate(plan.regions):
        sizes = r.output_bytes or (r.z_bytes,) * len(r.outputs)
        made.update({v: (k, b) for v, b in zip(r.outputs, sizes, strict=False)})
        last.update(dict.fromkeys(r.inputs, k))
    change = [0] * (len(plan.regions) + 2)
    for v, (k, bytes_) in made.items():  # it is on the way from the region after k up to its last reader
        if last.get(v, k) > k:
            change[k + 1] += bytes_
            change[last[v] + 1] -= bytes_
    total = np.cumsum(change)
    return [int(total[end]) for end in cuts[1:]]
