"""Partition a traced graph into layer regions: each parametric operation with its norm and φ.

A node joins the region of the value it reads when nothing else reads that value; a residual add
or concatenation joins its deepest operand; parts that fork and join again without a layer in them
(a GELU written by hand) stay with the value they start from. A norm that follows a join and leads
to a layer is that layer's pre-norm. Embeddings that are added up are one region. What is left joins
the region that reads it, or stands alone as a parameter-free `glue` region. Outputs that are joined are one region,
with all layers that lead to nothing else.
"""

from __future__ import annotations

import networkx as nx
from torch import fx

from reclra_compile.frontend import ops
from reclra_compile.frontend.classify import Classes
from reclra_compile.frontend.cut import Cut, Ground, cut
from reclra_compile.frontend.outputs import join

#: operations that mix positions or samples: what computes with them belongs to the layer that follows
_MIXING = ops.PARAMETRIC_FUNCTIONS | {"scaled_dot_product_attention", "softmax", "_softmax", "cumsum", "sort", "topk"}


def layers(ground: Ground) -> tuple[Cut, ...]:
    """Layer regions in topological order."""
    return cut(ground, _Assignment(ground).run())


class _Assignment:
    """Gives every activity node a region number, in graph order."""

    def __init__(self, ground: Ground) -> None:
        self.classes, self.order = ground.classes, ground.order
        self.owner: dict[fx.Node, int] = {}
        self.depth: dict[fx.Node, int] = {}
        self.joined: set[fx.Node] = set()  # values since whose region's last join no norm has followed
        self.activated: set[int] = set()
        self.inputless: set[int] = set()  # embeddings: layers that read no activity
        self.waiting: list[fx.Node] = []
        self.after = _post_dominators(ground)

    def run(self) -> dict[fx.Node, int]:
        for node in self.order:
            if self.classes.activity(node) and node not in self.owner:
                self._place(node)
        for node in reversed(self.waiting):
            if node not in self.owner:
                readers = {self.owner.get(u) for u in self.classes.readers(node)}
                only = readers.pop() if len(readers) == 1 else None
                self.owner[node] = len(self.order) + len(self.owner) if only is None else only
        return self.owner

    def _place(self, node: fx.Node) -> None:
        before = self.classes.predecessors(node)
        if node.target is join:
            self._heads(node)
            return
        self.depth[node] = max((self.depth[p] for p in before), default=0) + (node in self.classes.anchors)
        if node in self.classes.anchors:
            self.owner[node] = len(self.owner)
            if not before:
                self.inputless.add(self.owner[node])
            return
        host = self._host(node, before)
        if host is None or host not in self.owner or self._belongs_to_what_follows(node, host):
            if not self._diamond(node, before):
                self.waiting.append(node)
            return
        self.owner[node] = self.owner[host]
        if len(before) > 1 or (host in self.joined and not ops.is_norm(node, self.classes.modules)):
            self.joined.add(node)
        if ops.activation(node, self.classes.modules):
            self.activated.add(self.owner[node])

    def _host(self, node: fx.Node, before: list[fx.Node]) -> fx.Node | None:
        """The predecessor whose region `node` joins, if any."""
        own = [p for p in before if self.classes.readers(p) == [node]]
        if len(before) == 1:
            # A tuple never crosses a boundary: its elements stay with the operation that made it.
            return before[0] if own or ops.is_tuple_item(node) else None
        if ops.name_of(node, self.classes.modules) not in ops.JOINS or not before:
            return None
        if len(own) == len(before) and {self.owner.get(p, -1) for p in before} <= self.inputless:
            self._unite([self.owner[p] for p in before])
        deepest = max(before, key=lambda p: (self.depth[p], p in own, self.order[p]))
        return deepest if deepest in own else None

    def _heads(self, node: fx.Node) -> None:
        """Give the join of outputs one region with those before it that nothing else reads."""
        before = self.classes.predecessors(node)
        regions = {self.owner[p] for p in before if p in self.owner and self.classes.readers(p) == [node]}
        own = {r for r in regions if all(self._stays(n, r, node) for n, k in self.owner.items() if k == r)}
        self._unite([*own])
        self.owner[node] = min(own, default=len(self.order))
        self.depth[node] = max(self.depth[p] for p in before)

    def _stays(self, node: fx.Node, region: int, join: fx.Node) -> bool:
        return all(u is join or self.owner.get(u) == region for u in self.classes.readers(node))

    def _unite(self, regions: list[int]) -> None:
        """Embeddings that are added or concatenated: one region, with one target at their sum."""
        first = min(regions, default=0)
        for node, region in self.owner.items():
            if region in regions:
                self.owner[node] = first
        self.inputless -= set(regions) - {first}

    def _belongs_to_what_follows(self, node: fx.Node, host: fx.Node) -> bool:
        """Parameters after φ (a norm, say), and a norm after a join that only a layer reads (a pre-norm)."""
        if self.owner[host] in self.activated and self.classes.learns(node):
            return True
        return host in self.joined and ops.is_norm(node, self.classes.modules) and self._leads_to_a_layer(node)

    def _leads_to_a_layer(self, node: fx.Node) -> bool:
        """True where one reader after the other, all of one operand, ends in a layer."""
        while True:
            readers = self.classes.readers(node)
            if len(readers) != 1 or not self.classes.activity(readers[0]):
                return False
            if readers[0] in self.classes.anchors:
                return True
            if len(self.classes.predecessors(readers[0])) > 1:
                return False
            node = readers[0]

    def _diamond(self, node: fx.Node, before: list[fx.Node]) -> bool:
        """Give the fork-and-join part that starts at the one predecessor to its region, if it has no layer in it."""
        if len(before) != 1 or before[0] not in self.owner:
            return False
        start, region = before[0], self.owner[before[0]]
        end = self.after.get(start)
        if end is None or len(self.classes.readers(start)) < 2:
            return False
        inside: set[fx.Node] = set()
        stack = list(self.classes.readers(start))
        while stack:
            n = stack.pop()
            if n in inside:
                continue
            if not self._elementwise(n, region):
                return False
            inside.add(n)
            stack += [] if n is end else self.classes.readers(n)
        if not all(p in inside or p is start for n in inside for p in self.classes.predecessors(n)):
            return False
        for n in inside:
            self.owner[n], self.depth[n] = region, self.depth[start]
        if any(ops.name_of(n, self.classes.modules) not in ops.JOINS for n in inside):
            self.activated.add(region)
        return True

    def _elementwise(self, node: fx.Node, region: int) -> bool:
        if not self.classes.activity(node) or node in self.classes.anchors or node in self.owner:
            return False
        if self.classes.learns(node) and region in self.activated:
            return False
        return ops.name_of(node, self.classes.modules) not in _MIXING


def _post_dominators(ground: Ground) -> dict[fx.Node, fx.Node]:
    """For each activity node the nearest node through which everything computed from it passes."""
    classes: Classes = ground.classes
    end = next(n for n in ground.order if n.op == "output")
    graph: nx.DiGraph[fx.Node] = nx.DiGraph()
    for node in ground.order:
        if classes.activity(node):
            readers = [u for u in classes.readers(node) if u is not end]
            graph.add_edges_from((u, node) for u in readers)
            if len(readers) < len(classes.readers(node)) or not readers:
                graph.add_edge(end, node)
    nearest = nx.immediate_dominators(graph, end)
    return {n: d for n, d in nearest.items() if n is not end and d is not None and d is not end}
