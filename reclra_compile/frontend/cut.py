"""Regions as sets of graph nodes: what each reads and gives, and where its h, z and φ are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
from torch import fx

from reclra_compile.errors import Fault, Location, ModelError
from reclra_compile.frontend import ops
from reclra_compile.frontend.classify import Classes, classify
from reclra_compile.frontend.shapes import hoist_shape_reads, view_by_copy
from reclra_compile.frontend.trace import Traced


@dataclass(frozen=True)
class Cut:
    """One region as nodes of the graph, in graph order.

    `h` is the input of the region's activation `phi` and `z` its result; where the region has no
    activation that separates it, both are the first value through which all outputs pass (the main
    output, if there is none or one) and `phi` is None. `layers` names the layer regions that it joins, ()
    where it is one of them.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    anchors: tuple[fx.Node, ...]
    h: fx.Node
    z: fx.Node
    phi: tuple[str, ops.Elementwise] | None
    layers: tuple[str, ...] = ()

    @property
    def tail(self) -> bool:
        """True where parameter-free operations follow z inside the region."""
        return self.outputs != (self.z,)

    @property
    def separable(self) -> bool:
        """False where several outputs leave the region and no one value separates them from the parameters."""
        return len(self.outputs) == 1 or self.z not in self.outputs


@dataclass(frozen=True)
class Ground:
    """A traced graph with what partitioning needs to know of its nodes."""

    traced: Traced
    classes: Classes
    order: dict[fx.Node, int]
    output: fx.Node

    def path(self, node: fx.Node) -> str:
        """Module path of the code that made the node, '' at the model's top level."""
        return str(getattr(self.traced, "paths", {}).get(node.name, ""))


def survey(traced: Traced) -> Ground:
    """Classify the nodes of `traced`; raises ModelError (M201) where the output depends on no parameter."""
    hoist_shape_reads(traced.graph, traced.modules)
    view_by_copy(traced.graph)
    classes = classify(traced)
    output = _output_node(traced)
    if not classes.activity(output):
        raise ModelError(
            Fault(
                "M201",
                "the model's output does not depend on any parameter: nothing can learn",
                fix="give the model layers with parameters, or return what depends on them",
            )
        )
    return Ground(traced, classes, {n: i for i, n in enumerate(traced.graph.nodes)}, output)


def _output_node(traced: Traced) -> fx.Node:
    result = next(n for n in traced.graph.nodes if n.op == "output").args[0]
    if isinstance(result, fx.Node):
        return result
    kind = "tuple" if isinstance(result, tuple) else "dict" if isinstance(result, dict) else type(result).__name__
    raise ModelError(
        Fault(
            "M202",
            f"the model returns a {kind}; one output tensor is needed",
            fix="return the tensor the loss is computed from, or wrap the model",
        )
    )


def cut(
    ground: Ground, owner: Mapping[fx.Node, int], named: Mapping[int, tuple[str, tuple[str, ...]]] | None = None
) -> tuple[Cut, ...]:
    """The regions of an assignment of every activity node to a region number, in topological order.

    `named` gives name and joined layers of each region; without it regions are named by module path.
    """
    members: dict[int, list[fx.Node]] = {}
    for node, region in owner.items():
        members.setdefault(region, []).append(node)
    names = _Names()
    result = []
    for region in _topological(members, owner, ground.order):
        nodes = sorted(members[region], key=ground.order.__getitem__)
        name, layers = named[region] if named else (names.unique(_name(nodes, ground)), ())
        result.append(_cut(name, layers, nodes, owner, ground))
    return tuple(result)


def joined(ground: Ground, layers: Sequence[Cut], parts: Sequence[tuple[str, tuple[str, ...]]]) -> tuple[Cut, ...]:
    """Regions that each join the layer regions named in `parts`: (name, layer names), a partition of `layers`."""
    by_name = {c.name: c for c in layers}
    owner = {n: k for k, (_, names) in enumerate(parts) for layer in names for n in by_name[layer].nodes}
    named = {k: (name, names if names != (name,) else ()) for k, (name, names) in enumerate(parts)}
    return cut(ground, owner, named)


def _topological(
    members: Mapping[int, list[fx.Node]], owner: Mapping[fx.Node, int], order: Mapping[fx.Node, int]
) -> list[int]:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(members)
    for node, region in owner.items():
        graph.add_edges_from((owner[i], region) for i in node.all_input_nodes if owner.get(i, region) != region)
    return list(nx.lexicographical_topological_sort(graph, key=lambda r: min(order[n] for n in members[r])))


def _name(nodes: Sequence[fx.Node], ground: Ground) -> str:
    """Module path of the region's first layer; of a function call, the path of its module and the operation."""
    anchors = [n for n in nodes if n in ground.classes.anchors]
    node = (anchors or [n for n in nodes if ground.classes.learns(n)] or nodes)[0]
    if node.op == "call_module":
        return str(node.target)
    path = ground.path(node)
    if path and (hasattr(node.target, "_schema") and ground.classes.learns(node)):
        return path  # an exported operation: its module is the layer
    return f"{path}.{node.name}" if path else node.name


def _cut(
    name: str, layers: tuple[str, ...], nodes: list[fx.Node], owner: Mapping[fx.Node, int], ground: Ground
) -> Cut:
    classes, order, output = ground.classes, ground.order, ground.output
    own = set(nodes)
    outputs = [n for n in nodes if n is output or any(_read_outside(u, own, owner, classes) for u in n.users)]
    outputs.sort(key=lambda n: (n is not output, -order[n]))  # the model's output, else the latest, comes first
    anchors = tuple(n for n in nodes if n in classes.anchors)
    inputs = sorted({i for n in nodes for i in boundary_inputs(n, own, classes)}, key=order.__getitem__)
    h, z, phi = _activation(nodes, outputs, anchors, classes, output in own)
    return Cut(name, tuple(nodes), tuple(inputs), tuple(outputs), anchors, h, z, phi, layers)


def _read_outside(user: fx.Node, own: set[fx.Node], owner: Mapping[fx.Node, int], classes: Classes) -> bool:
    """True where `user`, or a shape computation through it, is part of another region."""
    if user in owner:
        return user not in own
    return classes.kind[user] == "shape" and any(_read_outside(u, own, owner, classes) for u in user.users)


def cone(node: fx.Node, classes: Classes) -> list[fx.Node]:
    """Non-activity nodes below `node` that its region must copy, inputs and activity excluded."""
    found: dict[fx.Node, None] = {}
    stack = list(node.all_input_nodes)
    while stack:
        n = stack.pop()
        if n not in found and classes.kind[n] not in ("activity", "input"):
            found[n] = None
            stack.extend(n.all_input_nodes)
    return list(found)


def boundary_inputs(node: fx.Node, own: set[fx.Node], classes: Classes) -> set[fx.Node]:
    """Values from outside the region that `node` reads, directly or through its cone."""
    reads = {i for n in (node, *cone(node, classes)) for i in n.all_input_nodes}
    return {i for i in reads if classes.kind[i] in ("activity", "input") and i not in own}


def _activation(
    nodes: list[fx.Node], outputs: list[fx.Node], anchors: tuple[fx.Node, ...], classes: Classes, last: bool
) -> tuple[fx.Node, fx.Node, tuple[str, ops.Elementwise] | None]:
    """h, z and φ: the first activation that separates the outputs from the parameters, or none.

    A softmax at the model's output belongs to the loss, which it makes convex: z of the `last` region is before it, so
    that errors and read-outs are those of logits.
    """
    graph: nx.DiGraph[fx.Node] = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from((p, n) for n in nodes for p in classes.predecessors(n) if p in graph)
    for node in nodes:
        found = ops.activation(node, classes.modules)
        before = classes.predecessors(node)
        if len(before) != 1 or before[0] not in graph:
            continue
        if found and _separates(node, graph, outputs, anchors, classes):
            return before[0], node, found
        is_end = last and ops.name_of(node, classes.modules) in ops.SOFTMAX
        if is_end and _separates(before[0], graph, outputs, anchors, classes):
            return before[0], before[0], None
    if len(outputs) > 1:
        for node in nodes:  # the earliest: views that follow (a split into heads) may move the batch elsewhere
            if not any(ops.is_tuple_item(u) for u in node.users) and _separates(node, graph, outputs, anchors, classes):
                return node, node, None
    return outputs[0], outputs[0], None


def _separates(
    node: fx.Node, graph: nx.DiGraph[fx.Node], outputs: list[fx.Node], anchors: tuple[fx.Node, ...], classes: Classes
) -> bool:
    """True where all parameters lie above `node`, all outputs at or below it, and every way goes through it."""
    above = nx.ancestors(graph, node)
    below = nx.descendants(graph, node)
    after = below | {node}
    return (
        set(anchors) <= above | {node}
        and set(graph) == above | after
        and set(outputs) <= after
        and not any(classes.learns(n) for n in below)
        and all(p in after or p not in graph for n in below for p in classes.predecessors(n))
    )


class _Names:
    """Unique region names: a module used twice gives `path` and `path@2`."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def unique(self, name: str) -> str:
        name = re.sub(r"[^\w.\-]", "_", name)
        self._seen[name] = self._seen.get(name, 0) + 1
        return name if self._seen[name] == 1 else f"{name}@{self._seen[name]}"


def source_of(cut: Cut, traced: Traced) -> str:
    """`file:line` of the region's first anchor (or node) in the user's code, '' where unknown."""
    return traced.sources.get((cut.anchors or cut.nodes)[0].name, "")


def location_of(source: str) -> Location | None:
    """The Location of a `file:line` string."""
    file, _, line = source.rpartition(":")
    return Location(file, int(line)) if file and line.isdigit() else None
