"""Trace a model with torch.fx into a graph whose operations are the model's own modules.

The tracer runs on a structural copy (parameters shared, Python state and buffers copied), so
tracing changes nothing of the user's model. A probe then runs graph and model from the same random
state and refuses a graph that computes something else: torch.fx is silently wrong where the forward
pass mutates Python state or a view.
"""

from __future__ import annotations

import copy
import inspect
import os
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

import reclra_compile
from reclra_compile.errors import Fault, ModelError
from reclra_compile.frontend.probe import probe
from reclra_compile.frontend.user_code import line_of, shown, source_line, summary
from reclra_compile.layers import Sign

#: frames below these folders are not the user's code
_LIBRARY = tuple(os.path.join(os.path.dirname(f), "") for f in (torch.__file__, reclra_compile.__file__))


@dataclass(frozen=True)
class Traced:
    """A traced model: `graph` with the modules and tensors its nodes name, and the example inputs."""

    graph: fx.Graph
    module: fx.GraphModule
    modules: dict[str, nn.Module]
    model: nn.Module
    inputs: tuple[Any, ...]
    sources: dict[str, str]


class _Tracer(fx.Tracer):
    """Keeps activations of this package whole and records the user's source line of each node."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Sign) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> Traced:
    """Trace `model` on `example_inputs` (a tensor, or a tuple of positional inputs, batch first).

    Raises ModelError (M1xx) that names the user's source line where the forward pass cannot be traced.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    _check_inputs(inputs)
    shadow = _structural_copy(model)
    tracer = _Tracer()
    try:
        graph = tracer.trace(shadow, concrete_args=_defaults(model, len(inputs)))
    except Exception as error:
        raise ModelError(_untraceable(error)) from error
    _drop_dead(graph)
    sources = {n.name: _source(n) for n in graph.nodes}
    module = _bind(graph, model, shadow)
    modules = {str(n.target): module.get_submodule(str(n.target)) for n in graph.nodes if n.op == "call_module"}
    traced = Traced(graph, module, modules, model, inputs, sources)
    probe(traced.model, traced.module, inputs)
    return traced


def _check_inputs(inputs: tuple[Any, ...]) -> None:
    faults = [
        Fault("M103", f"example input {i} is {type(x).__name__}, not a tensor", fix="pass tensors, batch first")
        for i, x in enumerate(inputs)
        if not isinstance(x, Tensor)
    ]
    faults += [
        Fault("M103", f"example input {i} has no batch dimension", fix="give every input a leading batch dimension")
        for i, x in enumerate(inputs)
        if isinstance(x, Tensor) and x.ndim == 0
    ]
    if not inputs:
        faults = [Fault("M103", "no example inputs", fix="pass at least one tensor")]
    if faults:
        raise ModelError(faults)


def _structural_copy(model: nn.Module) -> nn.Module:
    """A deep copy that shares the parameters: cheap for large models, and safe to trace."""
    shadow: nn.Module = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    # Functional dropout and the like read `self.training` while tracing, and a program always trains.
    return shadow if shadow.training else shadow.train()


def _defaults(model: nn.Module, given: int) -> dict[str, Any] | None:
    """Defaults of the forward arguments beyond the inputs: left symbolic they would take the not-None branch."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in named[given:] if p.default is not p.empty} or None


def _drop_dead(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users and not node.is_impure():
            graph.erase_node(node)
    for node in [n for n in graph.nodes if n.op == "placeholder" and not n.users]:
        graph.erase_node(node)  # arguments fixed to their default


def _bind(graph: fx.Graph, model: nn.Module, shadow: nn.Module) -> fx.GraphModule:
    """A GraphModule over the user's own parameters and modules, with in-place operations made out-of-place."""
    root: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            root[str(node.target)] = _out_of_place(model.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            root[str(node.target)] = _attribute(model, shadow, str(node.target))
        elif node.op in ("call_function", "call_method"):
            _rewrite_in_place(node)
    return fx.GraphModule(root, graph, class_name=type(model).__name__)


def _attribute(model: nn.Module, shadow: nn.Module, name: str) -> Any:
    for root in (model, shadow):  # tensor constants made while tracing live on the copy
        value: Any = root
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            return value
    raise ModelError(Fault("M104", f"the graph reads '{name}', which the model does not have"))


def _out_of_place(module: nn.Module) -> nn.Module:
    """The module itself, or a shallow copy with `inplace` off: an in-place φ would overwrite the saved h."""
    if getattr(module, "inplace", False) is not True:
        return module
    twin = copy.copy(module)
    twin.inplace = False  # type: ignore[assignment]
    return twin


def _rewrite_in_place(node: fx.Node) -> None:
    if node.kwargs.get("inplace") is True:
        node.kwargs = {**node.kwargs, "inplace": False}
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if not isinstance(name, str) or not name.endswith("_") or name.startswith("__"):
        return
    if node.op == "call_method" and hasattr(Tensor, name[:-1]):
        node.target = name[:-1]
    elif node.op == "call_function":
        plain = getattr(torch, name[:-1], None) or getattr(torch.nn.functional, name[:-1], None)
        node.target = plain or node.target


def _untraceable(error: Exception) -> Fault:
    where = line_of(error)
    line = source_line(where)
    if isinstance(error, fx.proxy.TraceError):
        return Fault(
            "M101",
            f"control flow depends on the data, so there is no one graph to compile: `{line}`",
            where,
            "decide it from shapes or constructor arguments, or use torch.where on tensors",
        )
    return Fault(
        "M102",
        f"the forward pass cannot be traced ({summary(error)}): `{line}`",
        where,
        "take sizes from x.shape (not len(x)) and keep Python values that depend on tensor contents out of "
        "the forward pass",
    )


def _source(node: fx.Node) -> str:
    """`file:line` of the user's code that made the node, '' where unknown."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
    own = [(f, n) for f, n in found if not f.startswith((*_LIBRARY, "<"))]
    if not own:
        return ""
    file, line = own[-1]
    return f"{shown(file)}:{line}"
