"""Ask the search for what a wiring file wants: depths, relays, and the finest kernels that fit the memory."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reclra_compile.auto.ask import Ask
from reclra_compile.auto.cost import FORBIDDEN, Kernels, Problem, Rates, Rung, counted, levels, problem
from reclra_compile.auto.relays import Found, search
from reclra_compile.spec.maps import CELLS

RANKS = (128, 64, 32, 16, 8, 4, 2, 1)  #: ranks between vectors where dense matrices do not fit the memory


@dataclass(frozen=True, slots=True)
class Choice:
    """An error graph with the costs it was chosen by and the kernels it is for, `step` steps from the finest."""

    ask: Ask
    problem: Problem
    found: Found
    rung: Rung
    step: int

    @property
    def waves(self) -> int:
        """Waves below the output."""
        return max(levels(self.found.sources), default=0)

    @property
    def us(self) -> float:
        """Modelled makespan of the error phase in microseconds, or FLOPs where devices have no rates."""
        return self.problem.us(self.found.score.makespan)

    @property
    def counted(self) -> int:
        """Bytes that the budget is for."""
        return counted(self.problem, self.found.sources)


def choices(kernels: Kernels, rates: Rates, cells: int, asks: Sequence[Ask]) -> list[Choice | None]:
    """For each of `asks` the best error graph with the finest kernels that fit; None where no graph is what is asked.

    Where nothing fits, what takes the fewest bytes at the coarsest kernels (`found.fits` is false).
    """
    made: list[Choice | None] = [None] * len(asks)
    rungs = _rungs(kernels, cells)
    built: dict[int, Problem] = {}

    def at(k: int) -> Problem:
        if k not in built:
            p = problem(kernels, rates, rungs[k])
            # what nobody asked for is no limit: then the coarsest kernels are the answer
            built[k] = replace(p, limit=0) if k == len(rungs) - 1 and kernels.memory is None else p
        return built[k]

    # coarser kernels take fewer bytes: below the first rung at which the leanest sources fit, none do
    first = bisect.bisect_left(range(len(rungs) - 1), True, key=lambda k: _may_fit(at(k)))
    for k in range(first, len(rungs)):
        p = at(k)
        if k > first and _same(p, at(k - 1)):
            continue
        for j, ask in enumerate(asks):
            old = made[j]
            if old is None or not old.found.fits:
                found = search(p, ask)
                made[j] = None if found is None else Choice(ask, p, found, rungs[k], k)
        if all(c is None or c.found.fits for c in made):
            break
    return made


def _may_fit(p: Problem) -> bool:
    """False where even the sources with the smallest synapses exceed the budget."""
    least = np.where(p.job < FORBIDDEN, p.counted, np.iinfo(np.int64).max).min(axis=1, initial=np.iinfo(np.int64).max)
    return not p.limit or int(least.sum()) <= p.limit


def _rungs(kernels: Kernels, cells: int) -> list[Rung]:
    rungs = [Rung(cells), *(Rung(c) for c in CELLS if c < cells)]
    return rungs + [Rung(1, r) for r in RANKS] if kernels.memory is not None else rungs


def _same(a: Problem, b: Problem) -> bool:
    return a.limit == b.limit and all(
        bool(np.array_equal(x, y)) for x, y in ((a.job, b.job), (a.synapse_bytes, b.synapse_bytes))
    )
