"""The search for relays against looking at every error graph, and its work where there are many regions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reclra_compile.auto.ask import Ask
from reclra_compile.auto.cost import FORBIDDEN, Problem
from reclra_compile.auto.relays import search

Forest = tuple[int, ...]


def problem(seed: int, regions: int, devices: int, chain: bool = True, limit: float = 0.0) -> Problem:
    """Random widths, or random costs, on a chain or a random graph; `limit` is a share of the way between extremes."""
    rng = random.Random(seed)
    n = regions
    width = [rng.choice((2, 3, 8, 16, 40)) for _ in range(n)] + [rng.choice((2, 10, 60))]
    fanciful = rng.random() < 0.4
    job = np.full((n, n + 1), FORBIDDEN, np.int64)
    size = np.zeros((n, n + 1), np.int64)
    distance = np.zeros((n, n + 1), np.int64)
    for i in range(n):
        for s in [*range(i + 1, n), n]:
            if s < n and not chain and rng.random() < 0.4:
                continue
            job[i, s] = rng.randint(1, 30) if fanciful else width[i] * width[s] + width[i]
            size[i, s] = rng.randint(1, 30) if fanciful else 4 * width[i] * width[s]
            distance[i, s] = s - i if s < n else 0
    allowed = job < FORBIDDEN
    least = sum(int(size[i, allowed[i]].min()) for i in range(n))
    most = sum(int(size[i, allowed[i]].max()) for i in range(n))
    budget = int(least + limit * (most - least)) if limit else 0
    message = np.array([rng.choice((0, w)) for w in width], np.int64)
    names = tuple(f"r{i}" for i in range(n))
    return Problem(names, devices, job, message, rng.choice((0, 5, 100)), size, size, distance, budget)


def forests(p: Problem) -> Iterator[Forest]:
    """Every choice of a source for every region."""
    n = len(p.names)
    return itertools.product(*([s for s in range(n + 1) if p.job[i, s] < FORBIDDEN] for i in range(n)))


def waves(forest: Forest) -> list[int]:
    n = len(forest)
    return [1 + sum(1 for _ in itertools.takewhile(lambda j: j != n, _up(forest, i))) for i in range(n)]


def _up(forest: Forest, i: int) -> Iterator[int]:
    while i != len(forest):
        i = forest[i]
        yield i


def asked_for(p: Problem, ask: Ask, forest: Forest) -> bool:
    n = len(forest)
    heard = {s for s in forest if s != n}
    if max(waves(forest)) > ask.depth:
        return False
    if ask.named is not None:
        relays = set(ask.named)
        if not heard <= relays or (ask.depth == 2 and any(forest[r] != n for r in relays)):
            return False
    else:
        relays = heard
        if ask.count and len(heard) != ask.count:
            return False
        if ask.depth > 1 and not heard:
            return False
    for i, s in enumerate(forest):
        choice = [r for r in relays if p.job[i, r] < FORBIDDEN]
        if i not in relays and choice and s not in relays:
            return False
    return True


def price(p: Problem, forest: Forest) -> tuple[int, int, int]:
    """The equation of docs/auto.md, times the number of devices."""
    n = len(forest)
    depth = waves(forest)
    total = 0
    for w in set(depth):
        here = [i for i in range(n) if depth[i] == w]
        jobs = [int(p.job[i, forest[i]]) for i in here]
        slowest = max(int(p.message[forest[i]]) for i in here)
        total += p.devices * (p.latency + slowest) + max(p.devices * max(jobs), sum(jobs))
    stored = sum(int(p.synapse_bytes[i, s]) for i, s in enumerate(forest))
    return total, stored, sum(int(p.distance[i, s]) for i, s in enumerate(forest) if s != n)


def best(p: Problem, ask: Ask) -> tuple[int, int, int] | None:
    """The least price of all that is asked for and fits."""
    allowed = (f for f in forests(p) if asked_for(p, ask, f))
    fit = (f for f in allowed if not p.limit or sum(int(p.counted[i, s]) for i, s in enumerate(f)) <= p.limit)
    return min((price(p, f) for f in fit), default=None)


def check(p: Problem, ask: Ask) -> None:
    found, least = search(p, ask), best(p, ask)
    if found is None or not found.fits:
        assert least is None
        return
    assert found.exact
    assert asked_for(p, ask, found.sources)
    assert price(p, found.sources) == (found.score.makespan, found.score.synapse_bytes, found.score.distance) == least


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 10**9), st.integers(1, 6), st.integers(1, 4), st.booleans(), st.data())
def test_no_error_graph_is_better(seed: int, regions: int, devices: int, chain: bool, data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from((0.0, 0.0, 0.05, 0.3)))
    p = problem(seed, regions, devices, chain, limit)
    depth = data.draw(st.integers(1, 4))
    ask = Ask(depth)
    if depth > 1 and data.draw(st.booleans()):
        ask = Ask(depth, count=data.draw(st.integers(1, regions)))
    elif depth > 1 and data.draw(st.booleans()):
        ask = Ask(depth, named=tuple(sorted(data.draw(st.sets(st.integers(0, regions - 1), min_size=1)))))
    check(p, ask)


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_no_error_graph_of_eight_regions_below_the_output_is_better(seed: int, devices: int) -> None:
    """Nine regions with the output; a random graph, so that looking at all of them takes no minutes."""
    check(problem(seed, 8, devices, chain=False), Ask(2))
    check(problem(seed + 50, 8, devices, chain=False), Ask(2, count=2))


@pytest.mark.parametrize(("ask", "limit"), [(Ask(1), 0.0), (Ask(2), 0.05), (Ask(2, count=20), 0.0), (Ask(3), 0.0)])
def test_two_hundred_regions_on_64_devices_take_few_evaluations(ask: Ask, limit: float) -> None:
    """Looking at all pairs of relays alone would be 19,900 sets, at all sets 2 to the power of 200."""
    p = problem(3, 200, 64, limit=limit)
    found = search(p, ask)
    assert found is not None and asked_for(p, ask, found.sources)
    assert found.effort.evaluations <= 60_000 and found.effort.branches <= 300


@pytest.mark.parametrize("seed", range(6))
def test_of_many_regions_no_relay_more_or_less_is_better(seed: int) -> None:
    p = problem(seed, 24, 4)
    found = search(p, Ask(2))
    assert found is not None and not found.exact
    relays = found.relays(p)
    others = [s for s in range(24) if s not in relays]
    near = [set(relays) - {r} for r in relays if len(relays) > 1] + [{*relays, s} for s in others]
    for trial in near:
        fixed = search(p, Ask(2, named=tuple(sorted(trial))))
        assert fixed is not None
        heard = set(fixed.sources) - {24}
        assert heard != trial or fixed.score >= found.score
