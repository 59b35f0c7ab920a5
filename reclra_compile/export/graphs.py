"""The step graphs of a program by what they are made for: the batch's shapes, modes, autocast, and what learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reclra_compile.export.batch import example, signature
from reclra_compile.export.step_graph import StepGraph, step_graph
from reclra_compile.export.weights import Even
from reclra_compile.runtime.precision import autocast_of
from reclra_compile.runtime.program import Program


class Graphs:
    """Makes a graph when one is asked for, and keeps it."""

    def __init__(self, program: Program) -> None:
        self.program, self.even = program, Even.of(program)
        self.made: dict[Any, StepGraph] = {}
        self._modules = list(dict.fromkeys(m for top in (program.model, *program._regions()) for m in top.modules()))
        self._parameters = dict([*program.model.named_parameters(), *program.synapses.named_parameters()])

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _none, ()  # copies of a program make graphs of their own

    def key(self, batch: Sequence[Any]) -> Any:
        """What a graph for this batch depends on."""
        modes = tuple(m.training for m in self._modules)
        learns = tuple(p.requires_grad for p in self._parameters.values())
        return signature(batch), modes, autocast_of(batch), learns

    def of(self, key: Any, batch: Sequence[Any]) -> StepGraph:
        """The graph of this key; raises UserError as `step_graph`."""
        if key not in self.made:
            self.made[key] = step_graph(self.program, *example(self.program, batch))
        return self.made[key]

    def add(self, grads: Mapping[str, Tensor]) -> None:
        """Add gradients by name to `.grad`."""
        for name, grad in grads.items():
            p = self._parameters[name]
            if p.grad is None:
                p.grad = grad
            else:
                with torch.no_grad():
                    p.grad.add_(grad)


def _none() -> None:
    return None
