"""Design a wiring: request and measured model in, explicit wiring, its text and a report out. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reclra_compile.auto.ask import Ask
from reclra_compile.auto.choose import Choice, choices
from reclra_compile.auto.cost import Kernels, Rates, rates_of
from reclra_compile.auto.entries import entries_of, relays_of, waves_of
from reclra_compile.auto.report import Alternative, Report, amount, byte_text
from reclra_compile.auto.settings import (
    asked_of,
    base_of,
    devices_of,
    machine_for,
    sections_of,
    with_regions,
)
from reclra_compile.auto.write import Entry, sources, yaml_text
from reclra_compile.errors import Fault, WiringError
from reclra_compile.ir import Region
from reclra_compile.machine import Machine
from reclra_compile.spec.automatic import AutoSpec
from reclra_compile.spec.divide import Part
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.load import Loaded, load_text
from reclra_compile.spec.nest import standing_for
from reclra_compile.spec.parts import Selector
from reclra_compile.spec.select import select

CODES = {
    "W047": "more bottlenecks than the model can have",
    "W048": "no error synapses fit `synapse_memory`",
}
Divide = Callable[[Loaded], tuple[tuple[Part, ...], tuple[Region, ...]]]
_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?\d+)?", re.IGNORECASE)
GROUP_CELLS = 4  #: cells per axis of the read-outs at the ends of groups, as wiring groups has


@dataclass(frozen=True, slots=True)
class Model:
    """The model's measured layers, the name of the one that makes the output, the batch and the precision."""

    layers: tuple[Region, ...]
    output: str
    batch: int
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Designed:
    """The chosen wiring, the text it was read from, the machine it is for, and the report."""

    loaded: Loaded
    text: str
    machine: Machine
    report: Report


def design(loaded: Loaded, model: Model, divide_as: Divide, machine: Machine) -> Designed:
    """The wiring that `loaded` asks the compiler to choose.

    `divide_as` gives the regions of a wiring, as a tree and measured. Raises WiringError (W020, W021, W038, W047,
    W048), with the nearest request that is feasible, or PlacementError (N001–N003).
    """
    spec = asked_of(loaded)
    assert spec is not None
    machine = machine_for(loaded, spec, machine)
    devices = devices_of(machine, model.dtype)
    asked = with_regions(loaded, spec, model.layers, model.output, len(devices))
    parts, regions = divide_as(asked)
    graph = _graph(parts, regions, model.output)
    joined = any(r.layers for r in graph.regions.values())
    synapses = asked.wiring.synapses
    update = synapses.update.name if synapses.update.name != "auto" else "local_loss" if joined else "local_readout"
    memory = spec.synapse_memory or synapses.memory
    exact = _exact(graph, parts) if joined and spec.groups is None else frozenset()
    kernels = Kernels(graph, model.batch, synapses.max_entries, update, memory, exact)
    cells = GROUP_CELLS if spec.groups is not None and "cells" not in synapses.model_fields_set else synapses.cells
    asks = _asks(spec, loaded, graph, [r.name for r in kernels.candidates()])
    rates = rates_of(devices, machine.microbatches or 1)
    made = choices(kernels, rates, cells, asks)
    best = _best(spec, loaded, kernels, rates, asks, made)
    unit = "µs" if any(d.flops_per_s or d.bytes_per_s for d in devices) else "FLOPs"
    report = _report(spec, best, made, graph, len(devices), unit)
    said: dict[str, object] = {"update": "local_loss"} if update == "local_loss" else {}
    numbers = {n: k for k, n in enumerate(graph.layers, 1)}
    entries = [*entries_of(best, kernels, numbers, report.relays, said), *_edges(graph, numbers)]
    sizes: dict[str, Any] = {"cells": best.rung.cells} if best.rung.cells != 8 or cells != 8 else {}
    if memory is not None:
        sizes["memory"] = memory
    sections = sections_of(asked, base_of(asked, best.waves), machine, sizes)
    text = yaml_text(_about(report), sections, entries)
    chosen = load_text(text, f"{loaded.file}: chosen wiring")
    return Designed(replace(chosen, unreached=loaded.unreached), text, machine, report)


def _graph(parts: Sequence[Part], regions: Sequence[Region], output: str) -> RegionGraph:
    """The region graph of the wiring's own level, in which a block that is divided again is one region."""
    by_name = {r.name: r for r in regions}
    level = tuple(standing_for(p, by_name) if p.parts else by_name[p.name] for p in parts)
    end = next(p.name for p in parts if output in p.layers)
    return RegionGraph(level, next(r for r in level if r.name == end).outputs[0])


def _exact(graph: RegionGraph, parts: Sequence[Part]) -> frozenset[str]:
    """The blocks that the output region reads, which hear it exactly; none where that region is divided again."""
    if any(p.parts for p in parts if p.name == graph.output):
        return frozenset()
    before = (graph.regions[n] for n in graph.forward.predecessors(graph.output))
    return frozenset(r.name for r in before if r.learns and r.batched)


def _edges(graph: RegionGraph, numbers: Mapping[str, int]) -> list[Entry]:
    """Regions whose first dimension is not the batch hear their readers exactly."""
    odd = [n for n, r in graph.regions.items() if r.learns and not r.batched and n != graph.output]
    if not odd:
        return []
    comment = ("Exact errors: the first dimension of these is not the batch.",)
    return [Entry("consumers", sources(odd, numbers), {"kernel": "adjoint"}, comment)]


def _asks(spec: AutoSpec, loaded: Loaded, graph: RegionGraph, names: Sequence[str]) -> list[Ask]:
    """What is searched for: first what the file leaves to choose from, then what it is compared with."""
    if spec.groups is not None:
        return [Ask(1)]
    if spec.bottlenecks is None:
        return [Ask(spec.depth), Ask(1 if spec.depth > 1 else 2)] if spec.depth else [Ask(1), Ask(2)]
    depth = spec.depth or 2
    if isinstance(spec.bottlenecks, int):
        return [Ask(depth, count=spec.bottlenecks), Ask(1)]
    selected = select(Selector(names=list(spec.bottlenecks)), graph, names)
    # names may be numbers, so that 2.5 is a name until there is none like it
    whole = "; a number of bottlenecks is a whole one" if any(_NUMBER.fullmatch(n) for n in spec.bottlenecks) else ""
    faults = [
        Fault(p.code, p.message, loaded.where("auto", "bottlenecks", *p.at), p.fix + whole) for p in selected.problems
    ]
    odd = [n for n in selected.regions if n not in names]
    faults += [Fault("W021", f"'{n}' cannot be a relay: {_why_not(graph, n)}", loaded.where("auto", "bottlenecks"),
                     f"the regions that can be are {', '.join(names[:8])}") for n in odd]  # fmt: skip
    if faults:
        raise WiringError(faults)
    return [Ask(depth, named=tuple(names.index(n) for n in selected.regions)), Ask(1)]


def _why_not(graph: RegionGraph, name: str) -> str:
    if name == graph.output:
        return "it makes the output, which all may hear"
    return "its first dimension is not the batch" if graph.regions[name].learns else "it has no parameters that learn"


def _open(spec: AutoSpec) -> int:
    """How many of the asks the file leaves to choose from."""
    return 2 if spec.groups is None and spec.depth is None and spec.bottlenecks is None else 1


def _best(
    spec: AutoSpec, loaded: Loaded, kernels: Kernels, rates: Rates, asks: Sequence[Ask], made: Sequence[Choice | None]
) -> Choice:
    """The fastest choice, each with the finest kernels that fit; raises WiringError (W047, W048) without any."""
    found = [c for c in made[: _open(spec)] if c is not None]
    if not found and spec.bottlenecks is None:  # no region lies downstream of another: all hear the output
        found = [c for c in made if c is not None]
    if not found:
        most = _most(kernels, rates, asks[0], loaded.wiring.synapses.cells)
        n = len(kernels.candidates())
        asked, among = _many(asks[0].count or 0, "bottleneck"), _many(n, "region")
        message = f"{asked} among {among} that hear{'s' * (n == 1)} an error: each needs a region that hears it"
        fix = f"ask for {most} or fewer" if most else "remove 'bottlenecks': no region lies downstream of another"
        raise WiringError(Fault("W047", message, loaded.where("auto", "bottlenecks"), fix))
    fitting = [c for c in found if c.found.fits]
    if not fitting:
        least = min(c.counted for c in found)
        message = f"no error synapses fit synapse_memory = {byte_text(kernels.memory or 0)}, even at their coarsest"
        fix = f"allow at least {least} bytes ({byte_text(least)})"
        raise WiringError(Fault("W048", message, loaded.where("auto", "synapse_memory"), fix))
    return min(fitting, key=lambda c: (float(f"{c.us:.9g}"), c.step, c.found.score.synapse_bytes, c.waves))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _most(kernels: Kernels, rates: Rates, ask: Ask, cells: int) -> int:
    """The most relays that the model can have: each heard by a region of its own."""
    for count in range(min((ask.count or 1) - 1, len(kernels.candidates()) // 2), 0, -1):
        if choices(kernels, rates, cells, [replace(ask, count=count)])[0] is not None:
            return count
    return 0


def _report(
    spec: AutoSpec, best: Choice, made: Sequence[Choice | None], graph: RegionGraph, devices: int, unit: str
) -> Report:
    found = [c for c in made if c is not None]
    waves = waves_of(best)
    notes = []
    widest = max((len(w) for w in waves), default=0)
    if 0 < widest < devices:
        busy = f"of {devices} devices {widest} work{'s' * (widest == 1)} on it at most"
        notes.append(f"the widest wave has {_many(widest, 'region')}, so that {busy}")
    if not best.found.exact:
        notes.append("relays were found by local search: another set may be a little faster")
    if (spec.depth or 2) > best.waves and len(best.problem.names) > 1 and (spec.depth or spec.bottlenecks):
        notes.append(f"errors go {_many(best.waves, 'wave')} deep: a deeper graph is not faster, or there is none")
    return Report(
        devices, unit, waves, relays_of(best, graph.regions, unit),
        tuple(_alternative(spec, c, c is best) for c in sorted(found, key=lambda c: c.waves)),
        best.us, best.found.score.synapse_bytes, best.found.exact, best.found.effort.evaluations,
        _why(spec, best, found, unit), tuple(notes),
    )  # fmt: skip


def _alternative(spec: AutoSpec, c: Choice, chosen: bool) -> Alternative:
    relays = len(c.found.relays(c.problem))
    label = f"groups {len(c.problem.names) + 1}" if spec.groups is not None else f"depth {max(1, c.waves)}"
    if relays:
        label += f", {relays} relay{'s' if relays > 1 else ''}"
    note = "" if c.found.fits else "does not fit synapse_memory"
    return Alternative(label, c.waves, c.us, c.found.score.synapse_bytes, chosen, note=note)


def _why(spec: AutoSpec, best: Choice, found: Sequence[Choice], unit: str) -> str:
    time = amount(best.us, unit)
    if spec.groups is not None:
        return f"{len(best.problem.names) + 1} groups, as asked"
    if _open(spec) == 1:
        depth, most = max(1, best.waves), spec.depth or 2
        return f"depth {depth}, as asked: {time}" if depth == most else f"depth {depth} of at most {most}: {time}"
    others = [c for c in found if c is not best]
    if not others:
        return "no region lies downstream of another, so that all hear the output"
    other = others[0]
    if not other.found.fits:
        return f"depth {best.waves}: depth {other.waves} does not fit synapse_memory"
    word = "less" if best.us < other.us else "no more"
    return f"depth {best.waves} takes {time}, {word} than {amount(other.us, unit)} at depth {other.waves}"


def _about(report: Report) -> list[str]:
    """The first lines of the file."""
    quality = "no other is better in the model" if report.exact else "found by local search"
    parts = f"{report.devices} device{'s' if report.devices > 1 else ''}"
    return [
        f"Chosen for {parts}; {quality}. {report.reason}.",
        f"Modelled error phase: {amount(report.error_us, report.unit)}; error synapses: "
        f"{byte_text(report.synapse_bytes)}.",
        *(f"Note: {n}." for n in report.notes),
    ]
