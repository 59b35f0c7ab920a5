"""Selectors: which regions a part of the wiring file means."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from reclra_compile.errors import nearest
from reclra_compile.ir import OUTPUT
from reclra_compile.spec.graph import RegionGraph
from reclra_compile.spec.schema import Selector


class SelectionError(Exception):
    """A selector names nothing; `code` is the fault's code."""

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.code, self.fix = code, fix


def select(selector: Selector, graph: RegionGraph, universe: Collection[str], taken: Collection[str] = ()) -> list[str]:
    """Regions of `universe` that the selector means, in model order; `taken` is what `rest` leaves out.

    Raises SelectionError where it means none (W021) or names something that does not exist (W020).
    """
    layers = {i: n for i, n in enumerate(graph.layers, 1)}
    if selector.names is not None:
        chosen = _by_name(selector.names, graph, universe, taken)
    elif selector.every is not None:
        first = selector.start or selector.every
        chosen = {n for i, n in layers.items() if i >= first and (i - first) % selector.every == 0} & set(universe)
    elif selector.layers is not None:
        missing = [i for i in selector.layers if i not in layers]
        if missing:
            raise SelectionError("W020", f"no layer {missing[0]}", f"layers are numbered 1 to {len(layers)}")
        chosen = {layers[i] for i in selector.layers}
    elif selector.narrowest is not None:
        order = sorted((n for n in universe if n not in taken), key=lambda n: (graph.regions[n].size, graph.position[n]))
        chosen = set(order[: selector.narrowest])
    else:
        chosen = {n for n in universe if graph.regions[n].phi == selector.phi}
        if not chosen:
            phis = sorted({r.phi for r in graph.regions.values()})
            raise SelectionError("W021", f"no region has activation '{selector.phi}'", f"present: {', '.join(phis)}")
    if not chosen:
        raise SelectionError("W021", "this selects no region", "the layers are " + _listing(graph))
    return sorted(chosen, key=graph.position.__getitem__)


def _by_name(names: list[str], graph: RegionGraph, universe: Collection[str], taken: Collection[str]) -> set[str]:
    chosen: set[str] = set()
    for name in names:
        if name == "all":
            chosen |= set(universe)
        elif name == "rest":
            chosen |= set(universe) - set(taken)
        elif name == OUTPUT:
            chosen.add(graph.output)
        else:
            found = {n for n in graph.regions if fnmatchcase(n, name)}
            if not found:
                raise SelectionError("W020", f"no region '{name}'", nearest(name, list(graph.regions)))
            chosen |= found
    return chosen


def _listing(graph: RegionGraph) -> str:
    shown = [f"{i} {n}" for i, n in enumerate(graph.layers, 1)]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "…", *shown[-3:]])
