"""What a graph of several microbatches takes for granted: that each counts as much as it has samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from reclra_compile.errors import Fault, UserError
from reclra_compile.runtime.loss import LossFunction
from reclra_compile.runtime.microbatch import microbatches
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.shares import shares


@dataclass(frozen=True)
class Even:
    """A look at the labels of a batch before it is cut into `count` microbatches of at least `fewest` samples."""

    loss_fn: LossFunction
    count: int
    fewest: int

    @classmethod
    def of(cls, program: Program) -> Even | None:
        """The look that a program's graph needs: none for one microbatch, or a loss that weighs all samples alike."""
        loss, count = program.loss_fn, program.plan.schedule.microbatches
        weighs = isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or loss in (F.cross_entropy, F.nll_loss)
        return cls(loss, count, program._fewest) if count > 1 and weighs else None

    def check(self, batch: Sequence[Tensor]) -> None:
        """Raise UserError (X006) where microbatches count for more or less than their samples."""
        parts = microbatches(batch, self.count, self.fewest)
        sizes = [n for n, _ in parts]
        weights = shares(self.loss_fn, [values[-1] for _, values in parts], sizes)
        if any(abs(w - n / sum(sizes)) > 1e-6 for w, n in zip(weights, sizes, strict=True)):
            raise UserError(
                Fault("X006", "ignored labels, or classes of unequal weight, let microbatches count unequally, which "
                      "a graph cannot know", fix="compile with microbatches=1 for the graph, or use program.step")
            )  # fmt: skip
