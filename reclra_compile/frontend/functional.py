"""Graphs of aten operations as plain functions: nothing in place, and buffer writes named as such."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

#: operations whose result may share memory with their operand
VIEWS = frozenset((
    "view", "reshape", "transpose", "permute", "select", "slice", "split", "split_with_sizes", "expand", "flatten", "t",
    "unsqueeze", "squeeze", "alias", "chunk", "unbind", "detach", "narrow", "unfold", "diagonal", "movedim", "swapaxes",
    "expand_as", "view_as", "contiguous", "to", "as_strided", "unflatten", "tensor_split", "T", "mT", "adjoint", "real",
    "imag", "numpy_T", "lift_fresh", "ravel", "atleast_2d",
))  # fmt: skip


class Aliased(Exception):
    """A write in place that other values of the graph may see: only a functionalised graph says what it does."""


@fx.node.has_side_effect
def write(buffer: Tensor, value: Tensor) -> None:
    """Give a buffer its new value; regions carry calls of it along."""
    with torch.no_grad():
        buffer.copy_(value)


def snapshot(buffer: Tensor, like: Tensor) -> Tensor:
    """The value of a buffer before this step writes to it; `like`, an input, only makes it the step's own."""
    return buffer.clone()


def filled(target: Tensor, value: Tensor) -> Tensor:
    """`value` in the shape and precision of `target` (aten.copy, which has no derivative)."""
    return value.to(target.dtype).expand(target.shape)


def aten_name(target: Any) -> str | None:
    """The name of an aten operation without its overload; None for anything else."""
    schema = getattr(target, "_schema", None)
    return None if schema is None else str(schema.name).split("::")[-1]


def out_of_place(graph: fx.Graph, buffers: set[str]) -> None:
    """Rewrite in-place operations; raises Aliased where another value may share the memory that is written to.

    A buffer may only be counted up: `n.add_(1)`, read by nobody, becomes `write(n, n + 1)`.
    """
    order = {n: k for k, n in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not _mutates(node):
            continue
        if not node.args or not isinstance(node.args[0], fx.Node):
            raise Aliased(node.name)
        written = node.args[0]
        if aten_name(node.target) == "detach_":
            node.target = torch.ops.aten.detach.default  # on a fresh tensor, as torch.export makes constants
            continue
        if written.op == "get_attr":
            _counter(graph, node, written, buffers)
            continue
        before = [u for u in written.users if order[u] < order[node]]
        plain = _plain(node.target)
        shared = written.op == "placeholder" or any(map(_is_view, (written, *before)))
        if plain is None or shared:
            raise Aliased(node.name)
        later = [u for u in written.users if order[u] > order[node]]
        node.target = plain
        for user in later:
            user.replace_input_with(written, node)


def _mutates(node: fx.Node) -> bool:
    return node.op == "call_function" and bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _is_view(node: fx.Node) -> bool:
    return node.op == "call_function" and aten_name(node.target) in VIEWS


def _plain(target: Any) -> Any:
    """The out-of-place twin of an aten operation; None where there is none."""
    name = aten_name(target) or ""
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
    return getattr(packet, target._overloadname, None)


def _counter(graph: fx.Graph, node: fx.Node, buffer: fx.Node, buffers: set[str]) -> None:
    copies = [u for u in node.users if aten_name(u.target) == "copy_" and u.args[0] is buffer and u.args[1] is node]
    same = [n for n in graph.nodes if n.op == "get_attr" and n.target == buffer.target]
    readers = [u for n in same for u in n.users if u is not node and u not in copies]
    constant = not any(isinstance(a, fx.Node) for a in (*node.args[1:], *node.kwargs.values()))
    plain = _plain(node.target)
    if str(buffer.target) not in buffers or readers or len(node.users) > len(copies) or not constant or plain is None:
        raise Aliased(node.name)
    for copy in copies:
        graph.erase_node(copy)
    node.target = plain
    with graph.inserting_after(node):
        graph.call_function(write, (buffer, node))


def writes_last(graph: fx.Graph) -> None:
    """Turn the write-backs of a functionalised graph into `write`, and reads of such buffers into snapshots.

    Regions run one after the other, and one that reads a buffer may run after the one that writes it.
    """
    written: set[str] = set()
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.copy.default:
            node.target, node.args, node.kwargs = filled, node.args[:2], {}
        if not _mutates(node):
            continue
        target = node.args[0]
        if aten_name(node.target) != "copy_" or not isinstance(target, fx.Node):
            raise Aliased(node.name)
        if target.op == "get_attr":
            node.target = write
            node.args, node.kwargs = node.args[:2], {}
            written.add(str(target.target))
        elif target.op == "placeholder":
            graph.erase_node(node)  # the model overwrites its input; a program leaves its inputs alone
        else:
            raise Aliased(node.name)
    _take_snapshots(graph, written)


def _take_snapshots(graph: fx.Graph, written: set[str]) -> None:
    alive = living(graph)
    first = next((n for n in graph.nodes if n.op == "placeholder"), None)
    last = [n for n in graph.nodes if n.op in ("placeholder", "get_attr")][-1]
    for node in [n for n in graph.nodes if n.op == "get_attr" and str(n.target) in written]:
        users = [u for u in node.users if u.target is not write]
        norms = [u for u in users if "batch_norm" in (aten_name(u.target) or "")]
        with graph.inserting_after(last):
            if norms:  # its backward pass keeps the statistics it read: they must not be the buffer itself
                kept = graph.call_function(torch.ops.aten.clone.default, (node,))
                for user in norms:
                    user.replace_input_with(node, kept)
            if first is not None and any(u in alive and u not in norms for u in users):
                taken = graph.call_function(snapshot, (node, first))
                for user in users:
                    user.replace_input_with(node, taken)


def living(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the graph's output is computed from, and the inputs."""
    stack = [n for n in graph.nodes if n.op in ("output", "placeholder")]
    found: set[fx.Node] = set()
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(node.all_input_nodes)
    return found


def writes(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that give a buffer its new value, in order."""
    return [n for n in graph.nodes if n.op == "call_function" and n.target is write]
