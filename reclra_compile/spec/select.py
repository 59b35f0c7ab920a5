"""Selectors: which regions a part of the wiring file means."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from reclra_compile.errors import nearest
from reclra_compile.ir import OUTPUT
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.parts import ACTIVATIONS, Selector

RELATIVE = ("next", "consumers", "relay")  #: words of `from` whose meaning depends on the target


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a selector; `at` leads to the part of it, `harmless` is true where the part
    may well select nothing, because the wiring is meant for models of any depth.
    """

    code: str
    message: str
    fix: str
    at: tuple[str | int, ...] = ()
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    """Regions in model order, and every problem found on the way."""

    regions: list[str]
    problems: tuple[Problem, ...] = ()


def select(
    selector: Selector,
    graph: RegionGraph,
    universe: Collection[str],
    taken: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> Selected:
    """Regions that the selector means: among `universe`, or any that it names or numbers.

    `taken` is what `rest` leaves out; None where `rest` means nothing. `skip` are words that the caller
    sees to. A name or number that does not exist is a problem W020, a selection of nothing W021.
    """
    if selector.names is not None:
        chosen, problems = _by_names(selector.names, graph, universe, taken, skip)
    elif selector.every is not None:
        chosen, problems = _by_step(selector.every, selector.start or selector.every, graph, universe)
    elif selector.layers is not None:
        chosen, problems = _by_number(selector.layers, graph)
    elif selector.narrowest is not None:
        free = [n for n in universe if n not in (taken or ())]
        free.sort(key=lambda n: (graph.regions[n].size, graph.position[n]))
        chosen, problems = set(free[: selector.narrowest]), []
    else:
        chosen, problems = _by_phi(selector.phi or "", graph, universe)
    return Selected(sorted(chosen, key=graph.position.__getitem__), tuple(problems))


def _by_names(
    names: list[str],
    graph: RegionGraph,
    universe: Collection[str],
    taken: Collection[str] | None,
    skip: Collection[str],
) -> tuple[set[str], list[Problem]]:
    chosen: set[str] = set()
    problems: list[Problem] = []
    for i, name in enumerate(names):
        if name in skip:
            continue
        if name == "all":
            chosen |= set(universe)
        elif name == "rest" and taken is not None:
            chosen |= set(universe) - set(taken)
        elif name == OUTPUT:
            chosen.add(graph.output)
        elif name == "last":
            chosen |= set(graph.forward.predecessors(graph.output)) & set(universe)
        elif name in graph.regions:
            chosen.add(name)
        else:
            found = {n for n in graph.regions if fnmatchcase(n, name)}
            chosen |= found & set(universe)
            if not found & set(universe):
                problems.append(_no_name(name, found, graph, ("names", i) if len(names) > 1 else ("names",)))
    return chosen, problems


def _no_name(name: str, found: set[str], graph: RegionGraph, at: tuple[str | int, ...]) -> Problem:
    if found:
        only = min(found, key=graph.position.__getitem__)
        reason = "the output region" if only == graph.output else f"regions without parameters, as '{only}'"
        return Problem("W021", f"'{name}' matches only {reason}", f"the layers are {listing(graph)}", at)
    if name == "rest" or name in RELATIVE:
        key = "to" if name == "rest" else "from"
        message = f"'{name}' has a meaning only after '{key}:' in a pathway"
        return Problem("W020", message, "name the regions, or write 'all'", at)
    known = list(graph.regions)
    same = [n for n in known if n.casefold() == name.casefold()]
    if same:
        fix = f"did you mean '{same[0]}'?"
    elif any(n.startswith(f"{name}.") for n in known):
        fix = f"write '{name}.*' for the regions inside it"
    else:
        fix = nearest(name, [*known, "all", "rest", "last", OUTPUT])
    what = "region matches" if any(c in name for c in "*?[") else "region"
    return Problem("W020", f"no {what} '{name}'", fix, at)


def _by_step(every: int, first: int, graph: RegionGraph, universe: Collection[str]) -> tuple[set[str], list[Problem]]:
    layers = enumerate(graph.layers, 1)
    chosen = {n for i, n in layers if i >= first and (i - first) % every == 0} & set(universe)
    if chosen:
        return chosen, []
    message = f"every {every} from layer {first} selects no region: the model has {len(graph.layers)} layers"
    return chosen, [Problem("W021", message, f"the layers are {listing(graph)}", ("every",), harmless=True)]


def _by_number(numbers: list[int], graph: RegionGraph) -> tuple[set[str], list[Problem]]:
    count = len(graph.layers)
    problems = [
        Problem("W020", f"no layer {n}", f"the layers are {listing(graph)}", ("layers", i))
        for i, n in enumerate(numbers)
        if n > count
    ]
    return {graph.layers[n - 1] for n in numbers if n <= count}, problems


def _by_phi(phi: str, graph: RegionGraph, universe: Collection[str]) -> tuple[set[str], list[Problem]]:
    chosen = {n for n in universe if graph.regions[n].phi == phi}
    if chosen:
        return chosen, []
    present = sorted({r.phi for r in graph.regions.values()})
    if phi not in ACTIVATIONS or phi == "same":
        fix = nearest(phi, present) if nearest(phi, present).startswith("did") else nearest(phi, ACTIVATIONS[1:])
        return chosen, [Problem("W020", f"no activation is called '{phi}'", fix, ("phi",))]
    fix = f"activations of this model: {', '.join(present)}"
    return chosen, [Problem("W021", f"no region here has activation '{phi}'", fix, ("phi",), harmless=True)]


def listing(graph: RegionGraph) -> str:
    """The layers with their numbers, the middle left out where there are many."""
    shown = [f"{i} {n}" for i, n in enumerate(graph.layers, 1)]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "…", *shown[-3:]])
