"""What a loss function says of itself: which loss it is, whether it is a mean, and its options."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.integrate.factor import Known
from reclra_compile.runtime.loss import LossFunction

_FUNCTIONS: dict[Any, str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "nll",
    F.mse_loss: "mse",
    F.binary_cross_entropy_with_logits: "bce_logits",
    F.binary_cross_entropy: "bce",
}
_CLASSES: dict[type[nn.Module], str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll",
    nn.MSELoss: "mse",
    nn.BCEWithLogitsLoss: "bce_logits",
    nn.BCELoss: "bce",
}


@dataclass(frozen=True)
class Loss:
    """`kind` is "" for a loss that is not known; `reduction` None where the loss does not say."""

    kind: str
    reduction: str | None
    weight: Tensor | None = None
    positive: Tensor | None = None
    epsilon: float | None = None

    @property
    def known(self) -> Known:
        """What matters for rows of a cross entropy; a function may be called with smoothing that it does not show."""
        return Known(self.epsilon, self.weight)


def loss_of(loss_fn: LossFunction, reduction: str | None) -> Loss:
    """The loss that `loss_fn` is: one of torch's functions or classes, or a functools.partial of a function."""
    given: dict[str, Any] = {}
    function: Any = loss_fn
    while isinstance(function, functools.partial):
        given = {**function.keywords, **given}
        function = function.func
    named = {} if not isinstance(function, nn.Module) else vars(function) | function._buffers
    kind = _CLASSES.get(type(function), "") if isinstance(function, nn.Module) else _FUNCTIONS.get(function, "")

    def option(name: str) -> Any:
        return given.get(name, named.get(name))

    said = reduction or option("reduction")
    return Loss(
        kind, said if said in ("mean", "sum") else None, option("weight"), option("pos_weight"),
        option("label_smoothing") or None,
    )  # fmt: skip
