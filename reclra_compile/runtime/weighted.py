"""The layers of a region's graph that apply a weight: what they are called with, as modules or as functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from reclra_compile.frontend import ops
from reclra_compile.frontend.kinds import kinds
from reclra_compile.layers import PerturbativeConv2d

#: no error passes through them: what they read are indices
_LOOKUPS = frozenset(("embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"))
_TURNS = frozenset(("t", "transpose", "permute", "T", "mT", "swapaxes", "numpy_T"))


@dataclass(frozen=True)
class Weighted:
    """A linear layer (no `options`) or a convolution; `turned` where its weight is (in, out).

    `noise` names the maps that a perturbative layer adds to its input.
    """

    path: str
    input: Any
    weight: str
    bias: Any
    options: tuple[Any, ...] = ()
    turned: bool = False
    noise: str = ""


def weighted(module: fx.GraphModule) -> dict[fx.Node, Weighted]:
    """The layers of a region's graph that can hear errors through other weights, in order."""
    found = {node: _layer(node, module) for node in module.graph.nodes}
    return {node: layer for node, layer in found.items() if layer is not None}


def unmirrored(module: fx.GraphModule) -> list[str]:
    """Operations of a region's graph that apply weights but cannot hear errors through others."""
    modules = {str(n.target): module.get_submodule(str(n.target)) for n in module.graph.nodes if n.op == "call_module"}
    kind = kinds(module, modules)
    able = weighted(module)
    found = []
    for node in module.graph.nodes:
        if node in able:
            continue
        if node.op == "call_module" and _learns(modules[str(node.target)]):
            found.append(f"{node.target} ({type(modules[str(node.target)]).__name__})")
        elif node.op == "call_function" and _applies(node, kind):
            found.append(f"{node.name} (a function call)")
    return found


def _applies(node: fx.Node, kind: Mapping[fx.Node, str]) -> bool:
    name = ops.name_of(node, {})
    return (
        name in ops.PARAMETRIC_FUNCTIONS
        and name not in _LOOKUPS
        and kind[node] == "activity"
        and any(kind[i] == "parameter" for i in node.all_input_nodes)
    )


def _learns(layer: nn.Module) -> bool:
    """False for norms and PReLU, which scale elementwise, and for look-ups: their exact derivative is used."""
    scales = isinstance(layer, (nn.PReLU, nn.Embedding, nn.EmbeddingBag, *ops.NORMS))
    return not scales and any(p.ndim > 1 for p in layer.parameters())


def _layer(node: fx.Node, module: fx.GraphModule) -> Weighted | None:
    if node.op == "call_module":
        return _of_module(node, module.get_submodule(str(node.target)))
    if node.op != "call_function":
        return None
    name = ops.name_of(node, {})
    if name == "linear":
        return _of_linear(node, module)
    if name in ("addmm", "mm", "matmul"):
        return _of_product(node, name, module)
    return _of_convolution(node, name, module)


def _of_module(node: fx.Node, layer: nn.Module) -> Weighted | None:
    path = str(node.target)
    bias = f"{path}.bias" if getattr(layer, "bias", None) is not None else None
    if type(layer) is nn.Linear:
        return Weighted(path, node.args[0], f"{path}.weight", bias)
    if isinstance(layer, PerturbativeConv2d):
        options = ([layer.stride] * 2, [0, 0], [1, 1], False, [0, 0], 1)
        return Weighted(path, node.args[0], f"{path}.weight", bias, options, noise=f"{path}.noise")
    plain = isinstance(layer, nn.modules.conv._ConvNd) and layer.padding_mode == "zeros"
    if isinstance(layer, nn.modules.conv._ConvNd) and plain and not isinstance(layer.padding, str):
        options = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.transposed,
                   list(layer.output_padding), layer.groups)  # fmt: skip
        return Weighted(path, node.args[0], f"{path}.weight", bias, options)
    return None


def _of_linear(node: fx.Node, module: fx.GraphModule) -> Weighted | None:
    x, W, b = _arguments(node, ("input", "weight", "bias"))
    name, turned = _parameter(W, module)
    return None if name is None else Weighted(_path(name), x, name, b, turned=turned)


def _of_product(node: fx.Node, name: str, module: fx.GraphModule) -> Weighted | None:
    """x @ W, with a bias where it is addmm."""
    arguments = _arguments(node, ("input", "mat1", "mat2") if name == "addmm" else ("input", "other"))
    b, x, W = arguments if name == "addmm" else (None, *arguments)
    parameter, turned = _parameter(W, module)
    if parameter is None or module.get_parameter(parameter).ndim != 2 or {"beta", "alpha"} & set(node.kwargs):
        return None
    return Weighted(_path(parameter), x, parameter, b, turned=not turned)


def _of_convolution(node: fx.Node, name: str, module: fx.GraphModule) -> Weighted | None:
    if name in ("conv1d", "conv2d", "conv3d"):
        rest: tuple[str, ...] = ("stride", "padding", "dilation", "groups")
    elif name in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
        rest = ("stride", "padding", "output_padding", "groups", "dilation")
    elif name == "convolution":
        rest = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    else:
        return None
    values = dict(zip(("x", "W", "b", *rest), _arguments(node, ("input", "weight", "bias", *rest)), strict=True))
    parameter, turned = _parameter(values["W"], module)
    if parameter is None or turned or isinstance(values["padding"], str):
        return None
    axes = module.get_parameter(parameter).ndim - 2
    sizes = {key: _sizes(values.get(key), default, axes)
             for key, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0))}  # fmt: skip
    transposed = bool(values.get("transposed")) or "transpose" in name
    groups = values["groups"] if isinstance(values["groups"], int) else 1
    options = (sizes["stride"], sizes["padding"], sizes["dilation"], transposed, sizes["output_padding"], groups)
    return Weighted(_path(parameter), values["x"], parameter, values["b"], options)


def _arguments(node: fx.Node, names: tuple[str, ...]) -> list[Any]:
    """Arguments by position, then by name; None where they are left out."""
    return [node.args[k] if k < len(node.args) else node.kwargs.get(name) for k, name in enumerate(names)]


def _sizes(value: Any, default: int, axes: int) -> list[int]:
    if value is None:
        return [default] * axes
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _parameter(W: Any, module: fx.GraphModule) -> tuple[str | None, bool]:
    """The name of the parameter that W is, and whether W is its transpose; None for anything else."""
    if not isinstance(W, fx.Node):
        return None, False
    turned = ops.name_of(W, {}) in _TURNS and W.op in ("call_function", "call_method")
    source = W.args[0] if turned else W
    named = isinstance(source, fx.Node) and source.op == "get_attr"
    value = _value(module, str(source.target)) if isinstance(source, fx.Node) and named else None
    if not isinstance(value, nn.Parameter) or (turned and value.ndim != 2):
        return None, False
    return str(source.target), turned  # type: ignore[union-attr]


def _value(module: nn.Module, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _path(parameter: str) -> str:
    """The layer that a parameter belongs to, or its own name where it stands alone."""
    layer, _, last = parameter.rpartition(".")
    return layer if layer and last == "weight" else parameter
