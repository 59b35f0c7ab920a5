"""How long a task takes on a device, by the roofline: the slower of its arithmetic and its memory traffic."""

from __future__ import annotations

from collections.abc import Iterable

from reclra_compile.ir import Device, Task


def unit_of(devices: Iterable[Device]) -> str:
    """What the times of tasks on these devices are in: "us", or "flops" where none of them has a rate."""
    return "us" if any(d.flops_per_s or d.bytes_per_s for d in devices) else "flops"


def task_us(task: Task, device: Device, microbatches: int = 1) -> float:
    """Microseconds of one microbatch of `task` on `device`; a message (P) is what its link is occupied for.

    Where neither arithmetic nor memory has a rate, a FLOP counts as a microsecond. Receiving and freeing take no time,
    and so does what neither computes nor moves anything.
    """
    if task.kind in "RX" or not (task.flops or task.bytes):
        return 0.0
    moved = task.bytes / microbatches
    if task.kind == "P":
        return moved / device.link_bytes_per_s * 1e6 if device.link_bytes_per_s else 0.0
    flops = task.flops / microbatches
    if not device.flops_per_s and not device.bytes_per_s:
        return flops + device.task_us
    arithmetic = flops / device.flops_per_s * 1e6 if device.flops_per_s else 0.0
    traffic = moved / device.bytes_per_s * 1e6 if device.bytes_per_s else 0.0
    return max(arithmetic, traffic) + device.task_us
