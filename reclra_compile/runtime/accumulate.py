"""Weight gradients of dense layers added to `.grad` in one product, where several microbatches add up.

Autograd makes each microbatch's gradient as a matrix of its own and adds it to the sum: three passes over as many bytes
as the weights have, and fresh memory each time. A product that adds to what is there takes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from reclra_compile.rules.kernels import add_grad, add_product
from reclra_compile.runtime.region import Live

_VIEWS = ("ViewBackward0", "UnsafeViewBackward0")


def accumulate(live: Live, cotangents: Sequence[Tensor | None], learned: Sequence[nn.Parameter]) -> bool:
    """Add what `vjp` would, where the region's graph is one dense layer with parameters of its own; else False.

    A graph that anything else takes part in, such as a cast or a hook on a parameter, is left to autograd.
    """
    if live.again is not None or len(live.roots) != 1 or len(cotangents) != 1 or len(live.leaves) > 1:
        return False
    node: Any = getattr(live.roots[0], "grad_fn", None)
    c = cotangents[0]
    if type(node).__name__ in _VIEWS:
        node = node.next_functions[0][0]
    kind = type(node).__name__
    if c is None or kind not in ("AddmmBackward0", "MmBackward0") or (kind[0] == "A" and not _plain(node)):
        return False
    *added, into, turned = (fn for fn, _ in node.next_functions)
    if type(turned).__name__ != "TBackward0":
        return False
    weight = _leaf(turned.next_functions[0][0])
    bias = _leaf(added[0]) if added else None
    x = getattr(node, "_saved_mat1" if added else "_saved_self", None)
    leaf = next(iter(live.leaves.values()), None)
    if x is None or not _ours(weight, learned) or (added and not _ours(bias, learned)):
        return False
    if len(learned) != 1 + len(added) or (leaf is not None and _leaf(into) is not leaf):
        return False
    c = c.reshape(-1, c.shape[-1])
    if leaf is not None:
        leaf.grad = c.mm(weight)
    add_product(weight, c.t(), x)
    if bias is not None:
        add_grad(bias, c.sum(0))
    return True


def _plain(node: Any) -> bool:
    """True for h = b + x Wᵀ without factors."""
    return getattr(node, "_saved_alpha", 0) == 1 and getattr(node, "_saved_beta", 0) == 1


def _leaf(node: Any) -> Any:
    """The tensor that a node of the graph adds gradients to; None for other nodes."""
    return getattr(node, "variable", None)


def _ours(parameter: Any, learned: Sequence[nn.Parameter]) -> bool:
    """True for a parameter that this region learns, and that nobody listens to."""
    hooks = getattr(parameter, "_backward_hooks", None) or getattr(parameter, "_post_accumulate_grad_hooks", None)
    return not hooks and any(parameter is p for p in learned)
