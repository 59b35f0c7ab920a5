"""The engine: equal to a plain discrete-event simulation on any pattern, and never below what is possible."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulate import Stuck, start_times

from reclra_compile.errors import PlanError
from reclra_compile.simulate.engine import run
from reclra_compile.simulate.ideal import output_fed
from reclra_compile.simulate.pattern import Builder, Lane, Pattern, lanes, peak_bytes

ALL_AT_ONCE, ONE_BY_ONE = 0, 10**6


def random_pattern(rng: random.Random) -> Pattern:
    """Nodes on a few resources; edges lead to later nodes, some of them longer than what they start from."""
    build, count, resources = Builder(), rng.randint(1, 7), rng.randint(1, 4)
    for _ in range(count):
        build.node(rng.randrange(resources), rng.choice([0, 0.5, 1, 2, 3]), rng.randint(0, 3))
    for b in range(count):
        for a in rng.sample(range(b), rng.randint(0, min(b, 3))):
            build.edge(a, b, rng.choice([None, 0.0, 1.5, 4.0]))
    return build.pattern(resources)


def random_order(rng: random.Random, pattern: Pattern, many: int) -> list[Lane]:
    """By turns, by turns over several batches, or shuffled."""
    kind = rng.choice(["turns", "batches", "stale", "shuffled"])
    if kind == "turns":
        return list(lanes(pattern, many))
    if kind in ("batches", "stale") and many % 2 == 0:
        return list(lanes(pattern, many // 2, 2, stale=kind == "stale"))
    order = list(lanes(pattern, many))
    for lane in order:
        if len(lane) > 1 and rng.random() < 0.7:  # neighbours change places
            k = rng.randrange(len(lane) - 1)
            lane[[k, k + 1]] = lane[[k + 1, k]]
    return order


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**9), st.integers(1, 6))
def test_every_start_is_that_of_a_discrete_event_simulation(seed: int, many: int) -> None:
    rng = random.Random(seed)
    pattern = random_pattern(rng)
    order = random_order(rng, pattern, many)
    try:
        wanted = start_times(pattern, many, order)
    except Stuck:
        for narrow in (ALL_AT_ONCE, ONE_BY_ONE):
            with pytest.raises(PlanError, match="S001"):
                run(pattern, many, order, narrow)
        return
    for narrow in (ALL_AT_ONCE, ONE_BY_ONE):
        found = run(pattern, many, order, narrow)
        np.testing.assert_array_equal(found.start, wanted)
        assert found.makespan_us == (wanted + pattern.duration[:, None]).max()


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**9), st.integers(1, 6))
def test_no_step_is_shorter_than_its_longest_chain_or_its_busiest_resource(seed: int, many: int) -> None:
    pattern = random_pattern(random.Random(seed))
    try:
        found = run(pattern, many)
    except PlanError:
        return
    reach = np.zeros(pattern.nodes)
    for b in range(pattern.nodes):  # edges lead to later nodes
        into = pattern.dst == b
        reach[b] = max([0.0, *(reach[pattern.src[into]] + pattern.lag[into])])
    assert found.makespan_us >= (reach + pattern.duration).max()
    assert found.makespan_us >= found.busy_us.max()
    np.testing.assert_allclose(found.busy_us + found.idle_us, found.makespan_us)
    assert (found.bubble_us >= -1e-9).all() and (found.bubble_us <= found.idle_us + 1e-9).all()


def test_a_resource_runs_one_node_at_a_time() -> None:
    found = run(output_fed(4), 6)
    pattern = found.pattern
    for d in range(4):
        mine = pattern.resource == d
        rows = zip(found.start[mine], pattern.duration[mine], strict=True)
        times = sorted((s, s + length) for row, length in rows for s in row)
        assert len(times) == 12 and all(a[1] <= b[0] for a, b in pairwise(times))


def test_a_circle_names_who_waits_for_whom() -> None:
    build = Builder()
    a = build.node(0, 1.0, 1, "F a on cpu:0")
    b = build.node(1, 1.0, 0, "T b on cpu:1")
    c = build.node(0, 1.0, 0, "U c on cpu:0")
    build.edge(a, b)
    build.edge(b, c)
    for narrow in (ALL_AT_ONCE, ONE_BY_ONE):
        with pytest.raises(PlanError) as failed:
            run(build.pattern(2), 3, narrow=narrow)
        message = failed.value.faults[0].message
        assert all(f"'{name}' of microbatch" in message for name in ("F a on cpu:0", "T b on cpu:1", "U c on cpu:0"))


def test_lanes_that_leave_an_event_out_are_refused() -> None:
    pattern = output_fed(2)
    order = [lane[:-1] for lane in lanes(pattern, 3)]
    with pytest.raises(ValueError, match="10 events"):
        run(pattern, 3, order)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**9), st.integers(1, 6))
def test_peak_bytes_are_those_of_counting_along_the_lane(seed: int, many: int) -> None:
    rng = random.Random(seed)
    build = Builder()
    for _ in range(rng.randint(1, 5)):
        build.node(rng.randrange(2), 1.0, rng.randint(0, 2), held=rng.randint(0, 9), freed=rng.randint(0, 9))
    pattern = build.pattern(2)
    order = list(lanes(pattern, many))
    for lane, found in zip(order, peak_bytes(pattern, order, many), strict=True):
        now = most = 0.0
        for event in lane:
            node = int(event) // many
            now += pattern.held[node]
            most = max(most, now)
            now -= pattern.freed[node]
        assert found == most


def test_steps_that_follow_each_other_overlap_only_where_the_plan_is_stale() -> None:
    pattern, many, batches = output_fed(4), 8, 3
    one = run(pattern, many).makespan_us
    waiting = run(pattern, many * batches, lanes(pattern, many, batches)).makespan_us
    overlapping = run(pattern, many * batches, lanes(pattern, many, batches, stale=True)).makespan_us
    assert waiting == batches * one
    assert overlapping == 2 * many * batches + 4 - 1
