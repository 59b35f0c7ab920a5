"""What tasks share while a program runs: slots for values, and the facts of the current step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

Slots = list[Any]


class Errors(NamedTuple):
    """Error neurons of a region: `e` per sample (None where nobody reads it), `c` = e × loss scale.

    The loss scale is 1/N where the loss is a mean over N samples and 1 where it is a sum, so that a
    VJP with cotangent c is a gradient of the loss.
    """

    e: Tensor | None
    c: Tensor


@dataclass(slots=True)
class StepState:
    """The current step: loss scale, batch size, terms of D(Θ), and one-hot labels once made."""

    scale: float = 1.0
    batch: int = 1
    discrepancy: dict[str, Tensor] = field(default_factory=dict)
    one_hot: Tensor | None = None


class SlotMap:
    """Numbers for value names; slot 0 holds the StepState."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        return self._index.setdefault(name, len(self._index) + 1)

    def __len__(self) -> int:
        return len(self._index) + 1
