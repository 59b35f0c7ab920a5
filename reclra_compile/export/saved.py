"""A step graph as plain data and tensors: what is pickled and copied."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map


@dataclass(frozen=True)
class Ref:
    """A node, by its name."""

    name: str


@dataclass(frozen=True)
class Saved:
    """Nodes in order as (kind, name, target, args, kwargs, meta), the tensors that they read by path, the comments, and
    what is known of the batch."""

    nodes: tuple[tuple[str, str, Any, Any, Any, dict[str, Any]], ...]
    tensors: dict[str, Tensor]
    titles: dict[str, str]
    expected: Any
    even: Any = None

    @classmethod
    def of(
        cls, graph: fx.Graph, tensors: dict[str, Tensor], titles: Mapping[str, str], expected: Any, even: Any
    ) -> Saved:
        """The plain form of a graph."""
        nodes = tuple(
            (n.op, n.name, _named(n.target), _by_name(n.args), _by_name(n.kwargs),
             {key: n.meta[key] for key in ("task", "tensor_meta") if key in n.meta})
            for n in graph.nodes
        )  # fmt: skip
        return cls(nodes, tensors, dict(titles), expected, even)

    def graph(self) -> fx.Graph:
        """The graph again."""
        made = fx.Graph()
        found: dict[str, fx.Node] = {}
        for op, name, target, *given, meta in self.nodes:
            args, kwargs = tree_map(lambda x: found[x.name] if isinstance(x, Ref) else x, given)
            found[name] = made.create_node(op, _target(target), tuple(args), dict(kwargs), name)
            found[name].meta.update(meta)
        return made


def _by_name(given: Any) -> Any:
    """Arguments with names in place of nodes."""
    name: Any = lambda node: Ref(node.name)  # noqa: E731
    return fx.map_arg(given, name)


def _named(target: Any) -> Any:
    """An operation of torch as text; anything else as it is."""
    return ("op", str(target)) if isinstance(target, torch._ops.OpOverload) else target


def _target(named: Any) -> str | Callable[..., Any]:
    if isinstance(named, tuple):
        found: Callable[..., Any] = operator.attrgetter(named[1])(torch.ops)
        return found
    return named  # type: ignore[no-any-return]
