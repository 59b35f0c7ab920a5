"""Cut pieces out of a traced graph as callables that share the model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from reclra_compile.errors import Fault, ModelError
from reclra_compile.frontend.cut import Cut, location_of
from reclra_compile.frontend.effects import upstream
from reclra_compile.frontend.functional import living
from reclra_compile.frontend.kinds import kinds
from reclra_compile.frontend.trace import Traced


@dataclass(frozen=True)
class Piece:
    """A part of the graph: `run(*inputs)` gives its outputs (one value, or a tuple)."""

    module: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    run: Callable[..., Any]


def extract(
    traced: Traced, outputs: Sequence[fx.Node], boundary: Sequence[fx.Node], writes: Sequence[fx.Node] = ()
) -> Piece:
    """The nodes between `boundary` and `outputs`, constants and shape arithmetic copied along.

    A single output is returned bare; several as a tuple. `writes` are nodes that write buffers on the way.
    """
    stop, needed = set(boundary), set()
    stack = [n for n in (*outputs, *writes) if n not in stop]
    reached: set[fx.Node] = {n for n in outputs if n in stop}
    while stack:
        node = stack.pop()
        if node in needed:
            continue
        needed.add(node)
        for i in node.all_input_nodes:
            if i in stop:
                reached.add(i)
            else:
                stack.append(i)
    graph = fx.Graph()
    inputs = tuple(n for n in boundary if n in reached)
    copies = {n: graph.placeholder(n.name) for n in inputs}
    for node in traced.graph.nodes:
        if node in needed:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    results = tuple(copies[n] for n in outputs)
    graph.output(results[0] if len(results) == 1 else results)
    _follow_device(graph, traced)
    module = fx.GraphModule(traced.module, graph)
    return Piece(module, inputs, _direct(module) or module.forward)


def _direct(module: fx.GraphModule) -> Callable[..., Any] | None:
    """The module itself where the piece is one module call: skips the generated forward."""
    nodes = [n for n in module.graph.nodes if n.op not in ("placeholder", "output")]
    if len(nodes) == 1 and nodes[0].op == "call_module" and not nodes[0].kwargs:
        placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
        if list(nodes[0].args) == placeholders:
            called: nn.Module = module.get_submodule(str(nodes[0].target))
            return called
    return None


def _follow_device(graph: fx.Graph, traced: Traced) -> None:
    """Exported operations name the device of the example inputs; let them follow the piece's own parameters."""
    device = traced.inputs[0].device
    fixed = [n for n in graph.nodes if n.op == "call_function" and hasattr(n.target, "_schema") and _names(n, device)]
    owned = dict(traced.module.named_parameters(remove_duplicate=False))
    source = next((n for n in graph.nodes if n.op == "get_attr" and str(n.target) in owned), None)
    if not fixed or source is None:
        return
    with graph.inserting_before(next(iter(graph.nodes))):
        here = graph.call_function(getattr, (graph.get_attr(str(source.target)), "device"))
    for node in fixed:
        node.args = tuple(here if a == device else a for a in node.args)
        node.kwargs = {k: here if v == device else v for k, v in node.kwargs.items()}


def on_meta(module: fx.GraphModule) -> None:
    """Let the operations of a piece that name a device name the meta device instead."""
    meta = torch.device("meta")
    for node in module.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, lambda a: meta if isinstance(a, torch.device) else a)
        node.kwargs = fx.node.map_aggregate(node.kwargs, lambda a: meta if isinstance(a, torch.device) else a)
    module.recompile()


def _names(node: fx.Node, device: torch.device) -> bool:
    return any(isinstance(a, torch.device) and a == device for a in (*node.args, *node.kwargs.values()))


def body(traced: Traced, cut: Cut) -> Piece:
    """h from the region's inputs (f of E1)."""
    return extract(traced, (cut.h,), cut.inputs, [w for w in _writes(traced, cut) if not _in_tail(traced, cut, w)])


def tail(traced: Traced, cut: Cut) -> Piece | None:
    """The region's outputs from z and its inputs; None where z is the only output."""
    if not cut.tail:
        return None
    writes = [w for w in _writes(traced, cut) if _in_tail(traced, cut, w)]
    return extract(traced, cut.outputs, (cut.z, *cut.inputs), writes)


def whole(traced: Traced, cut: Cut) -> Piece:
    """All outputs of the region from its inputs."""
    return extract(traced, cut.outputs, cut.inputs, _writes(traced, cut))


def _writes(traced: Traced, cut: Cut) -> list[fx.Node]:
    """The buffer writes that the region carries; raises ModelError (M205) where they need another region's values."""
    own = set(cut.nodes)
    found = [write for write, home in traced.effects.items() if home in own]
    alive = living(traced.graph) if found else set()
    kind = kinds(traced.module, traced.modules) if found else {}
    for write in found:
        reads = {i for n in upstream(write, alive) for i in n.all_input_nodes if i in alive and kind[i] == "activity"}
        if not reads <= own | set(cut.inputs):
            buffer = write.args[0]
            raise ModelError(
                Fault(
                    "M205",
                    f"buffer '{buffer.target if isinstance(buffer, fx.Node) else buffer}' is computed from values of "
                    "several regions, so none of them can write it",
                    location_of(traced.sources.get(write.name, "")),
                    "compute each statistic from one layer's values",
                )
            )
    return found


def _in_tail(traced: Traced, cut: Cut, write: fx.Node) -> bool:
    """True where the write belongs to an operation that follows z."""
    home = traced.effects[write]
    if not cut.tail or home is cut.z:
        return False
    above, stack = set(), [cut.z]
    while stack:
        node = stack.pop()
        if node not in above:
            above.add(node)
            stack.extend(node.all_input_nodes)
    return home not in above


def parameters(piece: Piece) -> list[torch.nn.Parameter]:
    """The model's own parameters the piece applies, each once."""
    return list(piece.module.parameters())
