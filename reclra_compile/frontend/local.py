"""Exported graphs read sizes from the model's inputs and flatten batches: let each layer work from its own input.

A region that needs only the batch size of the model's input would otherwise read that input, and a layer
that flattens batch and positions into one axis would have no samples that errors could be told apart by.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from reclra_compile.frontend.functional import aten_name

_aten = torch.ops.aten


def read_sizes_nearby(graph: fx.Graph) -> None:
    """Read a batch size from the tensor that an operation reshapes, where that has the same one."""
    sizes = [n for n in graph.nodes if n.target is _aten.sym_size.int and n.args[1] == 0]
    for size in sizes:
        for user in list(size.users):
            tensor = user.args[0] if user.args else None
            if not isinstance(tensor, fx.Node) or tensor is size.args[0] or not _same(tensor, size):
                continue
            with graph.inserting_before(user):
                own = graph.call_function(_aten.sym_size.int, (tensor, 0))
            own.meta = dict(size.meta)
            user.replace_input_with(size, own)


def _same(tensor: fx.Node, size: fx.Node) -> bool:
    value, wanted = tensor.meta.get("val"), size.meta.get("val")
    own: Any = value.shape[0] if isinstance(value, Tensor) and value.ndim else None
    if not isinstance(own, torch.SymInt) or not isinstance(wanted, torch.SymInt):
        return False
    return bool(own.node.expr == wanted.node.expr)


def keep_batches(graph: fx.Graph) -> None:
    """Turn flatten ▸ addmm ▸ unflatten, as HuggingFace's Conv1D has it, into one linear layer over the last axis."""
    for node in [n for n in graph.nodes if n.target is _aten.addmm.default and not n.kwargs]:
        bias, flat, weight = node.args
        if not (_views(flat) and len(node.users) == 1 and _views(back := next(iter(node.users)))):
            continue
        whole = flat.args[0]
        before, after = _shape(whole), _shape(back)
        if not before or before[:-1] != after[:-1] or _shape(flat)[-1:] != before[-1:]:
            continue
        with graph.inserting_before(back):
            turned = graph.call_function(_aten.t.default, (weight,))
            layer = graph.call_function(_aten.linear.default, (whole, turned, bias))
        layer.meta = {**node.meta, "val": back.meta["val"]}
        back.replace_all_uses_with(layer)
        graph.erase_node(back)


def _views(node: Any) -> bool:
    return isinstance(node, fx.Node) and aten_name(node.target) in ("view", "reshape", "_unsafe_view")


def _shape(node: Any) -> list[str]:
    """Sizes by name; [] where unknown."""
    value = node.meta.get("val")
    return [str(s) for s in value.shape] if isinstance(value, Tensor) else []
