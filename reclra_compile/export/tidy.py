"""From what torch's tracer left to a graph that is read: names, no detours, and only what something depends on."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import TensorMetadata, _extract_tensor_metadata

from reclra_compile.export.part import Part
from reclra_compile.export.record import Recorded

aten = torch.ops.aten


def tidied(
    recorded: Recorded, names: Sequence[str], batch: Sequence[Tensor]
) -> tuple[fx.Graph, dict[str, Tensor]]:
    """A graph called with the batch by `names`, and the tensors that it reads by their paths.

    It gives (loss, {name: gradient}). Parameters are detached where they come in, so that no operation makes a graph of
    autograd's; every other `detach` is then without effect and left out.
    """
    recorded.graph.graph.eliminate_dead_code(is_impure_node=_acts)
    tidy = _Tidy(recorded, names, batch)
    for node in recorded.graph.graph.nodes:
        tidy.add(node)
    tidy.graph.eliminate_dead_code(is_impure_node=_acts)  # what only a detour was for
    return tidy.graph, tidy.tensors


def _acts(node: fx.Node) -> bool:
    """True for what is done for its effect: writing to memory, or drawing random numbers, which moves the generator."""
    if node.op in ("placeholder", "output"):
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    writes = schema.is_mutable or node.target in _WRITES
    return writes or torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]


#: operations that write to buffers, whose schemas do not say so
_WRITES = (aten.native_batch_norm.default, aten.cudnn_batch_norm.default, aten.miopen_batch_norm.default)


class _Tidy:
    def __init__(self, recorded: Recorded, names: Sequence[str], batch: Sequence[Tensor]) -> None:
        self.graph, self.recorded = fx.Graph(), recorded
        self.tensors: dict[str, Tensor] = {}
        self.new: dict[fx.Node, fx.Node] = {}
        self.held: dict[fx.Node, str] = {}
        placeholders = [n for n in recorded.graph.graph.nodes if n.op == "placeholder"]
        self.held = dict(zip(placeholders, recorded.held, strict=False))
        for node, name, value in zip(placeholders[len(self.held) :], names, batch, strict=True):
            self.new[node] = self.graph.placeholder(name)
            self.new[node].meta["tensor_meta"] = _extract_tensor_metadata(value)

    def add(self, node: fx.Node) -> None:
        """The new node of an old one, or the one that has its value already."""
        if node.op == "get_attr":
            path = f"constants.{node.target}".replace("._", ".")
            self._attribute(node, path, _attribute(self.recorded.graph, str(node.target)), node.meta["task"])
        elif node.op == "call_function":
            for given in node.all_input_nodes:
                if given in self.held and given not in self.new:
                    self._attribute(given, self.held[given], self.recorded.held[self.held[given]], node.meta["task"])
            self._call(node)
        elif node.op == "output":
            self._output(node)

    def _attribute(self, node: fx.Node, path: str, value: Tensor, part: Part) -> None:
        self.tensors[path] = value
        plain = re.sub(r"^(model|synapses)\.", "", path)
        made = self.graph.create_node("get_attr", path, name=readable(path if value.requires_grad else plain))
        made.meta.update(task=part, tensor_meta=_extract_tensor_metadata(value))
        if value.requires_grad:
            meta = dict(made.meta)
            made = self.graph.create_node("call_function", aten.detach.default, (made,), name=readable(plain))
            made.meta.update(meta)
        self.new[node] = made

    def _call(self, node: fx.Node) -> None:
        first = node.args[0] if node.args else None
        if node.target is aten.detach.default and isinstance(first, fx.Node):
            self.new[node] = self.new[first]
            return
        if node.target is aten.t.default and isinstance(first, fx.Node):
            before = self.new[first]
            if before.target is aten.t.default:  # autograd turns gradients twice
                self.new[node] = before.args[0]  # type: ignore[assignment]
                return
        part: Part = node.meta["task"]
        given: Any = (node.args, node.kwargs)
        args, kwargs = (fx.map_arg(x, lambda n: self.new[n]) for x in given)
        name = readable(f"{part.kind}_{part.subject}_{_operation(node)}")
        if node.target is operator.getitem and isinstance(first, fx.Node):
            name = f"{self.new[first].name}_{node.args[1]}"
        args, kwargs = self._without_factor(node, args, kwargs, part)
        made = self.graph.create_node("call_function", node.target, args, kwargs, name)
        made.meta["task"] = part
        meta = _shapes(node)
        if meta is not None:
            made.meta["tensor_meta"] = meta
        self.new[node] = made

    def _without_factor(self, node: fx.Node, args: Any, kwargs: Any, part: Part) -> tuple[Any, Any]:
        """The arguments of a + α b with b α in place of b: Inductor loses α where b is a matrix product."""
        factor = kwargs.get("alpha", 1)
        if factor == 1 or _operation(node).strip("_") not in ("add", "sub") or not isinstance(args[1], fx.Node):
            return args, kwargs
        scaled = self.graph.create_node(
            "call_function", aten.mul.Tensor, (args[1], factor), {}, readable(f"{part.kind}_{part.subject}_mul")
        )
        scaled.meta.update({"task": part} | {k: v for k, v in args[1].meta.items() if k == "tensor_meta"})
        return (args[0], scaled, *args[2:]), {k: v for k, v in kwargs.items() if k != "alpha"}

    def _output(self, node: fx.Node) -> None:
        made: Any = node.args[0]
        loss, *grads = (self.new[n] for n in made)
        learned = [re.sub(r"^(model|synapses)\.", "", path) for path in self.recorded.learned]
        self.graph.output((loss, dict(zip(learned, grads, strict=True))))


def _operation(node: fx.Node) -> str:
    """The name of what a node does: `addmm` of `aten.addmm.default`."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).split("::")[-1] if schema is not None else str(getattr(node.target, "__name__", "value"))


def _shapes(node: fx.Node) -> TensorMetadata | None:
    """Shape, precision and memory format of what a node gives, where it gives one tensor."""
    found: Any = node.meta.get("tensor_meta")
    return found if isinstance(found, TensorMetadata) else None


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value


def readable(name: str) -> str:
    """A name as a Python identifier: `D_out_to_fc3_mm` of `D_out->fc3_mm`."""
    word = re.sub(r"\W+", "_", name.replace("->", "_to_"))
    return f"p_{word}" if word[:1].isdigit() else word
