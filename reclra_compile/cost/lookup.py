"""What a plan's devices are and how long its tasks take there, by `--device-profile`: measured times or rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reclra_compile.cost.files import is_measured, kept, read_measured
from reclra_compile.cost.measured import KIND, Measured, Time, host, time_of
from reclra_compile.errors import Notice
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.devices import parse_devices
from reclra_compile.placement.times import task_us


def priced(plan: Plan, machine: Machine, dtype: str) -> tuple[Plan, tuple[Device, ...], Time]:
    """The plan, the devices that `machine` asks for, and what a task costs on them.

    With profile "measured" the times come from the cache, with a file of measured times from there. Such a file may be
    another model's: then its fitted rates are used, and the plan gets a warning. Raises PlacementError (N001–N003) and
    CostError (C001–C005).
    """
    measured = measured_for(plan, machine, dtype)
    if measured is None:
        return plan, machine.named(dtype), task_us
    asked = 1 if machine.devices is None else machine.devices
    assert isinstance(asked, int | str)
    devices = _numbered(parse_devices(asked, measured.device, dtype, machine.memory), measured.device.name)
    if not measured.of(plan):
        same = measured.fingerprint == plan.fingerprint
        rest = "all but the tasks that they share is" if same else "those of this model are"
        warning = Notice(
            f"the times were measured on {measured.model} with wiring '{measured.wiring}': "
            f"{rest} predicted from the rates fitted to them",
            "C101",
        )
        plan = replace(plan, warnings=(*plan.warnings, warning))
    alone = len(devices) == 1 and (machine.microbatches or 1) == 1
    return plan, devices, time_of(measured, plan, alone)


def measured_for(plan: Plan, machine: Machine, dtype: str) -> Measured | None:
    """The measured times that `machine` names; None where it names none."""
    if machine.profile is None or not isinstance(machine.devices, int | str | None):
        return None
    if machine.profile == KIND:
        word = str(machine.devices).partition(":")[0].strip()
        return kept(plan, host(), dtype, {"cpu": "cpu", "cuda": "cuda", "gpu": "cuda"}.get(word))
    return read_measured(machine.profile) if is_measured(machine.profile) else None


def _numbered(devices: Sequence[Device], stem: str) -> tuple[Device, ...]:
    """Measured devices by the name of what they are: cpu:0, cpu:1, …"""
    taken = {d.name for d in devices if d.kind != KIND}
    names = (name for k in range(2 * len(devices) + 1) if (name := f"{stem}:{k}") not in taken)
    return tuple(replace(d, name=next(names)) if d.kind == KIND else d for d in devices)
