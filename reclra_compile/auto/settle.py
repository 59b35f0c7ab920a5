"""From a set of relays to an error graph: cheapest sources, every relay heard, then one source at a time changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from reclra_compile.auto.ask import Ask, valid
from reclra_compile.auto.attach import Effort, options
from reclra_compile.auto.cost import Problem, Score, counted, score

MOST = 150_000  #: regions that the error graphs that one descent looks at have together

MOST_SHIFTED = 64  #: regions up to which relays are exchanged after the search for them
SHIFTS = 25_000  #: as MOST, for sets of relays
Rank = tuple[int, Score]


def settled(
    problem: Problem, ask: Ask, relays: frozenset[int], effort: Effort
) -> tuple[tuple[int, ...], Score] | None:
    """An error graph that neither another source nor, of few regions, another relay improves; None where none is.

    It starts from `relays`. Its synapses may exceed the budget: what exceeds it least is kept.
    """
    flat = Ask(min(ask.depth, 2), ask.count, ask.named)
    sources = _attached(problem, flat, relays)
    if ask.named is None and ask.depth > 1 and problem.output <= MOST_SHIFTED:
        relays, sources = _shifted(problem, flat, relays, sources, effort)
    if sources is None:
        return None
    best = _rank(problem, sources)
    for a in dict.fromkeys((flat, ask)):
        best = _descended(problem, a, relays, sources, best, effort)
    return tuple(sources), best[1]


def _attached(problem: Problem, ask: Ask, relays: frozenset[int]) -> list[int] | None:
    """Each region's cheapest source, each relay heard; None where that cannot be."""
    sources = [options(problem, ask, relays, i)[0] for i in range(problem.output)]
    if ask.named is None and not _all_heard(problem, ask, relays, sources):
        return None
    return sources if valid(problem, ask, sources) else None


def _shifted(
    problem: Problem, ask: Ask, relays: frozenset[int], sources: list[int] | None, effort: Effort
) -> tuple[frozenset[int], list[int] | None]:
    """Add, drop and swap relays while that is better, every set with its sources."""
    best = (1, (0, Score(0, 0, 0))) if sources is None else (0, _rank(problem, sources))
    left, improved = SHIFTS // problem.output, True
    while improved and left > 0:
        improved = False
        for trial in _near(problem, ask, relays):
            left -= 1
            effort.evaluations += 1
            made = _attached(problem, ask, trial)
            if made is not None and (0, _rank(problem, made)) < best:
                best, relays, sources, improved = (0, _rank(problem, made)), trial, made, True
                break
            if left <= 0:
                break
    return relays, sources


def _near(problem: Problem, ask: Ask, relays: frozenset[int]) -> Iterator[frozenset[int]]:
    """Sets of relays that differ in one, or in two of the number asked for, all of that size."""
    others = [i for i in range(1, problem.output) if i not in relays]
    if not ask.count:
        yield from (relays - {r} for r in sorted(relays) if len(relays) > 1)
        yield from (relays | {a} for a in others)
    yield from (relays - {r} | {a} for r in sorted(relays) for a in others)
    if ask.count:  # each has to be heard, so that often no single exchange is possible
        pairs, new = itertools.combinations(sorted(relays), 2), [*itertools.combinations(others, 2)]
        yield from (relays.difference(out).union(into) for out in pairs for into in new)


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
