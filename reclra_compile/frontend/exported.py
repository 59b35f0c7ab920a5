"""Graphs by torch.export: aten operations, for what torch.fx cannot see through (asserts, len, HuggingFace code).

Sizes other than the batch are those of the example inputs. Where the code makes a number of the batch
size, the graph holds for that size only, and says so when it is run with another.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.frontend.example import Example, with_batch
from reclra_compile.frontend.functional import aten_name, out_of_place, writes_last
from reclra_compile.frontend.local import keep_batches, read_sizes_nearby
from reclra_compile.frontend.outputs import Joined, Path, parts_of
from reclra_compile.frontend.symbolic import countable, drop_dead

_CHECKS = frozenset((
    "_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size",
))  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """An exported graph, the tensors it makes up (by the name its nodes use), and whether it takes any batch size."""

    graph: fx.Graph
    constants: dict[str, Any]
    any_batch: bool


class _Autocast(nn.Module):
    """A part of the model that runs under its own autocast setting."""

    def __init__(self, settings: tuple[Any, ...], inner: nn.Module) -> None:
        super().__init__()
        self.settings, self.inner = settings, inner

    def forward(self, *args: Any) -> Any:
        """What the part returns."""
        device, dtype, enabled, cache = self.settings
        with torch.autocast(device, dtype, enabled, cache):
            return self.inner(*args)


def sized(x: Tensor, low: int, high: float) -> Tensor:
    """`x` itself; raises TrainingError (T007) where the graph does not hold for its batch size."""
    if not low <= x.shape[0] <= high:
        wanted = f"{low}" if low == high else f"{low} or more" if math.isinf(high) else f"{low} to {int(high)}"
        raise TrainingError(
            Fault(
                "T007",
                f"the model's code fixes the batch size: its graph holds for {wanted}, not {x.shape[0]}",
                fix="keep batches of one size (drop the last, smaller one), or take sizes from x.shape in forward()",
            )
        )
    return x


class Exporter:
    """Exports a model once, for graphs with and without functionalising."""

    def __init__(self, shadow: nn.Module, example: Example, path: Path | Joined) -> None:
        """`shadow` is a copy of the model of its own; its output at `path` is the graph's."""
        forward = shadow.forward

        @functools.wraps(forward)
        def chosen(*args: Any, **kwargs: Any) -> Any:
            return parts_of(forward(*args, **kwargs), path)

        shadow.forward = chosen
        self._shadow, self._example = shadow, example
        self._made: torch.export.ExportedProgram | None = None

    @property
    def _program(self) -> torch.export.ExportedProgram:
        if self._made is None:
            example = self._example
            batch = example.tensors[0].shape[0]
            # A batch of one is taken for a size that never changes, so the graph is made with two.
            self._made = _program(self._shadow, with_batch(example, 2) if batch == 1 else example)
            if batch == 1 and not _any_batch(self._made):
                self._made = _program(self._shadow, example)
            _inline_no_grad(self._made)
        return self._made

    def graph(self, functional: bool) -> Exported:
        """The model's graph; raises what torch.export raises, or Aliased.

        `functional`: writes into views and buffers are turned into values, and buffers written at the end.
        """
        program = self._program
        with _quiet():
            module = (program.run_decompositions({}) if functional else program).module()
        constants: dict[str, Any] = {}
        graph = _flat(module, constants)
        if functional:
            writes_last(graph)
        else:
            out_of_place(graph, {name for name, _ in self._shadow.named_buffers(remove_duplicate=False)})
        keep_batches(graph)
        read_sizes_nearby(graph)
        drop_dead(graph)
        placeholders = [n for n in graph.nodes if n.op == "placeholder"]
        for node, bounds in zip(placeholders, _ranges(program), strict=True):
            if bounds is not None:
                _bound(graph, node, *bounds)
        return Exported(graph, constants, _any_batch(program))


def _program(shadow: nn.Module, example: Example) -> torch.export.ExportedProgram:
    batch = example.tensors[0].shape[0]

    def axes(value: Any) -> Any:
        return {0: Dim.AUTO} if isinstance(value, Tensor) and value.shape[0] == batch else None

    shapes: Any = {k: axes(v) for k, v in example.named.items()} if example.named else tuple(map(axes, example.args))
    meta = any(p.is_meta for p in shadow.parameters())
    with _quiet(), countable(shadow), torch.device("meta") if meta else contextlib.nullcontext():
        return torch.export.export(shadow, example.args, example.named, dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export writes graphs and advice about itself; what matters to the user is in the report."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        silent = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _placeholders(program: torch.export.ExportedProgram) -> list[fx.Node]:
    given = set(program.graph_signature.user_inputs)
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in given]


def _ranges(program: torch.export.ExportedProgram) -> list[tuple[int, float] | None]:
    """Batch sizes that the graph holds for, for each tensor input; None where it holds for all."""
    result: list[tuple[int, float] | None] = []
    for node in _placeholders(program):
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            continue
        size: Any = value.shape[0]
        expression: Any = None if isinstance(size, int) else size.node.expr
        if expression is None or expression.is_number:
            result.append((int(size), int(size)))
            continue
        bounds = program.range_constraints.get(expression)
        low = 0 if bounds is None else int(bounds.lower)
        high = math.inf if bounds is None or not str(bounds.upper).isdigit() else int(bounds.upper)
        # From 2 on is how torch.export says that a batch of one broadcasts like any other.
        result.append(None if low <= 2 and high > 1 << 32 else (low, high))
    return result


def _any_batch(program: torch.export.ExportedProgram) -> bool:
    return not any(bounds is not None and bounds[0] == bounds[1] for bounds in _ranges(program)[:1])


def _bound(graph: fx.Graph, placeholder: fx.Node, low: int, high: float) -> None:
    users = list(placeholder.users)
    with graph.inserting_after(placeholder):
        checked = graph.call_function(sized, (placeholder, low, high))
    for user in users:
        user.replace_input_with(placeholder, checked)


def _flat(module: fx.GraphModule, constants: dict[str, Any]) -> fx.Graph:
    """The nodes of an exported module with tensors as inputs and outputs, without its run-time checks."""
    graph = fx.Graph()
    env: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor):
            env[node] = graph.node_copy(node)
            env[node].args = ()
    _inline(graph, module, env, constants)
    result = fx.map_arg(next(n for n in module.graph.nodes if n.op == "output").args[0], env.__getitem__)
    while isinstance(result, (tuple, list)) and len(result) == 1:
        result = result[0]
    graph.output(result)
    return graph


def _inline(graph: fx.Graph, module: fx.GraphModule, env: dict[fx.Node, Any], constants: dict[str, Any]) -> None:
    for node in module.graph.nodes:
        if node in env or node.op in ("placeholder", "output") or str(node.target).endswith("_guards_fn"):
            continue
        if node.op == "get_attr" and isinstance(_attribute(module, str(node.target)), nn.Module):
            continue  # a part that another node runs
        if aten_name(node.target) in _CHECKS:
            continue
        if _name(node) == "wrap_with_autocast":
            env[node] = _autocast(graph, module, node, env, constants)
            continue
        if node.op == "get_attr":
            constants.setdefault(str(node.target), _attribute(module, str(node.target)))
        env[node] = graph.node_copy(node, env.__getitem__)


def _attribute(module: nn.Module, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _autocast(
    graph: fx.Graph, module: fx.GraphModule, node: fx.Node, env: dict[fx.Node, Any], constants: dict[str, Any]
) -> fx.Node:
    """A part of the model under its own autocast setting, as one module."""
    at = next(k for k, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
    name = f"autocast_{node.name}"
    constants[name] = _Autocast(tuple(node.args[:at]), _attribute(module, str(node.args[at].target)))  # type: ignore[union-attr]
    return graph.call_module(name, fx.map_arg(node.args[at + 1 :], env.__getitem__))


def _inline_no_grad(program: torch.export.ExportedProgram) -> None:
    """Put parts under torch.no_grad into the graph, with what they read detached.

    Functionalising would drop the parts' borders, and a gradient would flow where the model has none.
    """
    module = program.graph_module
    buffers = set(program.graph_signature.inputs_to_buffers)
    while parts := [n for n in module.graph.nodes if _name(n) == "wrap_with_set_grad_enabled"]:
        for node in parts:
            enabled, inner = node.args[0], _attribute(module, str(node.args[1].target))
            inside: dict[fx.Node, Any] = {}
            with module.graph.inserting_before(node):
                starts = [n for n in inner.graph.nodes if n.op == "placeholder"]
                for start, given in zip(starts, node.args[2:], strict=True):
                    free = enabled or not _differentiable(given) or given.name in buffers
                    inside[start] = given if free else _detached(module.graph, given)
                for made in inner.graph.nodes:
                    if made.op == "get_attr":
                        setattr(module, f"{node.name}_{made.target}", _attribute(inner, str(made.target)))
                        inside[made] = module.graph.get_attr(f"{node.name}_{made.target}")
                    elif made.op not in ("placeholder", "output"):
                        inside[made] = module.graph.node_copy(made, inside.__getitem__)
            results = fx.map_arg(next(n for n in inner.graph.nodes if n.op == "output").args[0], inside.__getitem__)
            for user in list(node.users):
                user.replace_all_uses_with(results[user.args[1]])
                module.graph.erase_node(user)
            module.graph.erase_node(node)
    module.recompile()


def _differentiable(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, Tensor) and value.is_floating_point()


def _detached(graph: fx.Graph, node: fx.Node) -> fx.Node:
    made = graph.call_function(torch.ops.aten.detach.default, (node,))
    made.meta = {k: node.meta[k] for k in ("val", "nn_module_stack", "stack_trace") if k in node.meta}
    return made


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", ""))
