"""Layers whose backward pass uses other weights than their forward pass.

The edge kernels `transpose`, `sign` and `mirror` are the region's own vector-Jacobian product with
the weight of each linear layer or convolution, module or function call, replaced on the way back: the
forward result and ΔW stay exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from reclra_compile.runtime.precision import as_autocast
from reclra_compile.runtime.weighted import Weighted, unmirrored, weighted

__all__ = ["convolution", "install", "linear", "sign_symmetric", "tied_transpose", "unmirrored"]

Tied = Literal["transpose", "sign"]
#: a forward weight, its feedback weight (out, in), and whether the forward one is stored as (in, out)
Mirror = tuple[nn.Parameter, nn.Parameter, bool]


def tied_transpose(W: Tensor) -> Tensor:
    """The forward weight itself."""
    return W.detach()


def sign_symmetric(W: Tensor) -> Tensor:
    """sign(W) times the mean magnitude of W (sign symmetry, magnitude per layer)."""
    W = W.detach()
    return torch.sign(W) * W.abs().mean()


def _back(ctx: Any, B: Tensor, g: Tensor) -> Tensor:
    """The weights that errors come back through; signs are taken here, as keeping them would take what W takes."""
    return sign_symmetric(B).to(g.dtype) if ctx.signs else B


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, signs: bool) -> Tensor:
        ctx.save_for_backward(x, B)
        ctx.signs = signs
        return F.linear(x, W, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, B = ctx.saved_tensors
        needs = ctx.needs_input_grad
        flat = g.reshape(-1, g.shape[-1])
        dW = flat.t() @ x.reshape(-1, x.shape[-1]) if needs[1] or needs[3] else None
        return (
            g @ _back(ctx, B, g) if needs[0] else None,
            dW if needs[1] else None,
            flat.sum(0) if needs[2] else None,
            dW if needs[3] else None,
            None,
        )


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, options: tuple[Any, ...], signs: bool
    ) -> Tensor:
        ctx.save_for_backward(x, W, B)
        ctx.options, ctx.bias, ctx.signs = options, None if b is None else list(b.shape), signs
        stride, padding, dilation, transposed, output_padding, groups = options
        return torch.convolution(x, W, b, stride, padding, dilation, transposed, output_padding, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, W, B = ctx.saved_tensors
        needs = ctx.needs_input_grad
        product = torch.ops.aten.convolution_backward
        needed = [True, False, False]
        dx = product(g, x, _back(ctx, B, g), ctx.bias, *ctx.options, needed)[0] if needs[0] else None
        learned = [False, needs[1] or needs[3], needs[2]]
        _, dW, db = product(g, x, W, ctx.bias, *ctx.options, learned) if any(learned) else (None, None, None)
        return dx, dW if needs[1] else None, db if needs[2] else None, dW if needs[3] else None, None, None


def linear(x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, signs: bool) -> Tensor:
    """F.linear whose input gradient is g B instead of g W, or g times the signs of B; B has W's shape (out, in)."""
    return _Linear.apply(*_converted(x, W, b, B, signs), signs)  # type: ignore[no-any-return, no-untyped-call]


def convolution(
    x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, options: tuple[Any, ...], signs: bool
) -> Tensor:
    """A convolution whose input gradient is taken with the filters B, or their signs, instead of W, of W's shape."""
    return _Conv.apply(*_converted(x, W, b, B, signs), options, signs)  # type: ignore[no-any-return, no-untyped-call]


def _converted(x: Tensor, W: Tensor, b: Tensor | None, B: Tensor, signs: bool) -> tuple[Tensor | None, ...]:
    """In autocast's precision, but for B where its signs are taken: their magnitude is that of the exact weights."""
    return (*as_autocast(x, W, b), B) if signs else as_autocast(x, W, b, B)


def install(
    module: fx.GraphModule, tied: Tied | None, make: Callable[[str, Tensor], nn.Parameter], listens: bool
) -> tuple[dict[str, nn.Parameter], list[Mirror]]:
    """Rewrite each linear layer and convolution of a region's graph to hear errors through feedback weights.

    `tied` says how B follows from W; where it is None, `make(path, W)` gives a parameter.
    With `listens` B gets the forward weight's gradient. Returns the made parameters by the path of the layer that
    they belong to, and each forward weight with its own and whether it is stored as (in, out).
    """
    made: dict[str, nn.Parameter] = {}
    mirrors: list[Mirror] = []
    for node, layer in weighted(module).items():
        with module.graph.inserting_before(node):
            W = _weight(module.graph, layer)
            b = module.graph.get_attr(layer.bias) if isinstance(layer.bias, str) else layer.bias
            if tied is not None:
                B = module.graph.call_function(tied_transpose, (W,))
            else:
                if layer.path not in made:
                    parameter = module.get_parameter(layer.weight)
                    made[layer.path] = make(layer.path, parameter.t() if layer.turned else parameter)
                    module.register_parameter(f"feedback_{len(made)}", made[layer.path])
                    mirrors.append((parameter, made[layer.path], layer.turned))
                B = module.graph.get_attr(f"feedback_{list(made).index(layer.path) + 1}")
                B = B if listens else module.graph.call_method("detach", (B,))
            x = layer.input
            if layer.noise:
                x = module.graph.call_function(_perturbed, (x, module.graph.get_attr(layer.noise)))
            options, signs = (layer.options,) if layer.options else (), tied == "sign"
            new = module.graph.call_function(convolution if options else linear, (x, W, b, B, *options, signs))
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
    module.recompile()
    return made, mirrors


def _perturbed(z: Tensor, noise: Tensor) -> Tensor:
    """What a perturbative layer combines (E7)."""
    repeats = noise.shape[1] // z.shape[1]
    return torch.relu((z if repeats == 1 else z.repeat(1, repeats, 1, 1)) + noise)


def _weight(graph: fx.Graph, layer: Weighted) -> fx.Node:
    """W as (out, in): the parameter, or its transpose where the model multiplies from the left."""
    W = graph.get_attr(layer.weight)
    return graph.call_method("t", (W,)) if layer.turned else W
