"""Reads all outputs of a model: one factor for the step, and the losses at all outputs as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from reclra_compile.errors import Fault, UserError
from reclra_compile.integrate.labels import Reading, by_labels, read
from reclra_compile.integrate.losses import loss_of
from reclra_compile.integrate.results import Results
from reclra_compile.runtime.loss import LossFunction, reduction_of

#: the loss of a model's output, or of each of several by name
LossFunctions = LossFunction | Mapping[str, LossFunction]


class Reader:
    """The losses that the loop was said to use, one for each output."""

    def __init__(
        self, results: Results, loss_fn: LossFunctions, reduction: str | None, wants_labels: bool
    ) -> None:
        self._results, self._wants_labels = results, wants_labels
        self._given = loss_fn
        if callable(loss_fn):
            several = len(results.names) > 1  # one loss cannot be that of all of them: each is found out
            losses = [replace(loss_of(loss_fn, reduction), kind="") if several else loss_of(loss_fn, reduction)]
            self._losses = losses * len(results.names)
            return
        unknown = [name for name in loss_fn if name not in results.names]
        if unknown:
            message = f"the model returns no '{unknown[0]}' to compute a loss from"
            raise UserError(Fault("A004", message, fix=f"it returns {', '.join(results.names)}"))
        self._losses = [loss_of(loss_fn.get(name, _unknown), reduction) for name in results.names]

    def read(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], scale: float | None) -> Reading:
        """What the gradients say. Errors of all outputs have one factor: that of the first that tells its own."""
        found = [
            read(z, g, loss, scale, self._wants_labels)
            for z, g, loss in zip(outputs, gradients, self._losses, strict=True)
        ]
        if len(found) == 1:
            return found[0]
        told = [r for r in found if r.told]
        heard = [r for r, g in zip(found, gradients, strict=True) if bool((g != 0).any())]
        main = (told or heard or found)[0]
        return replace(main, loss=self._sum([r.loss for r in found]))

    def by_labels(self, output: Tensor, gradient: Tensor, y: Any) -> Reading:
        """As `read`, of a model with one output, where the loop has handed the labels over."""
        loss_fn = self._given if callable(self._given) else self._given[self._results.names[0]]
        (loss,) = self._losses
        reduction = loss.reduction or reduction_of(loss_fn, output, y)
        return by_labels(output, gradient, loss_fn, y, 1.0 if reduction == "sum" else 1.0 / len(output))

    def _sum(self, losses: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
        def run(output: Tensor) -> Tensor:
            parts = [loss(r) for loss, r in zip(losses, self._results.parts(output), strict=True)]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            return total

        return run


def _unknown(output: Tensor, y: Any) -> Tensor:
    """Stands for a loss that nobody named."""
    return F.mse_loss(output, y)
