"""The kind of every node of a graph: what it depends on."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from reclra_compile.frontend import ops
from reclra_compile.frontend.functional import living, snapshot


def kinds(module: fx.GraphModule, modules: Mapping[str, nn.Module]) -> dict[fx.Node, str]:
    """For each node: input, output, parameter, constant, shape, raw (of the inputs), activity or effect.

    Activity depends on data and parameters, or is drawn at random. What the output does not depend on is
    an effect: it only serves writes to buffers.
    """
    parameters = {n for n, _ in module.named_parameters(remove_duplicate=False)}
    alive = living(module.graph)
    kind: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        kind[node] = _kind(node, kind, modules, parameters, alive)
    return kind


def _kind(
    node: fx.Node,
    kind: Mapping[fx.Node, str],
    modules: Mapping[str, nn.Module],
    parameters: set[str],
    alive: set[fx.Node],
) -> str:
    if node.op in ("placeholder", "output"):
        return {"placeholder": "input", "output": "output"}[node.op]
    if node.op == "get_attr":
        return "parameter" if str(node.target) in parameters else "constant"
    if node not in alive:
        return "effect"
    inputs = [kind[i] for i in node.all_input_nodes]
    if ops.is_random(node, modules) or node.target is snapshot:
        return "activity"  # copied into two regions it would be drawn twice, or read after a write
    if ops.is_shape(node) or (inputs and "shape" in inputs and set(inputs) <= {"shape", "constant"}):
        return "shape"
    if holds_parameters(node, modules):
        return "activity"
    data = [k for k in inputs if k in ("activity", "input", "raw")]
    if not data:
        return "parameter" if "parameter" in inputs else "constant"
    if "activity" in data or "parameter" in inputs:
        return "activity"
    return "raw"


def holds_parameters(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """True for a call of a module that has parameters."""
    return node.op == "call_module" and next(modules[str(node.target)].parameters(), None) is not None
