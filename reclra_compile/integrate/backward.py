"""One step as one operation of autograd: it gives the output, and in the backward pass the schedule's gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from reclra_compile.errors import Fault, TrainingError
from reclra_compile.integrate.borrow import Borrowed
from reclra_compile.integrate.labels import Reading
from reclra_compile.integrate.results import Results
from reclra_compile.runtime.halves import Halves
from reclra_compile.runtime.state import Slots

#: outputs and their gradients → what these say
Read = Callable[[Sequence[Tensor], Sequence[Tensor]], Reading]


class Pass:
    """A forward pass that waits for its backward pass; what it holds is freed with the output of the model."""

    def __init__(self, halves: Halves, borrowed: Borrowed, results: Results, read: Read, deep: frozenset[int]) -> None:
        self._halves, self._borrowed, self._results = halves, borrowed, results
        self._read, self._deep = read, deep
        self._slots: Slots = []
        self._output: Tensor | None = None
        self.learned: list[nn.Parameter] = []

    def run(self, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        """The model's outputs on `inputs`, through which the schedule's gradients reach its parameters."""
        with self._borrowed.lock:
            self._borrowed.check()
            return self._run(inputs)

    def _run(self, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        self.learned = [real for real, _ in self._borrowed.pairs() if real.requires_grad]
        self._inputs = inputs
        self._wanted = [k for k, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
        if not self._halves.pulled.issuperset(self._wanted):
            raise TrainingError(
                Fault("A008", "an input of the model wants a gradient, which this plan cannot give: its first regions "
                      "do not learn, or pass the input on past their error", fix="detach the input, or attach with "
                      'wiring="backprop"')
            )  # fmt: skip
        into = [*(inputs[k] for k in self._wanted), *self.learned]
        outputs: tuple[Tensor, ...] = _Step.apply(self, *into)  # type: ignore[no-untyped-call]
        return outputs

    def begin(self) -> tuple[Tensor, ...]:
        """The forward half; the caller's own copies of the outputs, which it may write to."""
        with self._borrowed.lent():
            self._slots, self._output = self._halves.begin(self._inputs, self._wanted)
        self._inputs = ()
        return tuple(part.clone() for part in self._results.parts(self._output))

    def needed(self) -> list[nn.Parameter]:
        """The weights that the backward pass reads as they are now: autograd watches over them."""
        return [p for p, alias in self._borrowed.pairs() if p.requires_grad and id(alias) in self._deep]

    def finish(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The other half, from the gradients at the outputs: those of inputs that want one, then of parameters.

        Outputs that the loss does not read have None. Raises TrainingError (A006) the second time.
        """
        with self._borrowed.lock:
            return self._finish(gradients)

    def _finish(self, given: Sequence[Tensor | None]) -> list[Tensor | None]:
        slots, output = self._slots, self._output
        if output is None:
            raise TrainingError(
                Fault("A006", "a second backward pass through one forward pass of an attached model",
                      fix="call the model again, or add the losses and call backward() on their sum")
            )  # fmt: skip
        self._slots, self._output = [], None
        parts = self._results.parts(output)
        gradients = [torch.zeros_like(z) if g is None else g for z, g in zip(parts, given, strict=True)]
        reading = self._read(parts, gradients)
        gradient = self._results.gradient(gradients)
        try:
            with self._borrowed.lent():
                at_inputs = self._halves.finish(slots, gradient, reading.factor, reading.amplified, reading.loss)
        except BaseException:
            self._borrowed.take()  # what a failed step has left must not be a part of the next one's
            raise
        found = self._borrowed.take()
        if any(g is None for g in given):  # what only outputs without a loss read has no gradient, as in plain torch
            found = {k: g for k, g in found.items() if bool(g.any())}
        return [*at_inputs, *(found.get(id(p)) for p in self.learned)]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pending: Pass, *into: Tensor) -> tuple[Tensor, ...]:
        ctx.pending = pending
        ctx.set_materialize_grads(False)
        outputs = pending.begin()
        ctx.save_for_backward(*pending.needed())
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # raises where a weight has changed since, or the graph is freed
        return None, *ctx.pending.finish(gradients)
