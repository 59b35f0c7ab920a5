"""How a model's regions evaluate where their graphs are bound to train mode: by those of a second trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from reclra_compile.frontend.cut import Cut, survey
from reclra_compile.frontend.extract import whole
from reclra_compile.frontend.measure import measure
from reclra_compile.frontend.partition import layers
from reclra_compile.frontend.share import copies_evaluate
from reclra_compile.frontend.trace import Traced, trace
from reclra_compile.ir import Plan, Task
from reclra_compile.planning import regions_of
from reclra_compile.runtime.linked import Linked, Step
from reclra_compile.runtime.randomness import bound_to_train_mode
from reclra_compile.runtime.state import Slots


@dataclass(frozen=True)
class Evaluated:
    """A region as it evaluates: outputs, in order, from the region's inputs at some positions."""

    run: Callable[..., Any]
    positions: tuple[int, ...]

    def __call__(self, values: list[Any]) -> tuple[Any, ...]:
        """The outputs of the region from all its inputs."""
        result = self.run(*(values[k] for k in self.positions))
        return result if isinstance(result, tuple) else (result,)


def in_eval_mode(
    model: nn.Module, example_inputs: Any, output: str | int | None, plan: Plan, traced: Traced, cuts: tuple[Cut, ...]
) -> tuple[Traced, tuple[Cut, ...]] | None:
    """The model's graph in eval mode and the plan's regions in it; None where the one it has will do.

    Where eval mode has other regions, there is none either, and evaluating says so (T027).
    """
    if not bound_to_train_mode([whole(traced, c).module for c in cuts]):
        return None
    with copies_evaluate():
        ground = survey(trace(model, example_inputs, output))
    found = regions_of(plan, ground, layers(ground))
    same = _shape(measure(ground.traced, found)) == _shape(plan.regions)
    return (ground.traced, found) if same else None


def _shape(regions: Any) -> list[tuple[Any, ...]]:
    return [(r.name, r.inputs, r.outputs, r.shape, r.parameters) for r in regions]


def evaluated(traced: Traced, cut: Cut) -> tuple[fx.GraphModule, Evaluated]:
    """A region of such a graph, as a module and as it is called."""
    piece = whole(traced, cut)
    positions = {n: k for k, n in enumerate(cut.inputs)}
    return piece.module, Evaluated(piece.run, tuple(positions[n] for n in piece.inputs))


def evaluation(task: Task, run: Evaluated, linked: Linked) -> Step:
    """Task F of a region in eval mode, which leaves nothing for errors."""
    found = linked.regions[task.subject]
    reads, outs = ([linked.slot.on(task.device, v) for v in names] for names in (found.inputs, found.outputs))

    def step(v: Slots) -> None:
        for slot, value in zip(outs, run([v[i] for i in reads]), strict=True):
            v[slot] = value

    return step
