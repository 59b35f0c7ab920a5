"""Blocks of layer regions, found from the region graph alone: no tensor, no module.

A block lies between two regions that every path from the inputs to the output passes (immediate
dominators): one value goes in, one comes out. Neighbours that belong to one numbered module (`h.3`,
`layer1.0`) are one block: a transformer block is its attention and its MLP together. Where skips make
one part of the whole network (U-Net), its modules are the blocks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from reclra_compile.ir import Region

_SOURCE = ""  #: stands for the model's inputs in the region graph


@dataclass(frozen=True, slots=True)
class Group:
    """Some layer regions, in model order, under one name."""

    name: str
    layers: tuple[str, ...]


def edges(regions: Sequence[Region]) -> nx.DiGraph[str]:
    """The region graph; regions that read only from outside hang on the source ''."""
    maker = {v: r.name for r in regions for v in r.outputs}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for r in regions:
        sources = {maker[v] for v in r.inputs if v in maker}
        graph.add_edges_from((s, r.name) for s in sources or {_SOURCE})
    return graph


def blocks(regions: Sequence[Region], output: str) -> tuple[Group, ...]:
    """The blocks of `regions` (in model order), in order; `output` names the region that makes the output."""
    segments = _segments(regions, output)
    parts = _modules(regions, max(segments, key=len, default=[]))
    if parts is None:
        parts, labels = [], [""]
        for segment in segments:
            label = _numbered(_common(segment))
            if parts and label and labels[-1] == label:
                parts[-1] += segment
            else:
                parts.append(segment)
            labels.append(label)
    return tuple(_named(part, regions) for part in parts)


def _segments(regions: Sequence[Region], output: str) -> list[list[Region]]:
    """The regions between successive ones that all paths to the output pass."""
    graph = edges(regions)
    nearest = nx.immediate_dominators(graph, _SOURCE)
    passed = {output}
    node = output
    while nearest.get(node) not in (None, node, _SOURCE):
        node = nearest[node]
        passed.add(node)
    # In a topological order what lies between two such regions stands between them.
    found: list[list[Region]] = [[]]
    for r in regions:
        found[-1].append(r)
        if r.name in passed and r.name != output:
            found.append([])
    return [segment for segment in found if segment]


def _modules(regions: Sequence[Region], largest: Sequence[Region]) -> list[list[Region]] | None:
    """The network by its modules, where skips make one segment of most of it; None elsewhere."""
    if 2 * len(largest) <= len(regions):
        return None
    depth = len(_path(_common(largest)))
    parts: dict[str, list[Region]] = {}
    for r in regions:
        parts.setdefault(".".join(_path(r.name)[: depth + 1]), []).append(r)
    if sum(len(p) > 1 for p in parts.values()) < 2 or _cycle(regions, list(parts.values())):
        return None
    return list(parts.values())


def _named(part: Sequence[Region], regions: Sequence[Region]) -> Group:
    """The part under the name of the module that it is, or of its first and last layer."""
    names = tuple(r.name for r in part)
    common = _common(part)
    if len(names) == 1:
        return Group(names[0], names)
    elsewhere = [r.name for r in regions if r.name not in names]
    for module in (_numbered(common), common):
        if module and not any(n == module or n.startswith(f"{module}.") for n in elsewhere):
            return Group(module, names)
    prefix = f"{common}." if common else ""
    return Group(f"{prefix}{_last(names[0], common)}-{_last(names[-1], common)}", names)


def _last(name: str, common: str) -> str:
    return name.removeprefix(common).lstrip(".") or name


def _path(name: str) -> list[str]:
    return re.sub(r"@\d+$", "", name).split(".") if name else []


def _common(part: Sequence[Region]) -> str:
    """The module that holds all layers of `part`; of a single layer the module around it."""
    paths = [_path(r.name) for r in part if r.op != "glue"] or [_path(r.name) for r in part]
    if len(paths) == 1:
        return ".".join(paths[0][:-1])
    shared = itertools.takewhile(lambda steps: len(set(steps)) == 1, zip(*paths, strict=False))
    return ".".join(steps[0] for steps in shared)


def _numbered(path: str) -> str:
    """The nearest module around `path`, itself included, that is an entry of a list; '' where none is."""
    parts = path.split(".")
    while parts and not parts[-1].isdigit():
        parts.pop()
    return ".".join(parts)


def groups(units: Sequence[Group], costs: dict[str, int], count: int) -> tuple[Group, ...]:
    """`count` runs of consecutive blocks whose costs are as equal as can be: the dearest is as cheap as possible."""
    weights = [sum(costs[layer] for layer in u.layers) for u in units]
    low, high = max(weights, default=0), sum(weights)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(weights, middle, count) else (middle + 1, high)
    runs = _runs(weights, low, count)
    return tuple(
        Group(f"group{k}", tuple(itertools.chain.from_iterable(units[i].layers for i in run)))
        for k, run in enumerate(runs, 1)
    )


def _fits(weights: Sequence[int], limit: int, count: int) -> bool:
    used, filled = 1, 0
    for w in weights:
        if filled + w > limit:
            used, filled = used + 1, 0
        filled += w
    return used <= count


def _runs(weights: Sequence[int], limit: int, count: int) -> list[list[int]]:
    """Exactly `count` runs of at most `limit`, none empty."""
    runs: list[list[int]] = [[]]
    filled = 0
    for i, w in enumerate(weights):
        needed = count - len(runs)  # every later run needs at least one block
        if runs[-1] and (filled + w > limit or len(weights) - i <= needed):
            runs.append([])
            filled = 0
        runs[-1].append(i)
        filled += w
    return runs


def merge(units: Sequence[Group], chosen: Sequence[int], name: str) -> tuple[Group, ...]:
    """The units with those numbered in `chosen` joined to one called `name`, which stands where the last stood."""
    joined = Group(name, tuple(itertools.chain.from_iterable(units[i].layers for i in sorted(chosen))))
    last = max(chosen)
    return tuple(joined if i == last else u for i, u in enumerate(units) if i == last or i not in chosen)


def _cycle(regions: Sequence[Region], parts: Sequence[Iterable[Region]]) -> list[int]:
    return cycle(regions, [Group(str(k), tuple(r.name for r in part)) for k, part in enumerate(parts)])


def cycle(regions: Sequence[Region], units: Sequence[Group]) -> list[int]:
    """Numbers of units that feed each other in a circle, so that none can run first; [] where there are none."""
    home = {layer: k for k, u in enumerate(units) for layer in u.layers}
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_edges_from(
        (home[a], home[b]) for a, b in edges(regions).edges if a in home and b in home and home[a] != home[b]
    )
    try:
        return [u for u, *_ in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return []
