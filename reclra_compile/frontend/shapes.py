"""Let reads of a shape refer to the value that a region gives away, not to one inside it.

`B, T, C = norm(x).shape` needs only the shape of x, which an operation that keeps shapes passes on.
Left as it is, the norm's result would have to leave its region for its shape alone, and nothing would
separate the region's outputs from its parameters.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from reclra_compile.frontend import ops

_OF_TYPE = ("dtype", "type", "device", "layout", "requires_grad", "stride", "element_size", "is_floating_point")


def hoist_shape_reads(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Move each read of a shape up through the operations that keep it; the graph computes the same."""
    for node in graph.nodes:
        if ops.is_shape(node) and not _reads_type(node):
            source = node.all_input_nodes[0]
            while (above := _same_shape(source, modules)) is not None:
                source = above
            node.replace_input_with(node.all_input_nodes[0], source)


def view_by_copy(graph: fx.Graph) -> None:
    """Turn every view to a size into a reshape: the same value, whatever the strides it is made from.

    Strides depend on the device: attention on meta, where regions are measured, returns others than on a CPU.
    """
    for node in graph.nodes:
        dtype = any(isinstance(a, torch.dtype) for a in node.args)
        if node.op == "call_method" and node.target == "view" and not dtype:
            node.target = "reshape"
        elif node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default


def _reads_type(node: fx.Node) -> bool:
    """Precision and layout may change where the shape does not."""
    asked = node.target if node.op == "call_method" else node.args[1] if len(node.args) > 1 else ""
    return asked in _OF_TYPE


def _same_shape(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The operand whose shape `node` has for certain."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node):
        return None
    keeps = ops.is_norm(node, modules) or ops.activation(node, modules) or ops.is_random(node, modules)
    return first if keeps or ops.name_of(node, modules) == "identity" else None
