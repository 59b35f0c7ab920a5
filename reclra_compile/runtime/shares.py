"""How much each microbatch counts in a mean loss, and whether a loss can be cut into microbatches at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.runtime.loss import LossFunction, loss_and_gradient

CLOSE = 1e-2  #: relative: how far the parts' gradients may be from the batch's; rounding is less, in bfloat16 too


def shares(loss_fn: LossFunction, targets: Sequence[Any], samples: Sequence[int]) -> list[float]:
    """The weight of each microbatch in the batch's mean, summing to 1: its part of the samples, or of their weights.

    Cross entropy divides by the weights of the classes that occur, and by what is not `ignore_index`.
    """
    weights = [w for y in targets if (w := _weight(loss_fn, y)) is not None]
    found = torch.stack(weights).tolist() if len(weights) == len(targets) else []  # one wait for the device
    whole = math.fsum(found)
    if not whole:
        return [n / sum(samples) for n in samples]
    return [w / whole for w in found]


def _weight(loss_fn: LossFunction, y: Any) -> Tensor | None:
    """Sum of the weights of a microbatch's labels; None for losses that do not weigh class labels."""
    known = isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss)
    if not (known or loss_fn in (F.cross_entropy, F.nll_loss)) or not isinstance(y, Tensor) or y.is_floating_point():
        return None
    ignored = getattr(loss_fn, "ignore_index", -100)
    counted = y != ignored
    weight = getattr(loss_fn, "weight", None)
    return counted.sum() if weight is None else (weight[y.where(counted, 0)] * counted).sum()


def check_parts(
    loss_fn: LossFunction, outputs: Tensor, gradients: Tensor, target: Any
) -> None:
    """Raise TrainingError (T029) where the gradients at the microbatches' outputs are not those of the batch's loss."""
    _, whole = loss_and_gradient(loss_fn, outputs, target)
    off = float((gradients - whole).norm() / whole.norm())
    if off > CLOSE:
        raise TrainingError(
            Fault("T029", "the loss of a batch cannot be put together from its microbatches: their gradients at the "
                  f"output are {off:.1%} off the batch's", fix="use a loss that is a mean or a sum over samples, or "
                  "train with 1 microbatch")
        )  # fmt: skip
