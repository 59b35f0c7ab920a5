"""The regions of a model on the terminal: a table with shapes and costs, and a tree of what lies in what."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from reclra_compile.cli.report import count, human, print_report, room_of, widen
from reclra_compile.cli.tables import NAME, NUMBER, TEXT, table
from reclra_compile.ir import Region
from reclra_compile.spec.divide import Part

MANY = 12


def print_regions(
    model: str, parts: Sequence[Part], regions: Sequence[Region], layers: Sequence[Region]
) -> None:
    """A table of the regions, then the tree of blocks and the layers in them."""

    def draw(out: Console) -> None:
        made = _table(regions, room_of(out))
        widen(out, made)
        out.print(Text(model, "bold"))
        out.print()
        out.print(made)
        if any(p.layers != (p.name,) for p in parts):
            out.print()
            out.print(_tree(model, parts, {r.name: r for r in layers}))

    print_report(draw)


def _table(regions: Sequence[Region], room: int | None) -> Table:
    maker = {v: r.name for r in regions for v in r.outputs}
    columns = (("region", NAME), ("op", TEXT), ("φ", TEXT), ("output", TEXT), ("parameters", NUMBER),
               ("FLOPs", NUMBER), ("reads", NAME), ("source", TEXT))  # fmt: skip
    rows = [
        (r.name, r.op, "" if r.phi == "identity" else r.phi, "×".join(map(str, r.shape)) or "1",
         human(r.parameter_count) + (" frozen" if r.frozen else ""), human(r.forward_flops),
         _listed([maker.get(v, v) for v in r.inputs]), r.source)
        for r in regions
    ]  # fmt: skip
    total = ("all", "", "", "", human(sum(r.parameter_count for r in regions)),
             human(sum(r.forward_flops for r in regions)), "", "")  # fmt: skip
    return table(count(len(regions), "region"), columns, rows, total, room)


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" +{len(unique) - 3}" if len(unique) > 3 else "")


def _tree(model: str, parts: Sequence[Part], layers: dict[str, Region]) -> Tree:
    root = Tree(Text(model, "bold"), guide_style="dim")
    for part in parts:
        _branch(root, part, layers)
    return root


def _branch(parent: Tree, part: Part, layers: dict[str, Region]) -> None:
    own = [layers[n] for n in part.layers]
    facts = f"{human(sum(r.parameter_count for r in own))} parameters"
    if part.parts:
        assert part.loaded is not None
        facts += f", inside: {part.loaded.wiring.name}"
        label = Text.assemble((part.name, "bold cyan"), (f"  {facts}", "dim"))
    else:
        label = Text.assemble((part.name, "cyan"), (f"  {facts}" if part.layers != (part.name,) else "", "dim"))
    branch = parent.add(label)
    for inner in part.parts:
        _branch(branch, inner, layers)
    if not part.parts and part.layers != (part.name,):
        for r in own[:MANY]:
            phi = "" if r.phi == "identity" else f", {r.phi}"
            branch.add(Text(f"{r.name}  {r.op}{phi}", "dim"))
        if len(own) > MANY:
            branch.add(Text(f"… {len(own) - MANY} more", "dim"))
