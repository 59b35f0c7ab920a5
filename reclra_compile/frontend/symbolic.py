"""Graphs by torch.fx: operations are the model's own modules, sizes stay symbolic, no data is seen."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import operator
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from reclra_compile.frontend.example import Example
from reclra_compile.frontend.functional import VIEWS, Aliased
from reclra_compile.frontend.outputs import Joined, Path, parts_of
from reclra_compile.layers import LEAVES

_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul")
#: what `operator.iadd(x, y)` and its like compute
_PLAIN: dict[Any, Any] = {getattr(operator, f"i{name}"): getattr(operator, name) for name in _ARITHMETIC}


class _Tracer(fx.Tracer):
    """Keeps the layers of this package whole and records the user's source line of each node."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)


def trace_symbolically(shadow: nn.Module, example: Example, path: Path | Joined) -> fx.Graph:
    """The graph of `shadow`, from its tensors to the output at `path`; raises what torch.fx raises."""
    names = list(inspect.signature(shadow.forward).parameters)[: len(example.args)]
    names += example.keywords
    with countable(shadow):
        graph = _Tracer().trace(shadow, concrete_args=_constants(shadow, example))
    output = next(n for n in graph.nodes if n.op == "output")
    output.args = (parts_of(output.args[0], path),)
    for node in [n for n in graph.nodes if n.op == "placeholder" and n.target not in names]:
        _drop_constant(graph, node)
    for node in graph.nodes:
        _check_used(node)
        _rewrite_in_place(node)
    drop_dead(graph)
    return graph


@contextlib.contextmanager
def countable(model: nn.Module) -> Iterator[None]:
    """Inside, `len(x)` in the files that define the model's modules is an operation, not a number.

    Python makes an int of what len() returns, which would fix the batch size in the graph.
    """
    files = {type(m).__module__ for m in model.modules()}
    scopes = [vars(sys.modules[f]) for f in files if not f.startswith("torch.") and f in sys.modules]
    scopes = [s for s in scopes if "len" not in s]
    for scope in scopes:
        scope["len"] = _length
    try:
        yield
    finally:
        for scope in scopes:
            del scope["len"]


def _length(value: Any) -> Any:
    if isinstance(value, fx.Proxy):
        return value.tracer.create_proxy("call_function", builtins.len, (value,), {})
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else builtins.len(value)


def _constants(model: nn.Module, example: Example) -> dict[str, Any] | None:
    """Values of the arguments that are no inputs: left symbolic, they would take the not-None branch."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    free = [p for p in named[len(example.args) :] if p.name not in example.keywords]
    values = {p.name: example.named.get(p.name, p.default) for p in free}
    return {name: value for name, value in values.items() if value is not inspect.Parameter.empty} or None


def _drop_constant(graph: fx.Graph, placeholder: fx.Node) -> None:
    """Remove an argument fixed to a value, with the check of its value."""
    for user in list(placeholder.users):
        if not user.users and "assert" in str(user.target):
            graph.erase_node(user)
    for user in list(placeholder.users):
        for check in [u for u in user.users if "assert" in str(u.target) and not u.users]:
            graph.erase_node(check)
        if not user.users:
            graph.erase_node(user)
    if not placeholder.users:
        graph.erase_node(placeholder)


def drop_dead(graph: fx.Graph) -> None:
    """Remove nodes that nobody reads and that have no effect."""
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users and not node.is_impure():
            graph.erase_node(node)


def _check_used(node: fx.Node) -> None:
    """Raise Aliased for arithmetic on a view that nobody reads: torch.fx takes `view += x` for `view + x`."""
    first = node.args[0] if node.args else None
    if node.users or node.target not in _PLAIN.values() or not isinstance(first, fx.Node):
        return
    if first.op == "call_method" and str(first.target) in VIEWS:
        raise Aliased(node.name)


def _check_alone(node: fx.Node) -> None:
    """Raise Aliased where the value that `node` overwrites, or the one it is a view of, is read afterwards."""
    written = node.args[0] if node.args else None
    while isinstance(written, fx.Node):
        if any(node < user for user in written.users):
            raise Aliased(node.name)
        known = written.op == "call_method" and str(written.target) in VIEWS
        written = written.args[0] if known or written.target is operator.getitem else None


def _rewrite_in_place(node: fx.Node) -> None:
    """An in-place φ would overwrite the saved h; where its result alone is read, it need not be in place."""
    if node.op not in ("call_function", "call_method"):
        return
    if node.kwargs.get("inplace") is True:
        node.kwargs = {**node.kwargs, "inplace": False}
    if node.target in _PLAIN:
        _check_alone(node)
        node.target = _PLAIN[node.target]
        return
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if not isinstance(name, str) or not name.endswith("_") or name.startswith("__"):
        return
    _check_alone(node)
    if node.op == "call_method" and hasattr(Tensor, name[:-1]):
        node.target = name[:-1]
    elif node.op == "call_function":
        plain = getattr(torch, name[:-1], None) or getattr(F, name[:-1], None)
        node.target = plain or node.target
