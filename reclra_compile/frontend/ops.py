"""What the nodes of a traced graph are: layers, activations, joins, random operations.

The tables name operations by the lower-case name torch gives them, whether they appear as a
module (`nn.ReLU`), a function (`F.relu`, `torch.relu`) or a method (`x.relu()`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from reclra_compile.frontend.functional import aten_name
from reclra_compile.layers import Sign

Elementwise = Callable[[Tensor], Tensor]

#: activations by canonical name: elementwise, deterministic, without parameters
ACTIVATIONS: dict[str, Elementwise] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "logsigmoid": F.logsigmoid,
    "sign": torch.sign,
}

#: by exact type: a subclass may compute something else
_ACTIVATION_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid",
    nn.ELU: "elu", nn.SELU: "selu", nn.CELU: "celu", nn.GELU: "gelu", nn.SiLU: "silu", nn.Mish: "mish",
    nn.Softplus: "softplus", nn.Softsign: "softsign", nn.Hardtanh: "hardtanh", nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish", nn.LogSigmoid: "logsigmoid", Sign: "sign",
}  # fmt: skip

NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm,
)  # fmt: skip

PARAMETRIC_FUNCTIONS = frozenset((
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "addmm", "mm",
    "matmul", "bmm", "baddbmm", "einsum", "embedding", "embedding_bag", "bilinear", "tensordot", "mv", "convolution",
    "_convolution", "addmv", "addbmm", "_trilinear", "_embedding_bag", "_embedding_bag_forward_only", "lstm", "gru",
    "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "multi_head_attention_forward",
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd", "grouped_mm", "_grouped_mm",
))  # fmt: skip
NORM_FUNCTIONS = frozenset((
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "native_layer_norm",
    "native_batch_norm", "_native_batch_norm_legit_functional", "native_group_norm", "_fused_rms_norm",
))  # fmt: skip
#: what turns logits into probabilities, or into their logarithms
SOFTMAX = frozenset(("softmax", "log_softmax", "logsoftmax", "softmin", "_softmax", "_log_softmax"))
JOINS = frozenset(("add", "iadd", "sub", "isub", "cat", "concat", "concatenate", "stack"))
RANDOM = frozenset((
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu", "bernoulli",
    "feature_dropout", "native_dropout", "rrelu_with_noise", "rrelu_with_noise_functional", "rand", "randn", "randint",
    "rand_like", "randn_like", "randint_like", "randperm", "normal", "normal_functional", "uniform", "multinomial",
    "poisson", "exponential", "gumbel_softmax", "alphadropout", "featurealphadropout",
))  # fmt: skip
#: names that aten gives to what has another name in torch.nn.functional
_SYNONYMS = {"log_sigmoid": "logsigmoid", "sgn": "sign"}
SHAPE_METHODS = frozenset((
    "size", "dim", "numel", "ndimension", "stride", "is_floating_point", "type", "element_size", "get_device",
))  # fmt: skip
SHAPE_ATTRIBUTES = frozenset(("shape", "dtype", "device", "ndim", "is_cuda", "requires_grad", "layout"))


#: aten operations that read a shape
_SHAPE_FUNCTIONS = frozenset(("sym_size", "sym_numel", "size", "numel"))


def name_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """The operation's lower-case name, without the underscore of in-place variants."""
    if node.op == "call_module":
        return type(modules[str(node.target)]).__name__.lower()
    if node.op == "call_method":
        name = str(node.target)
    elif node.op == "call_function":
        name = aten_name(node.target) or str(getattr(node.target, "__name__", node.target))
    else:
        return node.op
    name = name[:-1] if name.endswith("_") and not name.startswith("__") else name
    return _SYNONYMS.get(name, name)


def is_norm(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """True for a normalisation, as a module of torch or of the user's (`RMSNorm`), or as a function."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, NORMS) or type(module).__name__.endswith("Norm")
    return node.op == "call_function" and name_of(node, modules) in NORM_FUNCTIONS


def is_shape(node: fx.Node) -> bool:
    """True for reads of a tensor's shape, type or device, which carry no data."""
    if node.op == "call_method":
        return str(node.target) in SHAPE_METHODS
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return node.args[1] in SHAPE_ATTRIBUTES
    return node.target is len or aten_name(node.target) in _SHAPE_FUNCTIONS


def is_random(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """True where running the node twice may give two results."""
    return name_of(node, modules) in RANDOM


def is_tuple_item(node: fx.Node) -> bool:
    """True for taking one element of a tuple that an operation returned."""
    return node.target is operator.getitem and isinstance(node.args[1], int)


def activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[str, Elementwise] | None:
    """Canonical name and callable of an elementwise activation node; None for anything else.

    Activations with parameters (PReLU) or randomness (RReLU) are not: they stay inside f of E1.
    """
    if node.op == "call_module":
        module = modules[str(node.target)]
        known = _ACTIVATION_MODULES.get(type(module))
        if known in ("relu", "tanh", "sigmoid", "sign"):
            return known, ACTIVATIONS[known]  # no options: the bare function is the same and cheaper to call
        return (known, module) if known else None
    if node.op not in ("call_function", "call_method"):
        return None
    name = name_of(node, modules)
    rest = [a for a in (*node.args[1:], *node.kwargs.values()) if isinstance(a, fx.Node)]
    if name not in ACTIVATIONS or not node.args or not isinstance(node.args[0], fx.Node) or rest:
        return None
    args, kwargs = node.args[1:], dict(node.kwargs)
    if node.op == "call_method":
        method = str(node.target)
        return name, lambda h: getattr(h, method)(*args, **kwargs)
    function: Callable[..., Any] = node.target  # type: ignore[assignment]
    if not args and not kwargs:
        return name, function
    return name, lambda h: function(h, *args, **kwargs)
