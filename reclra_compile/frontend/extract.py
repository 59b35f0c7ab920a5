"""Cut pieces out of a traced graph as callables that share the model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from reclra_compile.frontend.partition import Cut
from reclra_compile.frontend.trace import Traced


@dataclass(frozen=True)
class Piece:
    """A part of the graph: `run(*inputs)` gives its outputs (one value, or a tuple)."""

    module: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    run: Callable[..., Any]


def extract(traced: Traced, outputs: Sequence[fx.Node], boundary: Sequence[fx.Node]) -> Piece:
    """The nodes between `boundary` and `outputs`, constants and shape arithmetic copied along.

    A single output is returned bare; several as a tuple.
    """
    stop, needed = set(boundary), set()
    stack = [n for n in outputs if n not in stop]
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


def body(traced: Traced, cut: Cut) -> Piece:
    """h from the region's inputs (f of E1)."""
    return extract(traced, (cut.h,), cut.inputs)


def tail(traced: Traced, cut: Cut) -> Piece | None:
    """The region's outputs from z and its inputs; None where z is the only output."""
    return extract(traced, cut.outputs, (cut.z, *cut.inputs)) if cut.tail else None


def whole(traced: Traced, cut: Cut) -> Piece:
    """All outputs of the region from its inputs."""
    return extract(traced, cut.outputs, cut.inputs)


def parameters(piece: Piece) -> list[torch.nn.Parameter]:
    """The model's own parameters the piece applies, each once."""
    return list(piece.module.parameters())
