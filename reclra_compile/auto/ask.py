"""What is asked of a search: how deep errors may go, and which or how many relays there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reclra_compile.auto.cost import Problem, levels


@dataclass(frozen=True, slots=True)
class Ask:
    """At most `depth` waves below the output; exactly `count` relays, or the `named` ones, or any number.

    Where the depth is above 1 and relays are not named there is at least one. A region that is no relay hears a relay
    wherever one is downstream of it; at depth 2 all relays hear the output.
    """

    depth: int
    count: int | None = None
    named: tuple[int, ...] | None = None


def valid(problem: Problem, ask: Ask, sources: Sequence[int]) -> bool:
    """True where an error graph is what was asked for."""
    heard = set(sources) - {problem.output}
    relays = set(ask.named) if ask.named is not None else heard
    if max(levels(sources), default=1) > ask.depth or not heard <= relays:
        return False
    if ask.named is None and ask.depth > 1 and (len(heard) != ask.count if ask.count else not heard):
        return False
    if ask.depth == 2 and any(sources[r] != problem.output for r in relays):
        return False
    return all(
        s != problem.output or i in relays or not relays.intersection(problem.below(i))
        for i, s in enumerate(sources)
    )
