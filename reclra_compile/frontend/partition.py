"""Partition a traced graph into layer regions: each parametric operation with its norm and φ.

A node joins the region of the value it reads when nothing else reads that value; a residual add
or concatenation joins its deepest operand; what is left joins the region that reads it, or stands
alone as a parameter-free `glue` region. Regions are named by module path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import networkx as nx
from torch import fx

from reclra_compile.errors import Fault, Location, ModelError
from reclra_compile.frontend import ops
from reclra_compile.frontend.classify import Classes, classify
from reclra_compile.frontend.trace import Traced


@dataclass(frozen=True)
class Cut:
    """One region as nodes of the graph, in graph order.

    `h` is the input of the region's activation `phi` and `z` its result; where the region has no
    activation that separates it, both are the last value through which all outputs pass (the main
    output, if there is none) and `phi` is None.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    anchors: tuple[fx.Node, ...]
    h: fx.Node
    z: fx.Node
    phi: tuple[str, ops.Elementwise] | None

    @property
    def tail(self) -> bool:
        """True where parameter-free operations follow z inside the region."""
        return self.outputs != (self.z,)

    @property
    def separable(self) -> bool:
        """False where several outputs leave the region and no one value separates them from the parameters."""
        return len(self.outputs) == 1 or self.z not in self.outputs


def partition(traced: Traced) -> tuple[Cut, ...]:
    """Layer regions of `traced` in topological order; raises ModelError (M2xx) where there are none."""
    classes = classify(traced)
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    output = _output_node(traced)
    if not classes.activity(output):
        raise ModelError(
            Fault(
                "M201",
                "the model's output does not depend on any parameter: nothing can learn",
                fix="give the model layers with parameters, or return what depends on them",
            )
        )
    owner = _assign(classes, order)
    members: dict[int, list[fx.Node]] = {}
    for node, region in owner.items():
        members.setdefault(region, []).append(node)
    names = _Names()
    return tuple(
        _cut(sorted(members[r], key=order.__getitem__), owner, classes, order, output, names)
        for r in _topological(members, owner, order)
    )


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


def _assign(classes: Classes, order: dict[fx.Node, int]) -> dict[fx.Node, int]:
    """Region number of every activity node."""
    owner: dict[fx.Node, int] = {}
    depth: dict[fx.Node, int] = {}
    waiting: list[fx.Node] = []
    activated: set[int] = set()
    for node in order:
        if not classes.activity(node):
            continue
        before = classes.predecessors(node)
        depth[node] = max((depth[p] for p in before), default=0) + (node in classes.anchors)
        if node in classes.anchors:
            owner[node] = len(owner)
            continue
        host = _host(node, before, classes, depth, order)
        if host is None or host not in owner or (owner[host] in activated and classes.learns(node)):
            waiting.append(node)  # parameters after φ (a norm, say) belong to the region that follows
            continue
        owner[node] = owner[host]
        if ops.activation(node, classes.modules):
            activated.add(owner[node])
    for node in reversed(waiting):
        readers = {owner.get(u) for u in classes.readers(node)}
        only = readers.pop() if len(readers) == 1 else None
        owner[node] = len(order) + len(owner) if only is None else only
    return owner


def _host(
    node: fx.Node, before: list[fx.Node], classes: Classes, depth: dict[fx.Node, int], order: dict[fx.Node, int]
) -> fx.Node | None:
    """The predecessor whose region `node` joins, if any."""
    own = [p for p in before if classes.readers(p) == [node]]
    if len(before) == 1:
        # A tuple never crosses a boundary: its elements stay with the operation that made it.
        return before[0] if own or ops.is_tuple_item(node) else None
    if ops.name_of(node, classes.modules) not in ops.JOINS or not before:
        return None
    deepest = max(before, key=lambda p: (depth[p], p in own, order[p]))
    return deepest if deepest in own else None


def _topological(members: dict[int, list[fx.Node]], owner: dict[fx.Node, int], order: dict[fx.Node, int]) -> list[int]:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(members)
    for node, region in owner.items():
        graph.add_edges_from((owner[i], region) for i in node.all_input_nodes if owner.get(i, region) != region)
    return list(nx.lexicographical_topological_sort(graph, key=lambda r: min(order[n] for n in members[r])))


def _cut(
    nodes: list[fx.Node],
    owner: dict[fx.Node, int],
    classes: Classes,
    order: dict[fx.Node, int],
    output: fx.Node,
    names: _Names,
) -> Cut:
    own = set(nodes)
    outputs = [n for n in nodes if n is output or any(_read_outside(u, own, owner, classes) for u in n.users)]
    outputs.sort(key=lambda n: (n is not output, -order[n]))  # the model's output, else the latest, comes first
    anchors = tuple(n for n in nodes if n in classes.anchors)
    inputs = sorted({i for n in nodes for i in boundary_inputs(n, own, classes)}, key=order.__getitem__)
    h, z, phi = _activation(nodes, outputs, anchors, classes)
    name = names.unique(str(anchors[0].target) if _is_module(anchors) else (anchors or nodes)[0].name)
    return Cut(name, tuple(nodes), tuple(inputs), tuple(outputs), anchors, h, z, phi)


def _is_module(anchors: tuple[fx.Node, ...]) -> bool:
    return bool(anchors) and anchors[0].op == "call_module"


def _read_outside(user: fx.Node, own: set[fx.Node], owner: dict[fx.Node, int], classes: Classes) -> bool:
    """True where `user`, or a shape computation through it, is part of another region."""
    if user in owner:
        return user not in own
    return classes.kind[user] == "shape" and any(_read_outside(u, own, owner, classes) for u in user.users)


def cone(node: fx.Node, classes: Classes) -> list[fx.Node]:
    """Non-activity nodes below `node` that its region must copy, inputs and activity excluded."""
    found: list[fx.Node] = []
    stack = list(node.all_input_nodes)
    while stack:
        n = stack.pop()
        if n not in found and classes.kind[n] not in ("activity", "input"):
            found.append(n)
            stack.extend(n.all_input_nodes)
    return found


def boundary_inputs(node: fx.Node, own: set[fx.Node], classes: Classes) -> set[fx.Node]:
    """Values from outside the region that `node` reads, directly or through its cone."""
    reads = {i for n in (node, *cone(node, classes)) for i in n.all_input_nodes}
    return {i for i in reads if classes.kind[i] in ("activity", "input") and i not in own}


def _activation(
    nodes: list[fx.Node], outputs: list[fx.Node], anchors: tuple[fx.Node, ...], classes: Classes
) -> tuple[fx.Node, fx.Node, tuple[str, ops.Elementwise] | None]:
    """h, z and φ: the first activation that separates the outputs from the parameters, or none."""
    graph: nx.DiGraph[fx.Node] = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from((p, n) for n in nodes for p in classes.predecessors(n) if p in graph)
    for node in nodes:
        found = ops.activation(node, classes.modules)
        before = classes.predecessors(node)
        if found and len(before) == 1 and before[0] in graph and _separates(node, graph, outputs, anchors, classes):
            return before[0], node, found
    if len(outputs) > 1:
        for node in reversed(nodes):
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
