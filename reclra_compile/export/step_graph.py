"""`program.as_step_graph()`: a step as one flat FX graph, which can be read as Python and given to torch.compile."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import PythonCode

from reclra_compile.errors import Fault, UserError
from reclra_compile.export.batch import Signature, example, signature
from reclra_compile.export.ready import ready
from reclra_compile.export.record import record
from reclra_compile.export.saved import Saved
from reclra_compile.export.text import Sections, without_frees
from reclra_compile.export.tidy import tidied
from reclra_compile.export.weights import Even
from reclra_compile.runtime.precision import outside_autocast
from reclra_compile.runtime.program import Program


class StepGraph(fx.GraphModule):
    """A step of a program: called with `*inputs, target`, gives the loss and {parameter or synapse: gradient}.

    It reads and, where a step does, writes the program's own tensors (`self.model`, `self.synapses`), so it stays in
    step with training; it sets no `.grad`. `node.meta["task"]` says which task of the plan an operation is of. Raises
    UserError (X003) for a batch of other shapes than it was made for, and X006 for labels that it cannot cut.
    """

    expected: Signature = ()  #: shape, precision and device of what it is called with
    titles: dict[str, str]  #: the comment above each value, by its name
    even: Even | None = None  #: what is looked at in a batch of several microbatches

    def recompile(self) -> PythonCode:
        """As `GraphModule.recompile`; the new code checks its batch too."""
        code = super().recompile()
        cls: Any = type(self)
        cls.plain = cls.forward  # the generated code alone, for compilers
        cls.forward = _checking(cls.forward)
        return code

    @property
    def text(self) -> str:
        """The graph as Python, with the tasks of the plan as comments."""
        return without_frees(str(self.code))

    def __str__(self) -> str:
        return self.text

    def saved(self) -> Saved:
        """The graph as plain data, with the tensors that it reads."""
        paths = dict.fromkeys(str(n.target) for n in self.graph.nodes if n.op == "get_attr")
        tensors = {path: _tensor(self, path) for path in paths}
        return Saved.of(self.graph, tensors, self.titles, self.expected, self.even)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepGraph:
        """A step graph with tensors of its own."""
        return loaded(copy.deepcopy(self.saved(), memo))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return loaded, (self.saved(),)


def loaded(saved: Saved) -> StepGraph:
    """A step graph from its plain data."""
    return assembled(saved.graph(), saved.tensors, saved.titles, saved.expected, saved.even)


def step_graph(program: Program, *batch: Any) -> StepGraph:
    """The step of `program` as a graph, for batches of the shapes of `batch`: `*inputs, target`.

    Without a batch, one of the plan's size is made up where the loss says what labels are like. Modules keep the mode
    that they are in, and autocast is as it is when this is called. Raises UserError: X001 or X002 for the batch, X004
    for the program, X005 for a task that looks at values, X006 for weights of microbatches, X007 for random states that
    settle, X008 for hooks.
    """
    values: Sequence[Tensor] = example(program, batch)
    ready(program, values)
    names = [*(name for name, _, _ in program.plan.inputs), "y"]
    graph, tensors = tidied(record(program, values), names, values)
    parts = {node.name: node.meta["task"] for node in graph.nodes if "task" in node.meta}
    several = any(part.microbatch for part in parts.values())
    titles = {name: part.title(several) for name, part in parts.items()}
    made = assembled(graph, tensors, titles, signature(values), Even.of(program))
    for name, module in (("model", program.model), ("synapses", program.synapses)):
        made.add_module(name, module)  # not the tensors alone: `module.to()` replaces buffers
    made.graph.lint()
    return made


def assembled(
    graph: fx.Graph, tensors: dict[str, Tensor], titles: dict[str, str], expected: Signature, even: Even | None
) -> StepGraph:
    """A step graph from its parts; `tensors` by the paths at which the graph reads them."""
    graph.on_generate_code(Sections(titles).after)
    made = StepGraph(tensors, graph, "StepGraph")
    made.expected, made.titles, made.even = expected, titles, even
    made.graph.lint()
    return made


def _tensor(module: nn.Module, path: str) -> Tensor:
    """The tensor at a path of a module."""
    owner, _, name = path.rpartition(".")
    found: Tensor = getattr(module.get_submodule(owner), name)
    return found


def _checking(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The generated code after a look at the batch."""

    @functools.wraps(plain)
    def forward(self: StepGraph, *batch: Any) -> Any:
        if self.expected and signature(batch) != self.expected:
            raise other_batch(self.expected, batch)
        if self.even and not torch.compiler.is_compiling():
            self.even.check(batch)
        with outside_autocast(batch[0].device.type):  # precision is that of the operations as they stand
            return plain(self, *batch)

    return forward


def other_batch(expected: Signature, batch: Sequence[Any]) -> UserError:
    """The error (X003) for a batch that a graph was not made for."""
    wanted, got = (", ".join(f"{dtype} {list(shape)} {device}" for shape, dtype, device in s)
                   for s in (expected, signature(batch)))  # fmt: skip
    return UserError(
        Fault("X003", f"this step graph was made for ({wanted}), not for ({got})",
              fix="make one for this batch by program.as_step_graph(*inputs, target), as program.compile_step() does")
    )  # fmt: skip
