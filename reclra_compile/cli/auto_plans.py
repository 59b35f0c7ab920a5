"""Plans of what a chosen wiring is compared with: other depths, groups, and backpropagation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reclra_compile.auto.report import Alternative, Report
from reclra_compile.auto.runs import Run, error_of
from reclra_compile.auto.settings import asked_of
from reclra_compile.errors import CostError, ReclraError
from reclra_compile.frontend.cut import Cut, Ground, survey
from reclra_compile.frontend.measure import measure
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.trace import trace
from reclra_compile.ir import Plan
from reclra_compile.machine import Machine
from reclra_compile.planning import Unreached, WiringSource, designed, make_plan
from reclra_compile.simulate.events import simulate
from reclra_compile.spec.blocks import blocks
from reclra_compile.spec.divide import with_granularity
from reclra_compile.spec.load import Loaded

UNMEASURED = "not profiled"  #: what is said of a wiring where times are measured ones, but not its own
MOST_WORK = 40_000  #: regions × devices × microbatches up to which alternatives are planned and simulated


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of the chosen wiring, the wiring's text, and the report with its alternatives."""

    plan: Plan
    text: str
    report: Report


def planned(
    model: Any, inputs: Any, asked: Loaded, granularity: str | None, output: str | None, unreached: Unreached,
    machine: Machine, runs: Sequence[Run],
) -> Planned:  # fmt: skip
    """Plan the wiring that section `auto` asks for, and what it is compared with, with one trace of the model."""
    ground = survey(trace(model, inputs, output))
    found = layers(ground)
    loaded = with_granularity(asked, granularity)
    made = designed(ground, found, loaded, machine)
    plan, _ = make_plan(ground, found, made.loaded, None, unreached, made.machine)
    work = len(found) * len(plan.devices) * plan.schedule.microbatches
    rows = [_measured(_chosen(made.report), plan, runs)]
    if work <= MOST_WORK:
        rows += _others(ground, found, loaded, unreached, made.machine, made.report, runs, plan)
    else:
        rows += [a for a in made.report.alternatives if not a.chosen]
    rows.sort(key=_order)
    return Planned(plan, made.text, replace(made.report, alternatives=tuple(rows)))


def _order(a: Alternative) -> tuple[int, int]:
    """Depths, then groups, then backpropagation."""
    kind, *number = a.label.split(",")[0].split()
    return ("depth", "groups", "backprop").index(kind), int(number[0]) if number else 0


def _chosen(report: Report) -> Alternative:
    return next(a for a in report.alternatives if a.chosen)


def _others(
    ground: Ground, found: tuple[Cut, ...], loaded: Loaded, unreached: Unreached, machine: Machine, report: Report,
    runs: Sequence[Run], chosen: Plan,
) -> Iterator[Alternative]:  # fmt: skip
    """The other depths, groups and backpropagation; what cannot be is left out."""
    spec = asked_of(loaded)
    assert spec is not None
    for other in _requests(ground, found, report):
        count = other.get("groups", report.devices)
        on = machine if count >= report.devices else _fewer(machine, count)
        if on is None:
            continue
        said = {**other, "synapse_memory": None if "groups" in other else spec.synapse_memory}
        wiring = loaded.wiring.model_copy(update={"auto": spec.model_validate({k: v for k, v in said.items() if v})})
        try:
            made = designed(ground, found, replace(loaded, wiring=wiring), on)
            plan, known = _plan(ground, found, made.loaded, None, unreached, made.machine)
        except ReclraError:
            continue
        notes = (f"on {count} devices" if on is not machine else "", "" if known else UNMEASURED)
        alternative = replace(_chosen(made.report), chosen=False, note=", ".join(filter(None, notes)))
        if alternative.label not in {a.label for a in report.alternatives if a.chosen}:
            yield _measured(alternative, plan, runs, known)
    kind = "block" if any(r.layers for r in chosen.regions) else "layer"
    try:  # runs of layers and of blocks are runs of the same computation
        plans = [_plan(ground, found, "backprop", g, unreached, machine) for g in dict.fromkeys((kind, "layer"))]
    except ReclraError:
        return
    rows = [
        _measured(Alternative("backprop", len(p.waves) - 1, None, 0, note="" if known else UNMEASURED), p, runs, known)
        for p, known in plans
    ]
    ran = next((r for r in rows if r.runs), rows[0])
    yield replace(rows[0], error=ran.error, runs=ran.runs)


def _plan(
    ground: Ground, found: tuple[Cut, ...], wiring: WiringSource, granularity: str | None, unreached: Unreached,
    machine: Machine,
) -> tuple[Plan, bool]:  # fmt: skip
    """The plan, and true; for the preset's devices, and false, where its times are to be measured ones and are not."""
    try:
        return make_plan(ground, found, wiring, granularity, unreached, machine)[0], True
    except CostError as error:
        if {f.code for f in error.faults} != {"C005"}:
            raise
    return make_plan(ground, found, wiring, granularity, unreached, replace(machine, profile=None))[0], False


def _fewer(machine: Machine, count: int) -> Machine | None:
    """The machine with `count` devices of the same kind; None where its devices are listed one by one."""
    same = re.fullmatch(r"(?:([A-Za-z_][\w.-]*):)?\d+", str(machine.devices).strip())
    return replace(machine, devices=f"{same[1]}:{count}" if same[1] else count) if same else None


def _requests(ground: Ground, found: tuple[Cut, ...], report: Report) -> list[dict[str, int]]:
    waves = {a.waves for a in report.alternatives if a.chosen and a.label.startswith("depth")}
    asked = [{"depth": d} for d in (1, 2) if d not in waves]
    output = next(c.name for c in found if ground.output in c.nodes)
    most = len(blocks(measure(ground.traced, found), output))
    return asked + [{"groups": k} for k in sorted({2, 4, report.devices}) if 2 <= k <= most]


def _measured(alternative: Alternative, plan: Plan, runs: Sequence[Run], known: bool = True) -> Alternative:
    """With the simulated time of a step, where the plan has times and they are `known`, and the error of its runs."""
    step = simulate(plan).makespan_us if known and any(t.us for t in plan.tasks) else None
    error, count = error_of(plan, runs)
    return replace(alternative, step_us=step, error=error, runs=count, synapse_bytes=plan.cost.synapse_bytes)
