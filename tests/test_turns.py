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
from reclra_compile.schedule.turns import at_most, forward_first, rounded, soonest, together, turned
from reclra_compile.schedule.values import base, value_bytes, with_traffic
from reclra_compile.simulate.events import simulate
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
    names = ("z.a|2", "z.a>12", "z.a", "z.a@2|0", "e.a|b", "d.x->y", "d.x->y>3", "d.4->2", "d.4->2|0", "z.a->1",
             "d.b->a->1", "e.a-|1")  # fmt: skip
    of = ["z.a", "z.a", "z.a", "z.a@2", "e.a|b", "d.x->y", "d.x->y", "d.4->2", "d.4->2", "z.a-", "d.b->a-", "e.a-"]
    assert [base(v) for v in names] == of


def test_traffic_counts_operands() -> None:
    plan = chain(3)
    tasks = {t.id: t for t in with_traffic(plan.tasks, plan.regions, plan.targets, plan.pathways)}
    z = plan.regions[0].z_bytes
    assert tasks["T r0"].bytes == 4 * z
    assert tasks["D r2->r0"].bytes == 2 * z
    assert tasks["L loss"].bytes == 3 * z


# Turns


def most(plan: Plan, turns: tuple[int, ...]) -> list[int]:
    """The last turn of each device."""
    pairs = [(t.device, k) for t, k in zip(plan.tasks, turns, strict=True)]
    return [max(k for d, k in pairs if d == device) for device in range(len(plan.devices))]


@pytest.mark.parametrize("count", [2, 3, 4, 8, 13])
def test_output_fed_regions_keep_half_of_what_backprop_keeps(count: int) -> None:
    """Equal stages, errors from the output: device s needs ⌈(P − 1 − s) ÷ 2⌉ more microbatches in flight."""
    plan = each_on_its_own(chain(count))
    wanted = [math.ceil((count - 1 - s) / 2) for s in range(count)]
    assert most(plan, soonest(plan.tasks, plan.devices)) == wanted
    assert most(plan, rounded(plan.tasks, plan.devices)) == wanted


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_backprop_becomes_one_forward_one_backward(count: int) -> None:
    plan = each_on_its_own(chain(count, "backprop"))
    wanted = [count - 1 - s for s in range(count)]
    assert most(plan, soonest(plan.tasks, plan.devices)) == wanted
    assert most(plan, rounded(plan.tasks, plan.devices)) == wanted


@settings(deadline=None, max_examples=60)
@given(dags, st.integers(0, 99), st.integers(1, 4), st.integers(1, 9))
def test_turns_never_fall_on_a_device(plan: Plan, seed: int, count: int, microbatches: int) -> None:
    made = somewhere(plan, seed, count)
    certain = rounded(made.tasks, made.devices)
    for turns in (
        certain, soonest(made.tasks, made.devices), soonest(made.tasks, made.devices, 1),
        forward_first(made.tasks, certain, microbatches), together(made.tasks),
    ):  # fmt: skip
        for device in range(count):
            own = [k for t, k in zip(made.tasks, turns, strict=True) if t.device == device]
            assert own == sorted(own)
            assert not own or own[0] >= 0


@settings(deadline=None, max_examples=100)
@given(dags, st.integers(0, 99), st.integers(1, 4), st.integers(1, 9))
def test_rounded_turns_let_nobody_wait_in_a_circle(plan: Plan, seed: int, count: int, microbatches: int) -> None:
    made = somewhere(plan, seed, count)
    certain = rounded(made.tasks, made.devices)
    for turns in (certain, forward_first(made.tasks, certain, microbatches), together(made.tasks)):
        parts = replace(made, tasks=turned(made.tasks, turns), schedule=Schedule(microbatches))
        assert simulate(parts).makespan_us >= max(
            sum(t.us for t in made.tasks if t.device == d) * microbatches for d in range(count)
        )


def test_turns_are_changed_task_by_task() -> None:
    tasks = [Task("F", "a", (), device=0), Task("T", "a", (), wave=1, device=0), Task("T", "b", (), wave=1, device=1)]
    assert forward_first(tasks, (0, 1, 0), 5) == (0, 5, 4)
    assert at_most(tasks, (0, 3, 5), {0: 2, 1: 9}) == (0, 1, 5)
    assert [t.turn for t in turned(tasks, (0, 1, 2))] == [0, 1, 2]
