"""`program.compile_step()`, and what torch.compile(program.step) finds: step graphs, compiled by torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reclra_compile.errors import Fault, UserError
from reclra_compile.export.graphs import Graphs
from reclra_compile.export.step_graph import StepGraph
from reclra_compile.runtime.precision import outside_autocast
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
        self._reuses = bool({"mode", "options"} & set(options))  # CUDA graphs, where memory is that of the next step
        self.graphs = Graphs(program)  #: the step graphs so far: `graphs.made`
        self._run: dict[Any, Any] = {}

    def __call__(self, *batch: Any) -> Tensor:
        """One step on `*inputs, target`; the loss, detached."""
        key = self.graphs.key(batch)
        if key not in self._run:
            self._run[key] = self._compiled(self.graphs.of(key, batch))
        elif self.graphs.even:
            self.graphs.even.check(batch)
        with torch.no_grad(), outside_autocast(batch[0].device.type):
            try:
                loss, grads = self._run[key](*batch)
            except Exception as error:
                if not _of_compiler(error):
                    raise
                del self._run[key]
                raise self._failed(error) from error
        if self._reuses:
            loss, grads = loss.clone(), {name: grad.clone() for name, grad in grads.items()}
        self.graphs.add(grads)
        result: Tensor = loss
        return result

    def _compiled(self, graph: StepGraph) -> Any:
        # the generated code itself: each has a cache of torch.compile's for itself, and the batch is known to fit
        plain = type(graph).plain.__get__(graph)  # type: ignore[attr-defined]
        try:
            return torch.compile(plain, backend=self.backend, **self.options)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> UserError:
        inner = getattr(error, "inner_exception", None) or error
        first = next((line.strip() for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
        return UserError(
            Fault("X009", f"the step cannot be compiled with backend '{self.backend}': {first}",
                  fix="Inductor needs a C++ compiler for CPUs and Triton for GPUs; backend='aot_eager' needs neither")
        )  # fmt: skip


def _of_compiler(error: Exception) -> bool:
    """True for what torch.compile raises about itself or its backend."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def seen_by_compiler(program: Program, batch: Sequence[Any]) -> Tensor:
    """`program.step` while torch.compile looks at it: the step graph, which it can compile, in place of the tasks.

    Finding the graph and setting `.grad` are left to Python, so the compiler sees two breaks.
    """
    graph = _graph(program, batch)
    loss, grads = graph(*batch)
    _add(program, grads)
    result: Tensor = loss
    return result


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _graph(program: Program, batch: Sequence[Any]) -> StepGraph:
    if program._graphs is None:
        program._graphs = Graphs(program)
    graphs: Graphs = program._graphs
    return graphs.of(graphs.key(batch), batch)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _add(program: Program, grads: dict[str, Tensor]) -> None:
    program._graphs.add(grads)
