"""What has to hold before a step is written down: refuse what a graph cannot say, and settle what a first step does."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reclra_compile.errors import Fault, UserError
from reclra_compile.export.sandbox import untouched
from reclra_compile.export.weights import Even
from reclra_compile.runtime.program import Program
from reclra_compile.runtime.randomness import is_random


def ready(program: Program, batch: Sequence[Tensor]) -> None:
    """Let the program have found out what it finds out on its first step. Raises UserError: X004 for programs that are
    not one process's whole step, X006 to X008 where a graph would not do what the step does."""
    _whole(program)
    _plain(program)
    even = Even.of(program)
    if even:
        even.check(batch)
    linked = program._linked
    if linked.reduction is None or (program._unchecked and not linked.alone):
        with untouched(program):
            program.step(*batch)


def _whole(program: Program) -> None:
    """Raise X004 where the step is not of one process, or not of one set of weights."""
    if program._linked.shared or program.peers.replicas > 1:
        raise UserError(
            Fault("X004", "this program runs a part of its plan, other processes the rest, so its step is no one graph",
                  fix="compile without `mesh` for the graph; a plan for several devices can be one")
        )  # fmt: skip
    if program.plan.schedule.staleness:
        raise UserError(
            Fault("X004", "with staleness 1 a step has two sets of weights, and a graph has one",
                  fix="compile with staleness=0")
        )  # fmt: skip


def _plain(program: Program) -> None:
    """Raise X007 for states that settle with random numbers, X008 where something waits for gradients to be set."""
    if program.settles and is_random(program._regions()):
        raise UserError(
            Fault("X007", "states that settle draw one mask for all phases of a step, which a graph would draw anew",
                  fix="take dropout out of the model, or train with program.step")
        )  # fmt: skip
    named = [*program.model.named_parameters(), *program.synapses.named_parameters()]
    hooked = next((name for name, p in named if getattr(p, "_post_accumulate_grad_hooks", None)), None)
    if hooked:
        raise UserError(
            Fault("X008", f"parameter '{hooked}' has a hook that runs once its gradient is there, which a graph cannot",
                  fix="make the graph before register_post_accumulate_grad_hook, or call the hook yourself")
        )  # fmt: skip
