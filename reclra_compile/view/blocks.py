"""Blocks that a page can fold: the modules around regions, and runs of regions where a model has too many in a row."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from reclra_compile.ir import Plan, Region

#: more parts than this in a row are put into blocks of their own
MOST_IN_A_ROW = 40


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the model: `parent` is the index of the block around it (−1: none), `regions` those in it at any depth.

    `label` is its name inside the parent.
    """

    name: str
    label: str
    parent: int
    regions: tuple[int, ...]


@dataclass(eq=False, slots=True)
class _Part:
    """A module, or a run of parts; `own` are its regions, `parts` the modules in it."""

    name: str
    own: list[int] = field(default_factory=list)
    parts: dict[str, _Part] = field(default_factory=dict)
    label: str = ""

    def all(self) -> list[int]:
        return sorted([*self.own, *(i for p in self.parts.values() for i in p.all())])


def blocks(plan: Plan) -> tuple[Block, ...]:
    """The blocks of a plan, each after the one around it.

    A block has two regions or more and is not the whole model; where values leave it and come back, folding it would
    make a circle, so that it is left out and what is in it stands in the block around it.
    """
    root = _Part("")
    for i, r in enumerate(plan.regions):
        part = root
        for name in _around(r):
            part = part.parts.setdefault(name, _Part(name))
        part.own.append(i)
    convex = _Convex(plan)
    found: list[Block] = []

    def walk(part: _Part, parent: int, around: str) -> None:
        for p in _in_runs(part, plan):
            inside = p.all()
            here = parent
            name = around
            if 1 < len(inside) < len(plan.regions) and convex.holds(inside):
                label = p.label or _label(p.name, around)
                found.append(Block(p.name, label, parent, tuple(inside)))
                here, name = len(found) - 1, p.name if not p.label else around
            walk(p, here, name)

    walk(root, -1, "")
    return _without_twins(found)


def _label(name: str, around: str) -> str:
    """The name of a module in the module `around`; a number alone says too little."""
    if not name.startswith(f"{around}."):
        return name
    short = name[len(around) + 1 :]
    return f"{around.rpartition('.')[2]}.{short}" if short.isdigit() else short


def _without_twins(found: list[Block]) -> tuple[Block, ...]:
    """Blocks without those that hold what the block around them holds; the inner name says more."""
    twin = {i for i, b in enumerate(found) if any(c.parent == i and c.regions == b.regions for c in found)}
    place: dict[int, int] = {-1: -1}
    kept: list[Block] = []
    for i, b in enumerate(found):
        if i in twin:
            place[i] = place[b.parent]
            continue
        around = b.parent
        label = b.label
        while around in twin:
            label, around = _label(b.name, found[found[around].parent].name) if found[around].parent >= 0 else b.name, (
                found[around].parent
            )
        place[i] = len(kept)
        kept.append(Block(b.name, label, place[b.parent], b.regions))
    return tuple(kept)


def _around(region: Region) -> list[str]:
    """The names of the modules around a region, the outermost first."""
    def prefixes(name: str) -> list[str]:
        parts = name.split(".")
        return [".".join(parts[:k]) for k in range(1, len(parts))]

    dotted = prefixes(region.name)
    if all(name in dotted for name in region.within):
        return dotted
    return [*prefixes(region.within[0]), *region.within]


def _in_runs(part: _Part, plan: Plan) -> list[_Part]:
    """The modules in `part` in the order of the model; runs of modules and regions where there are too many."""
    rows: list[tuple[int, _Part | int]] = [(min(p.all()), p) for p in part.parts.values()]
    rows += [(i, i) for i in part.own]
    rows.sort(key=lambda row: row[0])
    if len(rows) <= MOST_IN_A_ROW or part.label:
        return [p for _, p in rows if isinstance(p, _Part)]
    runs = []
    size = math.ceil(len(rows) / math.ceil(math.sqrt(len(rows) / 1.25)))
    for k in range(0, len(rows), size):
        some = [p for _, p in rows[k : k + size]]
        ends = [p.name if isinstance(p, _Part) else plan.regions[p].name for p in (some[0], some[-1])]
        if part.name:
            ends = [e.removeprefix(f"{part.name}.") for e in ends]
        label = f"{ends[0]} … {ends[1]}"
        run = _Part(f"{part.name}: {label}" if part.name else label, label=label)
        run.own = [p for p in some if not isinstance(p, _Part)]
        run.parts = {p.name: p for p in some if isinstance(p, _Part)}
        runs.append(run)
    return runs


class _Convex:
    """Tells whether no value leaves a set of regions and comes back into it."""

    def __init__(self, plan: Plan) -> None:
        made = {v: i for i, r in enumerate(plan.regions) for v in r.outputs}
        self.after: dict[int, list[int]] = defaultdict(list)
        for i, r in enumerate(plan.regions):
            for v in r.inputs:
                if made.get(v, i) != i:
                    self.after[made[v]].append(i)

    def holds(self, inside: list[int]) -> bool:
        mine, last = set(inside), max(inside)
        # regions stand in the order of the model: what lies behind the last one leads nowhere back
        todo = [j for i in inside for j in self.after[i] if j not in mine and j <= last]
        seen = set(todo)
        while todo:
            for j in self.after[todo.pop()]:
                if j in mine:
                    return False
                if j not in seen and j <= last:
                    seen.add(j)
                    todo.append(j)
        return True
