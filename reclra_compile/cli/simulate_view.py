"""A simulated step as people and programs see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress

from reclra_compile.cli.device_report import devices_dict
from reclra_compile.cli.errors import Faults
from reclra_compile.cli.options import machine_of
from reclra_compile.cli.plan_file import read_plan
from reclra_compile.cli.report import console, note, print_report, print_warning, room_of
from reclra_compile.cli.tables import NAME, NUMBER, TEXT, Row, table
from reclra_compile.errors import Fault, UserError
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.faults import size
from reclra_compile.placement.times import unit_of
from reclra_compile.simulate.chart import Chart, plan_chart, rival_chart
from reclra_compile.simulate.compare import TITLES, Compared, compare, names_of, rival_of
from reclra_compile.simulate.events import Simulation, period_us, simulate
from reclra_compile.simulate.findings import findings
from reclra_compile.simulate.plot import points_file, write_sweep
from reclra_compile.simulate.retarget import retargeted
from reclra_compile.simulate.sweep import Grid, break_evens, points, sizes
from reclra_compile.simulate.timeline import FORMATS, write_timeline
from reclra_compile.simulate.trace import write_trace
from reclra_compile.verify import verify
from reclra_compile.view.draw import check_suffix
from reclra_compile.view.label import time_text

SHOWN = 16  #: devices that a table names


def carry_out(file: str, options: dict[str, Any]) -> str | None:
    """Do what the command line asks for; returns JSON where that is wanted. Raises UserError and PlanError."""
    faults = Faults()
    machine, names, given = Machine(), tuple[str, ...](), None
    with faults.collected():
        machine = machine_of(options)
        if machine.profile != "measured":
            machine.named("float32")  # what is wrong with them is said together with all else
    with faults.collected():
        names = names_of(options["compare"]) if options["compare"] else ()
    with faults.collected():
        for key in ("timeline", "sweep"):
            if options[key]:
                check_suffix(Path(options[key]), FORMATS)
    with faults.collected():
        _apart(file, options)
    with faults.collected():
        given = verify(read_plan(file), foreign=True)
    faults.report()
    assert given is not None
    plan = retargeted(given, machine, options["batch"])
    warnings = plan.warnings if plan is given else ()  # they are about the batch and microbatches as they were
    step = simulate(plan)
    row_us = period_us(plan, step)
    rivals = compare(plan, names)
    written = _write(step, names, options)
    if options["as_json"]:
        said = {"warnings": [w.message for w in warnings], "warning_codes": [w.code for w in warnings]}
        data = {**_data(plan, step, row_us, rivals), **said}
        return json.dumps(data, indent=2, ensure_ascii=False)

    def draw(out: Console) -> None:
        _draw(out, step, row_us, rivals)

    print_report(draw)
    for warning in warnings:
        print_warning(warning)
    for line in written:
        note(line)
    return None


def _apart(file: str, options: dict[str, Any]) -> None:
    """Raise UserError (S005) where two files to write, or one of them and the plan, are the same."""
    taken = {Path(file).resolve(): "the plan"}
    same = []
    for key in ("trace", "timeline", "sweep"):
        if not options[key]:
            continue
        path, what = Path(options[key]), f"--{key}"
        beside = [(points_file(path), f"the points of {what}")] if key == "sweep" else []
        for written, name in ((path, what), *beside):
            before = taken.setdefault(written.resolve(), name)
            if before != name:
                same.append(Fault("S005", f"{name} would overwrite {before}: both are {written}",
                                  fix="give each file a name of its own"))  # fmt: skip
    if same:
        raise UserError(same)


def _write(step: Simulation, names: Sequence[str], options: dict[str, Any]) -> list[str]:
    lines = []
    if options["trace"]:
        shown, many = write_trace(step, options["trace"]), step.plan.schedule.microbatches
        part = f" of the first {shown} of {many} microbatches" if shown < many else ""
        lines.append(f"trace{part} written to {options['trace']}")
    if options["timeline"]:
        write_timeline(_charts(step, names), options["timeline"])
        lines.append(f"timeline written to {options['timeline']}")
    if options["sweep"]:
        lines += _sweep(step.plan, options["sweep"])
    return lines


def _sweep(plan: Plan, file: str) -> list[str]:
    """Draw the sweep; what it shows, and where it is."""
    grid = Grid()
    progress = Progress("{task.description}", BarColumn(), "{task.completed} of {task.total}",
                        console=console(stderr=True), transient=True)  # fmt: skip
    with progress:
        bar = progress.add_task("sweep", total=sizes(grid))
        found = list(points(plan, grid, tick=lambda: progress.advance(bar)))
        even = list(break_evens(plan, grid, tick=lambda: progress.advance(bar)))
    beside = write_sweep(f"{plan.name} on {plan.model} in equal parts, {plan.devices[0].kind}", found, even, file)
    return ["", *findings(found, even), f"sweep written to {file}, its points to {beside}"]


def _charts(step: Simulation, names: Sequence[str]) -> list[Chart]:
    """The plan's step, and below it those of the schedules that are pipelines."""
    charts = [plan_chart(step, f"{step.plan.name} on {step.plan.model}")]
    for name in names:
        rival = rival_of(step.plan, name)
        if rival is not None:
            charts.append(replace(rival_chart(rival, f"backprop, {TITLES[name]}"), unit=charts[0].unit))
    return charts


def _draw(out: Console, step: Simulation, row_us: float, rivals: Sequence[Compared]) -> None:
    plan, unit = step.plan, unit_of(step.plan.devices)
    parts, count = plan.schedule.microbatches, len(plan.devices)
    out.print(
        f"[bold]{escape(plan.name)}[/] on {escape(plan.model)}: batch {plan.batch} in "
        f"{parts} microbatch{'es' * (parts > 1)}, {count} device{'s' * (count > 1)}", soft_wrap=True,
    )  # fmt: skip
    line = f"one step: {time_text(step.makespan_us, unit)}, devices busy {step.utilisation:.0%} of it"
    if plan.schedule.staleness:
        line += f"; {time_text(row_us, unit)} where steps overlap (staleness 1)"
    out.print(line, soft_wrap=True)
    out.print()
    out.print(_devices(step, room_of(out)))
    if rivals:
        out.print()
        out.print(_rivals(step, row_us, rivals, room_of(out)))
        for c in rivals:
            if c.note:
                out.print(f"{TITLES[c.name]}: {c.note}", soft_wrap=True)


def _devices(step: Simulation, room: int | None) -> Any:
    plan, busy, idle, link = step.plan, step.busy_us, step.idle_us, step.link_us
    whole, unit = step.makespan_us or 1.0, unit_of(plan.devices)
    shown = range(len(busy)) if len(busy) <= SHOWN else [*range(SHOWN // 2), *range(len(busy) - SHOWN // 2, len(busy))]

    def row(d: int) -> Row:
        device, peak = plan.devices[d], step.peak_bytes[d] if step.peak_bytes else 0
        room_there = f"{peak / device.memory_bytes:.0%}" if device.memory_bytes else "–"
        return (device.name, device.kind, time_text(busy[d], unit), f"{busy[d] / whole:.0%}", time_text(idle[d], unit),
                f"{link[d] / whole:.0%}", size(peak), room_there)  # fmt: skip

    columns = [("device", NAME), ("profile", TEXT), ("busy", NUMBER), ("of step", NUMBER), ("waits", NUMBER),
               ("link busy", NUMBER), ("peak memory", NUMBER), ("of it", NUMBER)]  # fmt: skip
    rows: list[Row] = [row(d) for d in shown]
    if len(busy) > SHOWN:
        rows.insert(SHOWN // 2, (f"… {len(busy) - SHOWN} more", *[""] * (len(columns) - 1)))
    return table("devices", columns, rows, None, room)


def _rivals(step: Simulation, row_us: float, rivals: Sequence[Compared], room: int | None) -> Any:
    """Times of a step, alone and in a row, beside those of the plan: × above 1 are slower than the plan."""
    peak, unit = max(step.peak_bytes, default=0), unit_of(step.plan.devices)
    one, row = time_text(step.makespan_us, unit), time_text(row_us, unit)
    own = (one, row, "1.00", f"{_share(step, row_us):.0%}", size(peak))
    rows: list[Row] = [("this plan", *own, "yes" if _fits(step) else "no")]
    for c in rivals:
        if c.possible:
            rows.append((TITLES[c.name], time_text(c.step_us, unit), time_text(c.row_us, unit),
                         f"{c.row_us / row_us:.2f}" if row_us else "–", f"{c.utilisation:.0%}", size(c.peak_bytes),
                         "yes" if c.fits else "no"))  # fmt: skip
        else:
            rows.append((TITLES[c.name], "–", "–", "–", "–", "–", "–"))
    columns = [("backprop on the same costs", TEXT), ("one step", NUMBER), ("in a row", NUMBER), ("× plan", NUMBER),
               ("busy", NUMBER), ("peak memory", NUMBER), ("fits", TEXT)]  # fmt: skip
    return table("compared with backprop's schedules", columns, rows, None, room)


def _share(step: Simulation, row_us: float) -> float:
    """Busy share of all devices where steps follow each other."""
    return sum(step.busy_us) / (row_us * step.devices) if row_us else 1.0


def _fits(step: Simulation) -> bool:
    pairs = zip(step.plan.devices, step.peak_bytes, strict=False)
    return all(not d.memory_bytes or p <= d.memory_bytes for d, p in pairs)


def _data(plan: Plan, step: Simulation, row_us: float, rivals: Sequence[Compared]) -> dict[str, Any]:
    return {
        "version": 1,
        "plan": plan.name,
        "model": plan.model,
        "batch": plan.batch,
        **devices_dict(plan),
        "row_us": row_us,
        "compared": [
            {
                "name": c.name,
                "step_us": c.step_us or None,
                "row_us": c.row_us or None,
                "ratio": c.row_us / row_us if c.possible and row_us else None,
                "utilisation": c.utilisation if c.possible else None,
                "peak_bytes": c.peak_bytes if c.possible else None,
                "fits": c.fits if c.possible else None,
                "note": c.note or None,
            }
            for c in rivals
        ],
    }
