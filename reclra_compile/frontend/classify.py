"""Sort a traced graph's nodes by what they depend on: the ground for partitioning.

`activity` nodes depend on the data and on a parameter and belong to exactly one region. All others
(parameters, constants, shape arithmetic, functions of the raw inputs) are *cones*: cheap, and copied
into every region that reads them, so they never cross a region boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from reclra_compile.frontend import ops
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
        return _holds_parameters(node, self.modules) or any(self.kind[i] == "parameter" for i in node.all_input_nodes)

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """Nodes whose value needs `node`'s data (not only its shape), the graph's output included."""
        return [u for u in node.users if self.kind[u] in ("activity", "output")]


def classify(traced: Traced) -> Classes:
    """Classify every node of the traced graph; topological, one pass."""
    parameters = {n for n, _ in traced.module.named_parameters(remove_duplicate=False)}
    kind: dict[fx.Node, str] = {}
    anchors: set[fx.Node] = set()
    for node in traced.graph.nodes:
        kind[node] = _kind(node, kind, traced, parameters)
        if kind[node] == "activity" and _anchors(node, kind, traced.modules):
            anchors.add(node)
    return Classes(kind, frozenset(anchors), traced.modules)


def _kind(node: fx.Node, kind: dict[fx.Node, str], traced: Traced, parameters: set[str]) -> str:
    if node.op in ("placeholder", "output"):
        return {"placeholder": "input", "output": "output"}[node.op]
    if node.op == "get_attr":
        return "parameter" if str(node.target) in parameters else "constant"
    inputs = [kind[i] for i in node.all_input_nodes]
    if ops.is_shape(node) or (inputs and "shape" in inputs and set(inputs) <= {"shape", "constant"}):
        return "shape"
    if _holds_parameters(node, traced.modules):
        return "activity"
    data = [k for k in inputs if k in ("activity", "input", "raw")]
    if not data:
        return "parameter" if "parameter" in inputs else "constant"
    if "activity" in data or "parameter" in inputs or ops.is_random(node, traced.modules):
        return "activity"  # a random cone copied into two regions would be drawn twice
    return "raw"


def _holds_parameters(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and next(modules[str(node.target)].parameters(), None) is not None


def _anchors(node: fx.Node, kind: dict[fx.Node, str], modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        return _holds_parameters(node, modules) and not isinstance(module, (*ops.NORMS, nn.PReLU))
    return ops.name_of(node, modules) in ops.PARAMETRIC_FUNCTIONS and any(
        kind[i] == "parameter" for i in node.all_input_nodes
    )
