"""Trace a model into one graph over its own parameters, by the first of three ways that computes the same.

torch.fx keeps the model's modules and any batch size; torch.export sees through Python code that fx cannot;
a functionalised export also through writes into views and buffers. Each works on a structural copy, so
tracing changes nothing of the user's model, and a probe compares each graph with the model.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

import reclra_compile
from reclra_compile.errors import Fault, ModelError
from reclra_compile.frontend import refusal
from reclra_compile.frontend.effects import homes
from reclra_compile.frontend.example import Example, example_of
from reclra_compile.frontend.exported import Exported, Exporter
from reclra_compile.frontend.outputs import Joined, Path, choose, joined
from reclra_compile.frontend.probe import Probe
from reclra_compile.frontend.share import shared_copy
from reclra_compile.frontend.symbolic import trace_symbolically
from reclra_compile.frontend.user_code import shown

#: frames below these folders are not the user's code
_LIBRARY = tuple(os.path.join(os.path.dirname(f), "") for f in (torch.__file__, reclra_compile.__file__))


@dataclass(frozen=True)
class Traced:
    """A traced model: `graph` with the modules and tensors its nodes name, and the example inputs.

    `inputs` are in the order of the graph's placeholders, the last of them named by `keywords`. `sources`
    and `paths` give `file:line` and the innermost module's path of each node, by its name. `effects` maps
    each node that writes a buffer to the node whose region carries the write along.
    """

    graph: fx.Graph
    module: fx.GraphModule
    modules: dict[str, nn.Module]
    model: nn.Module
    inputs: tuple[Any, ...]
    sources: dict[str, str]
    keywords: tuple[str, ...] = ()
    paths: dict[str, str] = field(default_factory=dict)
    effects: dict[fx.Node, fx.Node] = field(default_factory=dict)
    route: str = "fx"


def trace(model: nn.Module, example_inputs: Any, output: str | int | None = None) -> Traced:
    """Trace `model` on `example_inputs` (a tensor, a tuple of positional or a dict of named ones, batch first).

    `output` chooses one output of several, by name or position. Raises ModelError (M1xx, M202) that names
    the user's source line and says what was tried where the forward pass has no one graph.
    """
    example = example_of(model, example_inputs)
    probe = Probe(model, example)
    path = choose(probe.result, output, model)
    tried: list[refusal.Attempt] = []
    for name, route in _routes(model, example, path).items():
        try:
            candidate = route()
            joined(candidate.graph)
            module = _bind(candidate, model)
            wrong = probe.mismatch(module, path, candidate.any_batch)
        except Exception as error:
            tried.append(refusal.Attempt(name, error))
            continue
        if not wrong:
            return _traced(name, candidate.graph, module, model, example)
        tried.append(refusal.Attempt(name, None))
    raise ModelError(refusal.fault(model, tried)) from next((a.error for a in tried if a.error), None)


def _routes(model: nn.Module, example: Example, path: Path | Joined) -> dict[str, Callable[[], Exported]]:
    exporter = Exporter(shared_copy(model), example, path)
    return {
        "torch.fx": lambda: _fx(shared_copy(model), example, path),
        "torch.export": lambda: exporter.graph(functional=False),
        "functionalised export": lambda: exporter.graph(functional=True),
    }


def _fx(shadow: nn.Module, example: Example, path: Path | Joined) -> Exported:
    graph = trace_symbolically(shadow, example, path)
    made = {str(n.target): _attribute(shadow, str(n.target)) for n in graph.nodes if n.op == "get_attr"}
    return Exported(graph, made, any_batch=True)


def _bind(candidate: Exported, model: nn.Module) -> fx.GraphModule:
    """A GraphModule over the user's own parameters, buffers and modules."""
    root: dict[str, Any] = {}
    for node in candidate.graph.nodes:
        name = str(node.target)
        if node.op == "call_module":
            root[name] = candidate.constants[name] if name in candidate.constants else _own(model, name)
        elif node.op == "get_attr":
            value = _attribute(model, name)
            root[name] = candidate.constants.get(name) if value is None else value
            if root[name] is None:
                raise ModelError(Fault("M104", f"the graph reads '{name}', which the model does not have"))
    return fx.GraphModule(root, candidate.graph, class_name=type(model).__name__)


def _own(model: nn.Module, name: str) -> nn.Module:
    """The user's module, or a shallow copy with `inplace` off: an in-place φ would overwrite the saved h."""
    module = model.get_submodule(name)
    if getattr(module, "inplace", False) is not True:
        return module
    twin = copy.copy(module)
    twin.inplace = False  # type: ignore[assignment]
    return twin


def _attribute(root: nn.Module, name: str) -> Any:
    value: Any = root
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _traced(route: str, graph: fx.Graph, module: fx.GraphModule, model: nn.Module, example: Example) -> Traced:
    modules = {str(n.target): module.get_submodule(str(n.target)) for n in graph.nodes if n.op == "call_module"}
    return Traced(
        module.graph,
        module,
        modules,
        model,
        example.tensors,
        {n.name: _source(n) for n in module.graph.nodes},
        example.keywords,
        {n.name: _path(n) for n in module.graph.nodes},
        homes(module, modules),
        route,
    )


def _path(node: fx.Node) -> str:
    """The path of the innermost module whose code made the node, '' at the model's top level."""
    if node.op == "call_module":
        return str(node.target)
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0]
    places = [p for p, _ in (node.meta.get("nn_module_stack") or {}).values() if not p.startswith("_empty")]
    # A module called twice is `path@1` the second time.
    return str(places[-1]).partition("@")[0] if places else ""


def _source(node: fx.Node) -> str:
    """`file:line` of the user's code that made the node, '' where unknown."""
    found = re.findall(r'File "([^"]+)", line (\d+)', node.stack_trace or "")
    own = [(f, n) for f, n in found if not f.startswith((*_LIBRARY, "<"))]
    if not own:
        return ""
    file, line = own[-1]
    return f"{shown(file)}:{line}"
