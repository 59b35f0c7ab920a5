"""Choose the relays: every set of them where there are few regions, a local search where there are many."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from reclra_compile.auto.ask import Ask
from reclra_compile.auto.attach import Attachment, Best, Effort
from reclra_compile.auto.climb import climb, leanest
from reclra_compile.auto.cost import Problem, Score, counted, score
from reclra_compile.auto.settle import settled

FEW = 9  #: regions up to which every set of relays is looked at
FEWISH = 12  #: regions up to which that is tried with few branches
BRANCHES = 40_000  #: of these


@dataclass(frozen=True, slots=True)
class Found:
    """An error graph: region i hears `sources[i]`. `exact` is true where it is known that no other is better.

    `fits` is false where the synapses exceed the budget; they are then the fewest that were found.
    """

    sources: tuple[int, ...]
    score: Score
    exact: bool
    fits: bool
    effort: Effort

    def relays(self, problem: Problem) -> list[int]:
        """Regions that others hear."""
        return sorted(set(self.sources) - {problem.output})


def search(problem: Problem, ask: Ask) -> Found | None:
    """The best error graph of the kind that is asked for; None where there is none, whatever it costs."""
    effort, best = Effort(), Best()
    for p in (problem, leanest(problem)) if problem.limit else (problem,):
        _climbed(p, problem, ask, best, effort)
        if best.sources is not None:
            break
    exact = problem.output <= FEWISH or ask.depth == 1
    if problem.output > FEW:
        effort.most_branches = BRANCHES
    if exact:
        for relays in _sets(problem, ask):
            Attachment(problem, ask, frozenset(relays), best, effort).run()
        exact = not effort.spent
    if best.sources is not None and best.score is not None:
        return Found(best.sources, best.score, exact, True, effort)
    lean = search(leanest(problem), ask) if problem.limit else None
    if lean is None:
        return None
    return replace(lean, score=score(problem, lean.sources), exact=exact and lean.exact, fits=False)


def _climbed(climbed: Problem, problem: Problem, ask: Ask, best: Best, effort: Effort) -> None:
    """Offer what a local search finds, if it fits the budget."""
    for relays in [frozenset[int]()] if ask.depth == 1 else climb(climbed, ask, effort):
        made = settled(climbed, ask, relays, effort)
        if made is not None and (not problem.limit or counted(problem, made[0]) <= problem.limit):
            best.offer(made[0], score(problem, made[0]))


def _sets(problem: Problem, ask: Ask) -> Iterable[tuple[int, ...]]:
    """All sets of relays that could be asked for."""
    if ask.named is not None or ask.depth == 1:
        return [ask.named or ()]
    useful = [s for s in range(problem.output) if any(s in problem.below(i) for i in range(s))]
    sizes = [ask.count] if ask.count else range(1, len(useful) + 1)
    return (chosen for k in sizes for chosen in itertools.combinations(useful, k))
