"""Checks of an error graph as a whole, once all entries of a wiring are followed."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx

from reclra_compile.ir import Pathway, Target
from reclra_compile.schedule.settling import RULE, options
from reclra_compile.spec.collect import Faults
from reclra_compile.spec.graph import RegionGraph

Pair = tuple[str, str]  #: source and target
Entries = Mapping[Pair, int]  #: the entry of the wiring that made each pathway


def check_cycles(errors: nx.DiGraph[str], entry: Entries, faults: Faults) -> None:
    """Every chain starts at the output (W023)."""
    try:
        cycle = [(u, v) for u, v, *_ in nx.find_cycle(errors)]
    except nx.NetworkXNoCycle:
        return
    k = max(entry[edge] for edge in cycle)
    names = [u for u, _ in cycle]
    if len(names) == 1:
        faults.add("W023", f"'{names[0]}' hears itself", "pathways", k,
                   fix=f"leave '{names[0]}' out of 'from' or out of 'to'")  # fmt: skip
    else:
        faults.add("W023", "the pathways form a cycle: " + " → ".join([*names, names[0]]), "pathways", k,
                   fix="leave one of these pathways out; every chain has to start at the output")  # fmt: skip


def check_settling(
    pathways: Mapping[Pair, Pathway], entry: Entries, targets: Mapping[str, Target], graph: RegionGraph, faults: Faults
) -> None:
    """All regions settle together, along the model's own edges, or none does (W043)."""
    wired = {p.target for p in pathways.values()}
    settles = {n for n in wired if targets[n].rule == RULE}
    if not settles:
        return
    fix = "give all regions rule equilibrium, and the pathways {from: consumers, to: all, kernel: adjoint}"
    others = sorted(wired - settles, key=graph.position.__getitem__)
    if others:
        message = f"'{others[0]}' has rule {targets[others[0]].rule}, but others settle, and all settle together"
        faults.add("W043", message, "target", fix=fix)
    if len({options(targets[n]) for n in settles}) > 1:
        faults.add("W043", "regions that settle together have different options", "overrides",
                   fix="give beta and settle under `target:`, for all regions")  # fmt: skip
    odd = next((pair for pair, p in pathways.items() if p.kernel != "adjoint"), None)
    if odd is not None:
        faults.add("W043", f"'{odd[0]}' → '{odd[1]}' has kernel {pathways[odd].kernel}; states that settle hear each "
                   "other through the model's own weights", "pathways", entry[odd], fix=fix)  # fmt: skip


def check_inverting(
    pathways: Mapping[Pair, Pathway], entry: Entries, targets: Mapping[str, Target], graph: RegionGraph, faults: Faults
) -> None:
    """Difference targets are inversions of z − e, so that e has to be z − y itself (W044)."""
    for (source, target), p in pathways.items():
        t = targets[source]
        plain = not t.normalize and t.kappa == 1 and (t.p, t.q) == (2, 2)
        if p.update == "autoencoding" and source != graph.output and not plain:
            message = f"'{target}' hears '{source}' through an inverse, but its errors are not z − y as they are"
            faults.add("W044", message, "pathways", entry[source, target],
                       fix="write `target: {rule: difference_target}`; or normalize: false, kappa: 1, p: 2, q: 2")
            return


def check_sources(errors: nx.DiGraph[str], entry: Entries, graph: RegionGraph, faults: Faults) -> None:
    """Whom a region hears hears an error itself (W026)."""
    for (source, target), k in entry.items():
        if source != graph.output and not errors.in_degree(source):
            faults.add("W026", f"'{target}' hears '{source}', which hears no error itself",
                       "pathways", k, "from", fix=f"add {{from: output, to: {source}}}")  # fmt: skip
