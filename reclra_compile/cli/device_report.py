"""What a plan comes to on its devices: the compile report's last table, and the same as data."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from reclra_compile.cli.tables import NAME, NUMBER, TEXT, Row, table
from reclra_compile.ir import Plan
from reclra_compile.placement.faults import size
from reclra_compile.placement.times import unit_of
from reclra_compile.simulate.events import period_us, simulate
from reclra_compile.view.label import time_text

SHOWN = 6  #: regions of a device that are named


def on_devices(plan: Plan) -> bool:
    """True where the plan was made for devices, so that its tasks have times."""
    return any(t.us for t in plan.tasks)


def device_table(plan: Plan, room: int | None) -> Table:
    """Each device with its regions, how long it computes in a step, and the most bytes that live on it."""
    step, unit = simulate(plan), unit_of(plan.devices)
    limited = any(d.memory_bytes for d in plan.devices)
    columns = [("device", NAME), ("profile", TEXT), ("regions", TEXT), ("busy", NUMBER), ("of step", NUMBER),
               ("memory", NUMBER), *([("of", NUMBER)] if limited else [])]  # fmt: skip
    rows: list[Row] = []
    for d, device in enumerate(plan.devices):
        peak = plan.placement.peak_bytes[d] if plan.placement.peak_bytes else 0
        share = step.busy_us[d] / step.makespan_us if step.makespan_us else 0.0
        here = [n for n, at in plan.placement.regions if at == d]
        memory = [size(device.memory_bytes) if device.memory_bytes else "any"] if limited else []
        busy = time_text(step.busy_us[d], unit)
        rows.append((device.name, device.kind, _named(here), busy, f"{share:.0%}", size(peak), *memory))
    parts = plan.schedule.microbatches
    title = f"{len(rows)} device{'s' * (len(rows) > 1)}, {parts} microbatch{'es' * (parts > 1)}"
    made = table(title, columns, rows, None, room)
    made.columns[2].no_wrap = False
    return made


def step_line(plan: Plan) -> str:
    """One sentence: how long a step is predicted to take, and how busy the devices are."""
    step, unit = simulate(plan), unit_of(plan.devices)
    text = f"predicted step: {time_text(step.makespan_us, unit)}, devices busy {step.utilisation:.0%} of it"
    if plan.schedule.staleness:
        text += f"; {time_text(period_us(plan), unit)} where steps overlap (staleness 1)"
    return text


def devices_dict(plan: Plan) -> dict[str, Any]:
    """The same as plain data: devices with their work, microbatches, staleness, and the predicted step."""
    step = simulate(plan)
    return {
        "microbatches": plan.schedule.microbatches,
        "staleness": plan.schedule.staleness,
        "unit": unit_of(plan.devices),
        "step_us": step.makespan_us,
        "period_us": period_us(plan) if plan.schedule.staleness else step.makespan_us,
        "utilisation": step.utilisation,
        "devices": [
            {
                "name": device.name,
                "profile": device.kind,
                "busy_us": step.busy_us[d],
                "link_us": step.link_us[d],
                "peak_bytes": plan.placement.peak_bytes[d] if plan.placement.peak_bytes else None,
                "memory_bytes": device.memory_bytes or None,
            }
            for d, device in enumerate(plan.devices)
        ],
    }


def _named(regions: list[str]) -> str:
    if len(regions) <= SHOWN:
        return ", ".join(regions)
    return f"{', '.join(regions[: SHOWN - 1])} … {regions[-1]} ({len(regions)})"
