"""`program.compile_step()`: the program's step through torch.compile, with a step graph for each kind of batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reclra_compile.errors import Fault, UserError
from reclra_compile.export.batch import example, signature
from reclra_compile.export.ready import even_weights
from reclra_compile.export.step_graph import StepGraph, step_graph
from reclra_compile.runtime.precision import autocast_of
from reclra_compile.runtime.program import Program


class CompiledStep:
    """Called as `program.step(*inputs, target)`: adds to `.grad` and returns the loss, by compiled code.

    The first batch of new shapes, and the first after a change of modes, of autocast or of what is frozen, takes as
    long as compiling does; the last batch of an epoch may be one. `program.discrepancy` stays that of the last
    `program.step`. Raises UserError as `as_step_graph`, and X009 where the compiler of `backend` fails.
    """

    def __init__(self, program: Program, backend: Any = "inductor", **options: Any) -> None:
        self.program, self.backend = program, backend
        self.options = {"fullgraph": True, "dynamic": False} | options
        self.graphs: dict[Any, StepGraph] = {}  #: the step graphs so far
        self._run: dict[Any, Any] = {}
        self._modules = list(dict.fromkeys(m for top in (program.model, *program._regions()) for m in top.modules()))
        self._parameters = dict([*program.model.named_parameters(), *program.synapses.named_parameters()])

    def __call__(self, *batch: Any) -> Tensor:
        """One step on `*inputs, target`; the loss, detached."""
        key = self._key(batch)
        if key not in self._run:
            self._compile(key, batch)
        else:
            even_weights(self.program, batch)
        with torch.no_grad():
            try:
                loss, grads = self._run[key](*batch)
            except Exception as error:
                if not _of_compiler(error):
                    raise
                del self._run[key]
                raise self._failed(error) from error
            self._add(grads)
        result: Tensor = loss
        return result

    def _key(self, batch: Any) -> Any:
        """What a graph is made for: the batch, modes of modules, autocast, and which parameters learn."""
        modes = tuple(m.training for m in self._modules)
        learns = tuple(p.requires_grad for p in self._parameters.values())
        return signature(batch), modes, autocast_of(batch), learns

    def _compile(self, key: Any, batch: Any) -> None:
        graph = step_graph(self.program, *example(self.program, batch))
        self.graphs[key] = graph
        # the generated code itself: each has a cache of torch.compile's for itself, and the batch is known to fit
        plain = type(graph).plain.__get__(graph)  # type: ignore[attr-defined]
        try:
            self._run[key] = torch.compile(plain, backend=self.backend, **self.options)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> UserError:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return UserError(
            Fault("X009", f"the step cannot be compiled with backend '{self.backend}': {first}",
                  fix="Inductor needs a C++ compiler for CPUs and Triton for GPUs; backend='aot_eager' needs neither")
        )  # fmt: skip

    def _add(self, grads: dict[str, Tensor]) -> None:
        for name, grad in grads.items():
            p = self._parameters[name]
            if p.grad is None:
                p.grad = grad
            else:
                p.grad.add_(grad)


def _of_compiler(error: Exception) -> bool:
    """True for what torch.compile raises about itself or its backend."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
