"""Layers whose backward pass uses other weights than their forward pass.

The edge kernels `transpose`, `sign` and `mirror` are the region's own vector-Jacobian product with
the weight of each Linear or Conv replaced on the way back: the forward result and ΔW stay exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from reclra_compile.frontend import ops

Feedback = Callable[[Tensor], Tensor]


def tied_transpose(W: Tensor) -> Tensor:
    """The forward weight itself."""
    return W.detach()


def sign_symmetric(W: Tensor) -> Tensor:
    """sign(W) times the mean magnitude of W (sign symmetry, magnitude per layer)."""
    W = W.detach()
    return torch.sign(W) * W.abs().mean()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, B: Tensor) -> Tensor:
        ctx.save_for_backward(x, B)
        return F.linear(x, W, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, B = ctx.saved_tensors
        needs = ctx.needs_input_grad
        flat = g.reshape(-1, g.shape[-1])
        dW = flat.t() @ x.reshape(-1, x.shape[-1]) if needs[1] or needs[3] else None
        return (
            g @ B if needs[0] else None,
            dW if needs[1] else None,
            flat.sum(0) if needs[2] else None,
            dW if needs[3] else None,
        )


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, W, B)
        ctx.options, ctx.bias = options, None if b is None else list(b.shape)
        stride, padding, dilation, transposed, output_padding, groups = options
        return torch.convolution(x, W, b, stride, padding, dilation, transposed, output_padding, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, W, B = ctx.saved_tensors
        needs = ctx.needs_input_grad
        product = torch.ops.aten.convolution_backward
        dx = product(g, x, B, ctx.bias, *ctx.options, [True, False, False])[0] if needs[0] else None
        learned = [False, needs[1] or needs[3], needs[2]]
        _, dW, db = product(g, x, W, ctx.bias, *ctx.options, learned) if any(learned) else (None, None, None)
        return dx, dW if needs[1] else None, db if needs[2] else None, dW if needs[3] else None, None


def linear(x: Tensor, W: Tensor, b: Tensor | None, B: Tensor) -> Tensor:
    """F.linear whose input gradient is g B instead of g W; B has W's shape (out, in)."""
    return _Linear.apply(x, W, b, B)  # type: ignore[no-any-return, no-untyped-call]


def convolution(x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, options: tuple[Any, ...]) -> Tensor:
    """A convolution whose input gradient is taken with the filters B instead of W, of W's shape."""
    return _Conv.apply(x, W, b, B, options)  # type: ignore[no-any-return, no-untyped-call]


def conv_options(m: nn.modules.conv._ConvNd) -> tuple[Any, ...] | None:
    """Arguments of aten.convolution for the module; None where it pads other than with zeros."""
    if m.padding_mode != "zeros" or isinstance(m.padding, str):
        return None
    return list(m.stride), list(m.padding), list(m.dilation), m.transposed, list(m.output_padding), m.groups


def unmirrored(module: fx.GraphModule) -> list[str]:
    """Operations of a region's graph that apply weights but cannot hear errors through others."""
    found = []
    for node in module.graph.nodes:
        if node.op == "call_function" and ops.name_of(node, {}) in ops.PARAMETRIC_FUNCTIONS:
            found.append(f"{node.name} (a function call)")
        elif node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            if _weighted(layer) and _options(layer) is None:
                found.append(f"{node.target} ({type(layer).__name__})")
    return found


def install(
    module: fx.GraphModule, feedback: Feedback | None, make: Callable[[str, Tensor], nn.Parameter]
) -> dict[str, nn.Parameter]:
    """Rewrite each Linear and Conv of a region's graph to hear errors through feedback weights.

    `feedback` derives B from W (tied kernels); where it is None, `make(path, W)` gives a parameter.
    Returns the made parameters by module path.
    """
    made: dict[str, nn.Parameter] = {}
    for node in [n for n in module.graph.nodes if n.op == "call_module"]:
        path = str(node.target)
        layer = module.get_submodule(path)
        options = _options(layer)
        if not _weighted(layer) or options is None:
            continue
        with module.graph.inserting_before(node):
            W = module.graph.get_attr(f"{path}.weight")
            b = module.graph.get_attr(f"{path}.bias") if layer.bias is not None else None
            if feedback is not None:
                B = module.graph.call_function(feedback, (W,))
            else:
                made[path] = make(path, layer.weight)  # type: ignore[arg-type]
                key = f"feedback_{len(made)}"
                module.register_parameter(key, made[path])
                B = module.graph.get_attr(key)
            extra = (options,) if options else ()
            new = module.graph.call_function(convolution if options else linear, (node.args[0], W, b, B, *extra))
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
    module.recompile()
    return made


def _options(layer: nn.Module) -> tuple[Any, ...] | None:
    """() for a Linear, the convolution's options for a Conv, None for layers without mirrored weights."""
    if type(layer) is nn.Linear:
        return ()
    return conv_options(layer) if isinstance(layer, nn.modules.conv._ConvNd) else None


def _weighted(layer: nn.Module) -> bool:
    """False for norms and PReLU, which scale elementwise: their exact derivative is used on the way back."""
    parameters = list(layer.parameters())
    return not isinstance(layer, nn.PReLU) and any(p.ndim > 1 for p in parameters)
