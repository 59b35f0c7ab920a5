"""Where the writes to buffers live: each is carried by the region of one node, and so happens once a step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx, nn

from reclra_compile.frontend.functional import living, writes
from reclra_compile.frontend.kinds import kinds


def homes(module: fx.GraphModule, modules: Mapping[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    """For each node that writes a buffer, the activity node whose region carries it.

    A value computed from activity belongs to the last activity it reads; any other, such as a counter, to
    the next activity of the model's code.
    """
    found = writes(module.graph)
    if not found:
        return {}
    kind = kinds(module, modules)
    alive = living(module.graph)
    order = {n: k for k, n in enumerate(module.graph.nodes)}
    activity = [n for n in module.graph.nodes if kind[n] == "activity" and n in alive]
    if not activity:
        return {}
    result = {}
    for node in found:
        chain = upstream(node, alive)
        reads = {i for n in chain for i in n.all_input_nodes if i in alive}
        own = [n for n in reads if kind[n] == "activity"]
        if own:
            result[node] = max(own, key=order.__getitem__)
            continue
        inputs = _inputs(reads)
        start = min(order[n] for n in chain if n.op != "get_attr")
        fitting = [n for n in activity if inputs <= _direct_inputs(n, kind)] or activity
        result[node] = next((n for n in fitting if order[n] > start), fitting[-1])
    return result


def upstream(node: fx.Node, alive: set[fx.Node]) -> set[fx.Node]:
    """The node and all it is computed from that the model's output is not."""
    chain: set[fx.Node] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if n not in chain and n not in alive:
            chain.add(n)
            stack.extend(n.all_input_nodes)
    return chain


def _inputs(nodes: set[fx.Node]) -> set[fx.Node]:
    """The model's inputs that `nodes`, none of them activity, depend on."""
    found: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        n = stack.pop()
        if n not in found:
            found.add(n)
            stack.extend(n.all_input_nodes)
    return {n for n in found if n.op == "placeholder"}


def _direct_inputs(node: fx.Node, kind: Mapping[fx.Node, str]) -> set[fx.Node]:
    """The model's inputs that the node reads, itself or through what its region copies."""
    return _inputs({i for i in node.all_input_nodes if kind[i] != "activity"})
