"""The loss at the output: its value, its gradient, and whether it is a mean or a sum over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.runtime.precision import outside_autocast
from reclra_compile.runtime.tracing import is_traced

LossFunction = Callable[[Tensor, Any], Tensor]


def loss_and_gradient(loss_fn: LossFunction, output: Tensor, target: Any) -> tuple[Tensor, Tensor]:
    """loss(output, target) and its gradient with respect to `output`; raises TrainingError (T001)."""
    leaf = output.detach().requires_grad_(True)
    with torch.enable_grad():
        loss = loss_fn(leaf, target)
        if not isinstance(loss, Tensor) or loss.ndim:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise TrainingError(
                Fault("T001", f"the loss is {shape}, not a scalar", fix="use reduction='mean' or 'sum'")
            )
    with outside_autocast(leaf.device.type):
        (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def reduction_of(loss_fn: LossFunction, output: Tensor, target: Any) -> str:
    """"mean" or "sum", from the loss's own `reduction` or by trying it on the batch doubled.

    A mean halves each sample's gradient when every sample appears twice; a sum leaves it as it is.
    Raises TrainingError (T002) for a loss that is neither.
    """
    named = getattr(loss_fn, "reduction", None)
    if named in ("mean", "sum"):
        return str(named)
    _, once = loss_and_gradient(loss_fn, output, target)
    twice_output = torch.cat([output, output])
    twice_target = tree_map(lambda t: torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t, target)
    _, twice = loss_and_gradient(loss_fn, twice_output, twice_target)
    before, after = once.double().norm().item(), twice[: len(once)].double().norm().item()
    if not math.isfinite(before) or not math.isfinite(after):
        raise TrainingError(
            Fault("T010", "the loss or its gradient is not finite in the first step",
                  fix="look for values that are not finite in the data and in the model's output")
        )
    if abs(after - 0.5 * before) <= 1e-3 * before:
        return "mean"
    if abs(after - before) <= 1e-3 * before:
        return "sum"
    raise TrainingError(
        Fault(
            "T002",
            "the loss is neither a mean nor a sum over the batch "
            f"(doubling the batch scales a sample's gradient by {after / before:.3g})",
            fix="pass reduction='mean' or reduction='sum' to compile()",
        )
    )


def is_plain_cross_entropy(loss_fn: LossFunction, logits: Tensor, target: Any) -> bool:
    """True where the loss is softmax cross entropy on class indices, so that its gradient has a closed form.

    Never in a graph, whose labels may be ignored ones another time.
    """
    if is_traced():
        return False
    plain = loss_fn is F.cross_entropy or (
        type(loss_fn) is torch.nn.CrossEntropyLoss
        and loss_fn.weight is None
        and loss_fn.label_smoothing == 0.0
        and loss_fn.ignore_index < 0
        and loss_fn.reduction in ("mean", "sum")
    )
    if not plain or logits.ndim != 2 or not isinstance(target, Tensor):
        return False
    return target.ndim == 1 and not target.is_floating_point() and not bool((target < 0).any())
