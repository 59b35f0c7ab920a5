"""Sort a traced graph's nodes by what they depend on: the ground for partitioning.

`activity` nodes depend on the data and on a parameter and belong to exactly one region. All others
(parameters, constants, shape arithmetic, functions of the raw inputs) are *cones*: cheap, and copied
into every region that reads them, so they never cross a region boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from reclra_compile.frontend import ops
from reclra_compile.frontend.kinds import holds_parameters, kinds
from reclra_compile.frontend.trace import Traced


@dataclass(frozen=True)
class Classes:
    """The class of each node, and the anchors: nodes that apply parameters to data."""

    kind: dict[fx.Node, str]
    anchors: frozenset[fx.Node]
    modules: dict[str, nn.Module]

    def activity(self, node: fx.Node) -> bool:
        """True for nodes that a region owns."""
        return self.kind[node] == "activity"

    def predecessors(self, node: fx.Node) -> list[fx.Node]:
        """Activity nodes that `node` reads."""
        return [i for i in node.all_input_nodes if self.activity(i)]

    def learns(self, node: fx.Node) -> bool:
        """True for nodes that apply parameters, anchors or not (norms, PReLU, learned scales)."""
        return holds_parameters(node, self.modules) or any(self.kind[i] == "parameter" for i in node.all_input_nodes)

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """Nodes whose value needs `node`'s data (not only its shape), the graph's output included."""
        return [u for u in node.users if self.kind[u] in ("activity", "output")]


def classify(traced: Traced) -> Classes:
    """Classify every node of the traced graph; topological, one pass."""
    kind = kinds(traced.module, traced.modules)
    anchors = frozenset(n for n in traced.graph.nodes if kind[n] == "activity" and _anchors(n, kind, traced.modules))
    return Classes(kind, anchors, traced.modules)


def _anchors(node: fx.Node, kind: dict[fx.Node, str], modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        return holds_parameters(node, modules) and not isinstance(module, (*ops.NORMS, nn.PReLU))
    return ops.name_of(node, modules) in ops.PARAMETRIC_FUNCTIONS and any(
        kind[i] == "parameter" for i in node.all_input_nodes
    )
