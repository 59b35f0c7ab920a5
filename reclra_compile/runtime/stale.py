"""Staleness 1: a step's gradients are those of the weights before the last update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from reclra_compile.errors import Fault, PlanError


class Learner(Protocol):
    """What has weights that an optimizer changes."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """All of them, each once."""
        ...


class Delayed:
    """Inside, the weights are those of the step before: W(t+1) = W(t) − η g(W(t−1); batch t).

    The first step is not stale. One copy of all weights is kept, and one more while a step runs. Every step counts as
    an update: gradients that add up over several steps are those of different weights.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._before: list[Tensor] | None = None
        self._now: list[Tensor] = []

    def __enter__(self) -> None:
        self._now = [p.detach().clone() for p in self._learner.parameters()]
        if self._before is not None:
            self._put(self._before)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            self._put(self._now)
        if kind is None:  # a step that failed is no step
            self._before = self._now
        self._now = []

    def state(self) -> list[Tensor]:
        """The weights of the step before; [] before the first."""
        return list(self._before or ())

    def restore(self, before: Sequence[Tensor] | None) -> None:
        """Put what `state` gave back; raises PlanError (P011) where it is missing or of other shapes."""
        shapes = [p.shape for p in self._learner.parameters()]
        fits = isinstance(before, list | tuple) and all(isinstance(b, Tensor) for b in before)
        if before is None or not fits or (before and [b.shape for b in before] != shapes):
            raise PlanError(
                Fault("P011", "this state has no weights of the step before, which staleness 1 needs",
                      fix="load a checkpoint that was made with staleness 1")
            )  # fmt: skip
        self._before = [b.detach().clone() for b in before] or None

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for p, value in zip(self._learner.parameters(), values, strict=True):
                p.copy_(value)
        torch.clear_autocast_cache()  # which knows weights by their place, not by their value
