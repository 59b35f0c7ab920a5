"""From a set of relays to an error graph: cheapest sources, every relay heard, then one source at a time changed."""

from __future__ import annotations

from reclra_compile.auto.ask import Ask, valid
from reclra_compile.auto.attach import Effort, options
from reclra_compile.auto.cost import Problem, Score, counted, score

MOST = 150_000  #: regions that the error graphs that one descent looks at have together

Rank = tuple[int, Score]


def settled(
    problem: Problem, ask: Ask, relays: frozenset[int], effort: Effort
) -> tuple[tuple[int, ...], Score] | None:
    """An error graph with these relays that changing one source does not improve; None where there is none.

    Its synapses may exceed the budget: what exceeds it least is kept.
    """
    flat = Ask(min(ask.depth, 2), ask.count, ask.named)
    sources = [options(problem, flat, relays, i)[0] for i in range(problem.output)]
    if ask.named is None and not _all_heard(problem, flat, relays, sources):
        return None
    if not valid(problem, ask, sources):
        return None
    best = _rank(problem, sources)
    for a in dict.fromkeys((flat, ask)):
        best = _descended(problem, a, relays, sources, best, effort)
    return tuple(sources), best[1]


def _descended(
    problem: Problem, ask: Ask, relays: frozenset[int], sources: list[int], best: Rank, effort: Effort
) -> Rank:
    """Change one of `sources` at a time while that is better; the rank in the end."""
    start, most, improved = effort.evaluations, MOST // max(1, problem.output), True
    while improved:
        improved = False
        for i in range(problem.output):
            for s in options(problem, ask, relays, i):
                old = sources[i]
                if s == old:
                    continue
                if effort.evaluations - start >= most:
                    return best
                effort.evaluations += 1
                sources[i] = s
                found = _rank(problem, sources)
                if found < best and valid(problem, ask, sources):
                    best, improved = found, True
                else:
                    sources[i] = old
    return best


def _rank(problem: Problem, sources: list[int]) -> Rank:
    over = counted(problem, tuple(sources)) - problem.limit if problem.limit else 0
    return max(0, over), score(problem, sources)


def _all_heard(problem: Problem, ask: Ask, relays: frozenset[int], sources: list[int]) -> bool:
    """Give each relay that nobody hears the region that loses least by it; False where that cannot be."""
    for relay in sorted(relays):
        if relay in sources:
            continue
        moves = []
        for i in range(relay):
            if relay in options(problem, ask, relays, i) and sources.count(sources[i]) > 1:
                trial = [*sources]
                trial[i] = relay
                moves.append((_rank(problem, trial), i))
        if not moves:
            return False
        sources[min(moves)[1]] = relay
    return True
