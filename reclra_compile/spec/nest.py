"""Resolve a wiring together with the wirings inside its blocks, to one flat error graph.

A divided block takes part in the wiring around it as the region that makes its output: that region gets
the block's target, and its error neurons are what the wiring inside starts from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import networkx as nx

from reclra_compile.errors import Fault, WiringError
from reclra_compile.ir import Pathway, Region, Target
from reclra_compile.spec.divide import Part
from reclra_compile.spec.graph import RegionGraph, memory_for
from reclra_compile.spec.load import Loaded
from reclra_compile.spec.resolve import Resolved, resolve, waves_of

CODES = {"W039": "an exact error pathway through a block that is divided by a wiring inside it"}


def resolve_nested(
    loaded: Loaded, parts: Sequence[Part], regions: Mapping[str, Region], output: str, batch: int
) -> Resolved:
    """The error graph of all levels; `output` is the value the model gives. Raises WiringError with every fault."""
    flat = _level(loaded, parts, regions, output, batch, labelled=True, memory=memory_for(regions.values()))
    _check_settling(flat, loaded)
    position = {n: i for i, n in enumerate(regions)}
    errors: nx.DiGraph[str] = nx.DiGraph()
    errors.add_node(next(n for n, r in regions.items() if output in r.outputs))
    errors.add_edges_from((p.source, p.target) for p in flat.pathways)
    waves = waves_of(errors, position)
    order = {n: i for i, n in enumerate(n for wave in waves for n in wave)}
    targets = {t.region: t for t in flat.targets}
    pathways = sorted(flat.pathways, key=lambda p: (order[p.target], order[p.source]))
    return replace(flat, targets=tuple(targets[n] for n in order), pathways=tuple(pathways), waves=waves)


def _check_settling(flat: Resolved, loaded: Loaded) -> None:
    """Raise WiringError (W043) where regions settle on one level and not on another."""
    hearing = {p.target for p in flat.pathways}
    rules = {t.rule for t in flat.targets if t.region in hearing}
    if "equilibrium" in rules and (len(rules) > 1 or any(p.kernel != "adjoint" for p in flat.pathways)):
        message = "regions settle to an equilibrium on one level of the wiring, and not on another"
        fix = "give all levels rule equilibrium, or write 'inside: backprop'"
        raise WiringError(Fault("W043", message, loaded.where("inside"), fix))


def _level(
    loaded: Loaded,
    parts: Sequence[Part],
    regions: Mapping[str, Region],
    output: str,
    batch: int,
    labelled: bool,
    memory: int,
) -> Resolved:
    divided = [p for p in parts if p.parts]
    if divided:
        memory //= 2  # one half for the pathways between blocks, one for those inside them
    inside = sum(_weight(p, regions) for p in divided)
    level = tuple(standing_for(p, regions) if p.parts else regions[p.name] for p in parts)
    graph = RegionGraph(level, output, labelled, memory)
    faults: list[Fault] = []
    outer: Resolved | None = None
    try:
        outer = resolve(loaded, graph, batch)
    except WiringError as error:
        faults += error.faults
    if outer is not None:
        faults += _exact_through(divided, outer.pathways, loaded)
    inner: dict[str, Resolved] = {}
    for part in divided:
        assert part.loaded is not None
        value = regions[part.last()].outputs[0]
        try:
            inner[part.name] = _level(
                part.loaded, part.parts, regions, value, batch, labelled and part.name == graph.output,
                max(1, memory * _weight(part, regions) // inside),
            )  # fmt: skip
        except WiringError as error:
            faults += error.faults
    if faults or outer is None:
        raise WiringError(faults)
    return _joined(outer, divided, inner, regions)


def _weight(part: Part, regions: Mapping[str, Region]) -> int:
    """A divided block's claim on the memory for synapses: neurons that need a pathway."""
    return sum(regions[p.name].size for p, _ in part.regions())


def standing_for(part: Part, regions: Mapping[str, Region]) -> Region:
    """The divided block as one region: the shape of its output, everybody's inputs and parameters."""
    own = [regions[p.name] for p, _ in part.regions()]
    last = regions[part.last()]
    made = {v for r in own for v in r.outputs}
    return replace(
        last,
        name=part.name,
        inputs=tuple(dict.fromkeys(v for r in own for v in r.inputs if v not in made)),
        outputs=(*last.outputs, *(v for r in own if r is not last for v in r.outputs)),
        parameters=tuple(dict.fromkeys(p for r in own for p in r.parameters)),
        parameter_count=sum(r.parameter_count for r in own),
        frozen=not any(r.learns for r in own),
    )


def _exact_through(divided: Sequence[Part], pathways: Sequence[Pathway], loaded: Loaded) -> list[Fault]:
    names = {p.name for p in divided}
    return [
        Fault(
            "W039",
            f"'{p.source}' → '{p.target}' is {p.kernel}, but '{p.source}' is divided by a wiring inside it: no exact "
            "error passes through it",
            loaded.where("inside"),
            "write 'inside: backprop', or use a kernel with synapses of its own between the blocks",
        )
        for p in pathways
        if p.edge and p.source in names
    ]


def _joined(
    outer: Resolved, divided: Sequence[Part], inner: Mapping[str, Resolved], regions: Mapping[str, Region]
) -> Resolved:
    """`outer` with each divided block replaced by the region that ends it, and what is inside added."""
    last = {p.name: p.last() for p in divided}
    targets: list[Target] = []
    pathways = [_renamed(p, last) for p in outer.pathways]
    notes = list(outer.notes)
    for t in outer.targets:
        name = last.get(t.region, t.region)
        targets.append(replace(t, region=name, trainable=t.trainable and regions[name].learns))
        if t.region in inner and t.trainable:  # a frozen block needs no errors inside
            rest = inner[t.region]
            targets += [u for u in rest.targets if u.region != name]
            pathways += rest.pathways
            notes += [n for n in rest.notes if n not in notes]
    return replace(outer, targets=tuple(targets), pathways=tuple(pathways), notes=tuple(notes))


def _renamed(p: Pathway, last: Mapping[str, str]) -> Pathway:
    source, target = last.get(p.source, p.source), last.get(p.target, p.target)
    return replace(p, name=f"{source}->{target}", source=source, target=target)
