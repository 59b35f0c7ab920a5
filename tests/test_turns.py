"""Messages between devices, and the turns in which devices take microbatches."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import UNIT, chain, dag

from reclra_compile.ir import Device, Placement, Plan, Schedule, Task
from reclra_compile.schedule.comms import communicate, placed, without_messages
from reclra_compile.schedule.order import frees, order
from reclra_compile.schedule.turns import ahead, at_most, forward_first
from reclra_compile.schedule.values import base, value_bytes, with_traffic
from reclra_compile.verify import verify


def spread(plan: Plan, device_of: dict[str, int]) -> Plan:
    """The plan on devices, one time unit per `UNIT` FLOPs; messages take no time."""
    count = 1 + max(device_of.values())
    tasks = placed(order(without_messages(plan.tasks)), device_of, plan.pathways, plan.waves[0][0])
    tasks = communicate(tasks, value_bytes(plan.regions, plan.pathways, plan.output))
    timed = tuple(replace(t, us=0.0 if t.kind in "PR" else t.flops / UNIT) for t in tasks)
    devices = tuple(Device(f"device{k}") for k in range(count))
    return replace(plan, tasks=frees(timed), devices=devices, placement=Placement(tuple(device_of.items())))


def each_on_its_own(plan: Plan) -> Plan:
    return spread(plan, {r.name: k for k, r in enumerate(plan.regions)})


def somewhere(plan: Plan, seed: int, count: int) -> Plan:
    rng = random.Random(seed)
    return spread(plan, {r.name: rng.randrange(count) for r in plan.regions})


dags = st.builds(dag, st.integers(0, 10**6), st.integers(2, 9))


@settings(deadline=None, max_examples=60)
@given(dags, st.integers(0, 99), st.integers(1, 4))
def test_every_value_comes_once_to_each_device_that_reads_it(plan: Plan, seed: int, count: int) -> None:
    made = somewhere(plan, seed, count)
    verify(made)
    writer = {v: t.device for t in made.tasks for v in t.writes}
    for t in made.tasks:
        if t.kind not in "RX":
            assert all(writer.get(v, t.device) == t.device for v in t.reads), t
    posts = Counter((t.reads[0], t.subject) for t in made.tasks if t.kind == "P")
    receipts = Counter((base(t.writes[0]), t.reads[0]) for t in made.tasks if t.kind == "R")
    assert posts == receipts
    assert set(posts.values()) <= {1}


@settings(deadline=None, max_examples=40)
@given(dags, st.integers(0, 99), st.integers(1, 4))
def test_a_plan_comes_back_from_its_devices(plan: Plan, seed: int, count: int) -> None:
    back = frees(order(without_messages(somewhere(plan, seed, count).tasks)))
    assert back == plan.tasks
    text = str(somewhere(plan, seed, count))
    assert str(Plan.parse(text)) == text


@settings(deadline=None, max_examples=40)
@given(dags, st.integers(0, 99), st.integers(1, 4))
def test_messages_are_as_large_as_what_they_bring(plan: Plan, seed: int, count: int) -> None:
    sizes = value_bytes(plan.regions, plan.pathways, plan.output)
    for t in somewhere(plan, seed, count).tasks:
        if t.kind in "PR":
            assert t.bytes == sizes[base(t.subject)] > 0


def test_names_of_copies_and_messages() -> None:
    names = ("z.a|2", "z.a>12", "z.a", "z.a@2|0", "e.a|b", "d.x->y", "d.x->y>3", "d.4->2", "d.4->2|0")
    of = ["z.a", "z.a", "z.a", "z.a@2", "e.a|b", "d.x->y", "d.x->y", "d.4->2", "d.4->2"]
    assert [base(v) for v in names] == of


def test_traffic_counts_operands() -> None:
    plan = chain(3)
    tasks = {t.id: t for t in with_traffic(plan.tasks, plan.regions, plan.pathways)}
    z = plan.regions[0].z_bytes
    assert tasks["T r0"].bytes == 4 * z
    assert tasks["D r2->r0"].bytes == 2 * z
    assert tasks["L loss"].bytes == 3 * z


# Turns


@pytest.mark.parametrize("count", [2, 3, 4, 8, 13])
def test_output_fed_regions_keep_half_of_what_backprop_keeps(count: int) -> None:
    """Equal stages, errors from the output: device s needs ⌈(P − 1 − s) ÷ 2⌉ more microbatches in flight."""
    plan = each_on_its_own(chain(count))
    rows = ahead(plan.tasks, plan.devices, len(plan.waves), 64)
    assert [max(row) for row in rows] == [math.ceil((count - 1 - s) / 2) for s in range(count)]


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_backprop_becomes_one_forward_one_backward(count: int) -> None:
    plan = each_on_its_own(chain(count, "backprop"))
    rows = ahead(plan.tasks, plan.devices, len(plan.waves), 64)
    assert [max(row) for row in rows] == [count - 1 - s for s in range(count)]


@settings(deadline=None, max_examples=60)
@given(dags, st.integers(0, 99), st.integers(1, 4), st.integers(1, 9))
def test_no_wave_comes_before_an_earlier_one(plan: Plan, seed: int, count: int, microbatches: int) -> None:
    made = somewhere(plan, seed, count)
    rows = ahead(made.tasks, made.devices, len(made.waves), microbatches)
    for row in (*rows, *ahead(made.tasks, made.devices, len(made.waves), microbatches, spare=1)):
        assert len(row) == len(made.waves) + 1
        assert row[0] == 0
        assert list(row) == sorted(row)
        assert max(row) < microbatches


def test_one_microbatch_takes_one_turn() -> None:
    plan = each_on_its_own(chain(3))
    assert ahead(plan.tasks, plan.devices, 2, 1) == ((0, 0, 0),) * 3
    assert forward_first(2, 3, 5) == ((0, 4, 4, 4),) * 2
    assert at_most(((0, 3, 5), (0, 1, 1)), [4, 9]) == ((0, 3, 3), (0, 1, 1))


def test_the_turn_of_a_task() -> None:
    schedule = Schedule(4, 0, ((0, 1, 2), (0, 0, 0)))
    tasks = [Task("T", "a", (), wave=w, device=d) for d in (0, 1) for w in (-1, 0, 1)]
    assert [schedule.turn(t) for t in tasks] == [0, 1, 2, 0, 0, 0]
    assert Schedule().turn(tasks[0]) == 0
