"""What a region's output looks like: which axis holds its channels, and the window of its convolution."""

from __future__ import annotations

from torch import Tensor, fx, nn

from reclra_compile.frontend import ops
from reclra_compile.frontend.cut import Cut
from reclra_compile.frontend.trace import Traced
from reclra_compile.ir import Shape


def above(cut: Cut) -> tuple[fx.Node, ...]:
    """The region's nodes from its inputs to h."""
    return cut.nodes[: cut.nodes.index(cut.h) + 1]


def channel_axis(cut: Cut, traced: Traced, shape: Shape) -> int:
    """The axis of one sample's `shape` that holds the channels.

    The last layer above h decides: a convolution has them first and a linear layer last, unless what
    follows it (a transpose) has moved an axis of that many channels elsewhere.
    """
    if len(shape) < 2:
        return 0
    for node in reversed(above(cut)):
        weight = weight_of(node, traced)
        if weight is None:
            continue
        first = _channels_first(node, weight, traced)
        axis = 0 if first else len(shape) - 1
        places = [k for k, size in enumerate(shape) if size == _channels(node, weight, traced)]
        return axis if axis in places or len(places) != 1 else places[0]
    return 0


def window(cut: Cut, traced: Traced) -> Shape:
    """The filter size of the region's last convolution; () where it has none."""
    for node in reversed(above(cut)):
        weight = weight_of(node, traced)
        if weight is not None and weight.ndim > 2 and _convolves(node, traced):
            return tuple(weight.shape[2:])
    return ()


def weight_of(node: fx.Node, traced: Traced) -> Tensor | None:
    """The weight that a layer's node applies; None for nodes without one."""
    if node.op == "call_module":
        module = traced.modules[str(node.target)]
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            weight = next((p for p in module.parameters() if p.ndim > 1), None)
        return weight
    if ops.name_of(node, traced.modules) not in ops.PARAMETRIC_FUNCTIONS | ops.NORM_FUNCTIONS:
        return None
    named = dict(traced.module.named_parameters(remove_duplicate=False))
    found = [named[str(i.target)] for i in node.all_input_nodes if i.op == "get_attr" and str(i.target) in named]
    return max(found, key=lambda p: p.ndim, default=None)


def _convolves(node: fx.Node, traced: Traced) -> bool:
    if node.op == "call_module":
        return isinstance(traced.modules[str(node.target)], nn.modules.conv._ConvNd)
    return ops.name_of(node, traced.modules).startswith("conv")


def _channels_first(node: fx.Node, weight: Tensor, traced: Traced) -> bool:
    if node.op == "call_module":
        module = traced.modules[str(node.target)]
        return weight.ndim > 2 or isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm))
    name = ops.name_of(node, traced.modules)
    return weight.ndim > 2 or "batch_norm" in name or "group_norm" in name or "instance_norm" in name


def _channels(node: fx.Node, weight: Tensor, traced: Traced) -> int:
    if node.op == "call_module":
        module = traced.modules[str(node.target)]
        for name in ("out_channels", "out_features", "embedding_dim", "embed_dim", "num_features", "num_channels"):
            if isinstance(getattr(module, name, None), int):
                return int(getattr(module, name))
    embeds = ops.name_of(node, traced.modules).startswith("embedding")
    return weight.shape[-1] if embeds else weight.shape[0]
