"""A program whose tasks work on aliases of the model's parameters; to the outside it is any other one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from reclra_compile.integrate.borrow import Borrowed
from reclra_compile.ir import Plan
from reclra_compile.runtime.linked import Linked
from reclra_compile.runtime.program import Program


class AttachedProgram(Program):
    """`step`, `observe` and the like run as in a Program, and fill `.grad` of the model's own parameters."""

    def __init__(
        self, plan: Plan, model: nn.Module, linked: Linked, synapses: nn.Module, borrowed: Borrowed,
        output: str | int | None,
    ) -> None:  # fmt: skip
        super().__init__(plan, model, linked, synapses, output)
        self.borrowed = borrowed

    def step(self, *batch: Any) -> Tensor:
        """As `Program.step`."""
        with self.borrowed.lock:
            try:
                with self.borrowed.lent():
                    loss = super().step(*batch)
            except BaseException:
                self.borrowed.take()  # what a failed step has left must not be a part of the next one's
                raise
            found = self.borrowed.take()
            for real, _ in self.borrowed.pairs():
                gradient = found.get(id(real))
                if gradient is not None:
                    real.grad = gradient if real.grad is None else real.grad + gradient
        return loss

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """As `Program.at_work`: the aliases."""
        return self.borrowed.lent()

    def first_non_finite(self, *inputs: Any) -> str | None:
        """As `Program.first_non_finite`."""
        with self.borrowed.lent():
            return super().first_non_finite(*inputs)

    def readout_parameters(self) -> Iterator[nn.Parameter]:
        """As `Program.readout_parameters`."""
        own = self.borrowed.own()
        return (own[id(p)] for p in super().readout_parameters())

    def rated_parameters(self) -> dict[str, list[nn.Parameter]]:
        """As `Program.rated_parameters`."""
        own = self.borrowed.own()
        return {rate: [own.get(id(p), p) for p in group] for rate, group in super().rated_parameters().items()}
