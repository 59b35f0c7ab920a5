"""The best sources for regions once the relays are chosen: exact, by branch and bound.

Regions are decided from the output upwards, so that the wave of every source is known. What is left can only add
jobs: each at least its cheapest, spread over the devices' idle time at best.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from reclra_compile.auto.ask import Ask
from reclra_compile.auto.cost import Problem, Score, score


@dataclass(slots=True)
class Effort:
    """Work that a search has done and may do: error graphs looked at, branches taken."""

    evaluations: int = 0
    branches: int = 0
    most_branches: int = 400_000

    @property
    def spent(self) -> bool:
        """True once the branches allowed are used up: what was found then may not be the best."""
        return self.branches >= self.most_branches


@dataclass(slots=True)
class Best:
    """The best error graph so far."""

    sources: tuple[int, ...] | None = None
    score: Score | None = None

    def offer(self, sources: tuple[int, ...], value: Score) -> None:
        """Take this one if it is better."""
        if self.score is None or value < self.score:
            self.sources, self.score = sources, value


def options(problem: Problem, ask: Ask, relays: Collection[int], region: int) -> list[int]:
    """The sources that a region may have, cheapest first."""
    down = [s for s in problem.below(region) if s in relays] if ask.depth > 1 else []
    if region in relays and ask.depth == 2:
        down = []
    free = region in relays or not down
    found = [*down, problem.output] if free else down
    costs = problem.job[region], problem.synapse_bytes[region], problem.distance[region]
    return sorted(found, key=lambda s: (*(int(c[s]) for c in costs), s))


@dataclass(slots=True)
class _Wave:
    longest: int = 0
    work: int = 0
    message: int = 0


@dataclass(slots=True)
class Attachment:
    """Branch and bound over the sources of all regions for one set of relays."""

    problem: Problem
    ask: Ask
    relays: frozenset[int]
    best: Best
    effort: Effort
    choices: list[list[int]] = field(init=False)
    remaining: list[tuple[int, int, int, int]] = field(init=False)

    def __post_init__(self) -> None:
        p = self.problem
        self.choices = [options(p, self.ask, self.relays, i) for i in range(p.output)]
        self.remaining = [(0, 0, 0, 0)]
        for i, found in enumerate(self.choices):
            parts = (p.job, p.synapse_bytes, p.counted)
            work, stored, counts = (min(int(c[i, s]) for s in found) for c in parts)
            near = min(0 if s == p.output else int(p.distance[i, s]) for s in found)
            w, b, c, d = self.remaining[-1]
            self.remaining.append((w + work, b + stored, c + counts, d + near))

    def run(self) -> None:
        """Improve `best`."""
        waves = [_Wave() for _ in range(self.ask.depth + 1)]
        sources = [self.problem.output] * self.problem.output
        self._next(len(sources) - 1, sources, [0] * (len(sources) + 1), waves, (0, 0, 0), {})

    def _next(
        self, i: int, sources: list[int], level: list[int], waves: list[_Wave], sums: tuple[int, int, int],
        heard: dict[int, int],
    ) -> None:  # fmt: skip
        p = self.problem
        if i < 0:
            self.effort.evaluations += 1
            self.best.offer(tuple(sources), score(p, sources))
            return
        for s in self.choices[i]:
            wave = level[s] + 1
            if wave > self.ask.depth or self.effort.spent:
                continue
            self.effort.branches += 1
            near = 0 if s == p.output else int(p.distance[i, s])
            after = (sums[0] + int(p.synapse_bytes[i, s]), sums[1] + int(p.counted[i, s]), sums[2] + near)
            heard[s] = heard.get(s, 0) + 1
            here, job = waves[wave], int(p.job[i, s])
            waves[wave] = _Wave(max(here.longest, job), here.work + job, max(here.message, int(p.message[s])))
            if self._promising(i, waves, after, heard):
                sources[i], level[i] = s, wave
                self._next(i - 1, sources, level, waves, after, heard)
            waves[wave] = here
            heard[s] -= 1

    def _promising(self, i: int, waves: list[_Wave], sums: tuple[int, int, int], heard: dict[int, int]) -> bool:
        p = self.problem
        work, stored, counts, near = self.remaining[i]
        if p.limit and sums[1] + counts > p.limit:
            return False
        if self.ask.named is None:
            silent = [r for r in self.relays if not heard.get(r)]
            if len(silent) > i or not all(self._later(r, i) for r in silent):
                return False
        total, idle = 0, 0
        for w in waves:
            if w.work:
                busy = max(p.devices * w.longest, w.work)
                total += busy + p.devices * (p.latency + w.message)
                idle += busy - w.work
        least = Score(total + max(0, work - idle), sums[0] + stored, sums[2] + near)
        return self.best.score is None or least < self.best.score

    def _later(self, relay: int, i: int) -> bool:
        """True where a region that is still to be decided may hear `relay`."""
        return any(relay in self.choices[k] for k in range(i))
