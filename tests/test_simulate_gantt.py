"""Plans small enough to draw by hand: the start of every task, as drawn.

In the charts a column is a microsecond, a lane is a device (d0, d1, …) or the link that leaves it (l0, l1, …), and a
letter is a task, a digit its microbatch; · is waiting.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_simulate import start_times
from synthetic import UNIT, dag

from reclra_compile.arrange import arrange
from reclra_compile.ir import Device, Plan, Schedule, Task
from reclra_compile.machine import Machine
from reclra_compile.simulate.events import lay_out, occupancy_us, period_us, simulate
from reclra_compile.simulate.pattern import Builder, lanes

FREE = Device()


def plan(tasks: list[Task], devices: list[Device], microbatches: int = 1, staleness: int = 0) -> Plan:
    """A plan of tasks alone: nothing else is simulated."""
    return Plan("by hand", "", "", microbatches, (), "", (), (), (), (), tuple(tasks), tuple(devices),
                schedule=Schedule(microbatches, staleness))  # fmt: skip


def work(name: str, device: int, us: float, reads: str = "", turn: int = 0) -> Task:
    """A task that writes `name`."""
    return Task("F", name, tuple(reads.split()), (name,), device=device, us=us, turn=turn)


def post(value: str, there: int, device: int, us: float = 0.0, bytes_: int = 0) -> Task:
    return Task("P", f"{value}>{there}", (value,), (f"{value}>{there}",), device=device, us=us, bytes=bytes_)


def receive(value: str, device: int, turn: int = 0) -> Task:
    name = f"{value}|{device}"
    return Task("R", name, (f"{value}>{device}",), (name,), device=device, turn=turn)


def drawn(made: Plan, **wanted: list[float]) -> float:
    """Compare the starts of the named tasks with the chart; the makespan. `P_x` and `R_x` are messages of x."""
    found = simulate(made)
    for name, starts in wanted.items():
        kind, _, subject = name.rpartition("_")
        number = next(
            i for i, t in enumerate(made.tasks)
            if t.kind == (kind or "F") and t.subject.partition(">")[0].partition("|")[0] == subject
        )  # fmt: skip
        assert found.starts(number).tolist() == starts, name
        np.testing.assert_array_equal(found.ends(number), np.array(starts) + found.layout.length_us[number])
    return found.makespan_us


def test_a_chain_on_one_device() -> None:
    """d0  aa b ccc"""
    made = plan([work("a", 0, 2), work("b", 0, 1, "a"), work("c", 0, 3, "b")], [FREE])
    assert drawn(made, a=[0], b=[2], c=[3]) == 6
    assert simulate(made).utilisation == 1


def test_a_chain_on_two_devices() -> None:
    """
    d0  aa000
    d1  ··bbbc      b and c follow each other
    """
    made = plan([work("a", 0, 2), post("a", 1, 0), receive("a", 1), work("b", 1, 3, "a|1"), work("c", 1, 1, "b")],
                [FREE] * 2)  # fmt: skip
    assert drawn(made, a=[0], b=[2], c=[5]) == 6
    assert simulate(made).idle_us == (4, 2)


def test_the_slower_device_sets_the_pace_of_three_microbatches() -> None:
    """
    d0  a0 a0 a1 a1 a2 a2
    d1  ·  ·  b0 b0 b0 c0 b1 b1 b1 c1 b2 b2 b2 c2
    """
    made = plan([work("a", 0, 2), post("a", 1, 0), receive("a", 1), work("b", 1, 3, "a|1"), work("c", 1, 1, "b")],
                [FREE] * 2, 3)  # fmt: skip
    assert drawn(made, a=[0, 2, 4], b=[2, 6, 10], c=[5, 9, 13]) == 14


def test_errors_from_the_output_with_a_turn_between() -> None:
    """
    d0  a0 a1 e0 e1        e of the first stage is one turn behind
    d1  ·  b0 u0 b1 u1
    """
    made = plan(
        [work("a", 0, 1), post("a", 1, 0), receive("a", 1), work("b", 1, 1, "a|1"), post("b", 0, 1),
         work("u", 1, 1, "b"), receive("b", 0, 1), work("e", 0, 1, "b|0", 1)], [FREE] * 2, 2)  # fmt: skip
    assert drawn(made, a=[0, 1], b=[1, 3], u=[2, 4], e=[2, 4]) == 5 == 2 * 2 + 2 - 1


def test_the_same_without_turns_waits() -> None:
    """
    d0  a0 ·  e0 a1 ·  e1
    d1  ·  b0 u0 ·  b1 u1
    """
    made = plan(
        [work("a", 0, 1), post("a", 1, 0), receive("a", 1), work("b", 1, 1, "a|1"), post("b", 0, 1),
         work("u", 1, 1, "b"), receive("b", 0), work("e", 0, 1, "b|0")], [FREE] * 2, 2)  # fmt: skip
    assert drawn(made, a=[0, 3], b=[1, 4], u=[2, 5], e=[2, 5]) == 6


def test_a_message_occupies_the_link_and_then_travels() -> None:
    """
    d0  a0 a1
    l0  ·  p0 p0 p0 p0 p1 p1 p1 p1      8 bytes of 2 microbatches at 1 byte in a microsecond
    d1  ·  ·  ·  ·  ·  ·  ·  b0 ·  ·  ·  b1      2 µs on the way
    """
    slow = Device(link_bytes_per_s=1e6, link_latency_us=2)
    made = plan([work("a", 0, 1), post("a", 1, 0, bytes_=8), receive("a", 1), work("b", 1, 1, "a|1")], [slow, FREE], 2)
    assert drawn(made, a=[0, 1], P_a=[1, 5], R_a=[7, 11], b=[7, 11]) == 12
    assert simulate(made).link_us == (8, 0)


def test_a_star_of_messages_leaves_one_after_the_other() -> None:
    """
    d0  e
    l0  ·11 22 33          2 µs each, 1 µs on the way
    d1  ····x
    d2  ······y
    d3  ········z
    """
    star = Device(link_latency_us=1)
    tasks = [work("e", 0, 1), *(post("e", d, 0, us=2) for d in (1, 2, 3))]
    for d, name in ((1, "x"), (2, "y"), (3, "z")):
        tasks += [receive("e", d), work(name, d, 1, f"e|{d}")]
    made = plan(tasks, [star, FREE, FREE, FREE])
    assert drawn(made, x=[4], y=[6], z=[8]) == 9
    assert [simulate(made).starts(k)[0] for k in (1, 2, 3)] == [1, 3, 5]


def test_only_what_comes_after_a_receive_waits_for_it() -> None:
    """
    d0  aaaa
    d1  bb··c     b needs nothing, c needs a
    """
    made = plan([work("a", 0, 4), post("a", 1, 0), work("b", 1, 2), receive("a", 1), work("c", 1, 1, "a|1")],
                [FREE] * 2)  # fmt: skip
    assert drawn(made, a=[0], b=[0], R_a=[4], c=[4]) == 5


def test_a_message_waits_for_the_one_before_it_on_the_link() -> None:
    """
    d0  a b
    l0  · aaa bb       b is ready at 2, the link is free at 4
    d1  ······x        x reads b alone
    """
    made = plan([work("a", 0, 1), post("a", 1, 0, us=3), work("b", 0, 1), post("b", 1, 0, us=2), receive("b", 1),
                 work("x", 1, 1, "b|1"), receive("a", 1), work("y", 1, 1, "a|1")], [FREE] * 2)  # fmt: skip
    assert drawn(made, P_a=[1], P_b=[4], x=[6], y=[7]) == 8


def test_two_devices_that_need_each_other() -> None:
    """
    d0  a···c          b|0 is there at 4
    d1  bbb·d          a|1 is there at 2, but b is not done before 3
    """
    slow = Device(link_latency_us=1)
    made = plan([work("a", 0, 1), work("b", 1, 3), post("a", 1, 0), post("b", 0, 1), receive("b", 0),
                 work("c", 0, 1, "a b|0"), receive("a", 1), work("d", 1, 1, "a|1 b")], [slow, slow])  # fmt: skip
    assert drawn(made, a=[0], b=[0], c=[4], d=[3]) == 5


def test_1f1b_on_two_stages() -> None:
    """
    d0  a0 a1 ·  ·  x0 x0 a2 x1 x1 ·  x2 x2        x (2 µs) one turn behind
    d1  ·  b0 y0 y0 b1 y1 y1 b2 y2 y2
    """
    made = plan(
        [work("a", 0, 1), post("a", 1, 0), receive("a", 1), work("b", 1, 1, "a|1"), work("y", 1, 2, "b"),
         post("y", 0, 1), receive("y", 0, 1), work("x", 0, 2, "y|0", 1)], [FREE] * 2, 3)  # fmt: skip
    assert drawn(made, a=[0, 1, 6], b=[1, 4, 7], y=[2, 5, 8], x=[4, 7, 10]) == 12 == 3 * (3 + 2 - 1)


def test_a_batch_begins_before_the_last_one_ends_only_where_the_plan_is_stale() -> None:
    """
    synchronous  d0  a0 a1 e0 e1 ·  A0 A1 E0 E1        d1  ·  b0 u0 b1 u1 ·  B0 U0 B1 U1: each device ends its batch
    stale        d0  a0 a1 e0 A0 e1 A1 E0 ·  E1        d1  ·  b0 u0 b1 u1 B0 U0 B1 U1: nobody waits
    """
    tasks = [work("a", 0, 1), post("a", 1, 0), receive("a", 1), work("b", 1, 1, "a|1"), post("b", 0, 1),
             work("u", 1, 1, "b"), receive("b", 0, 1), work("e", 0, 1, "b|0", 1)]  # fmt: skip
    waiting, stale = (plan(tasks, [FREE] * 2, 2, s) for s in (0, 1))
    assert simulate(waiting, 2).starts(0).tolist() == [0, 1, 5, 6]
    assert simulate(waiting, 2).makespan_us == 10
    assert simulate(stale, 2).starts(0).tolist() == [0, 1, 3, 5]
    assert simulate(stale, 2).makespan_us == 9
    assert (period_us(waiting), period_us(stale)) == (5, 4)


def random_devices(rng: random.Random, count: int, microbatches: int) -> tuple[Device, ...]:
    """Devices of three speeds, with links that are free, slow, or slow and far."""
    rate = UNIT / microbatches * 1e6
    return tuple(
        Device(f"d{k}", flops_per_s=rate * rng.choice([1, 1, 2]), link_bytes_per_s=rng.choice([0, 1e7, 1e8]),
               link_latency_us=rng.choice([0, 0.5, 3]), task_us=rng.choice([0, 0.25]))
        for k in range(count)
    )  # fmt: skip


def one_task_one_node(made: Plan) -> dict[int, list[float]]:
    """The starts of all tasks by the plain simulation, without joining any of them."""
    build, n = Builder(), len(made.devices)
    node: dict[int, int] = {}
    writer: dict[str, tuple[int, float]] = {}
    last: dict[int, int] = {}
    for i, t in enumerate(made.tasks):
        if t.kind == "X":
            continue
        if t.kind == "P":
            wire = build.node(n + t.device, occupancy_us(t, made), t.turn)
            # posted where it stands in the lane: after the task before it there
            build.edge(last[t.device], wire)
            writer[t.writes[0]] = wire, occupancy_us(t, made) + made.devices[t.device].link_latency_us
            node[i] = wire
            continue
        node[i] = last[t.device] = build.node(t.device, 0.0 if t.kind == "R" else t.us, t.turn)
        for v in t.reads:
            if v in writer:
                build.edge(writer[v][0], node[i], writer[v][1])
        writer.update(dict.fromkeys(t.writes, (node[i], 0.0 if t.kind == "R" else t.us)))
    pattern, many = build.pattern(2 * n), made.schedule.microbatches
    starts = start_times(pattern, many, list(lanes(pattern, many)))
    return {i: starts[k].tolist() for i, k in node.items()}


def longest_chain_us(made: Plan) -> float:
    """The longest chain of tasks and messages of one microbatch, as if every task had a device of its own."""
    ready: dict[str, float] = {}
    longest = 0.0
    for t in made.tasks:
        begin = max((ready[v] for v in t.reads if v in ready), default=0.0)
        message = occupancy_us(t, made) + made.devices[t.device].link_latency_us if t.kind == "P" else t.us
        ready.update(dict.fromkeys(t.writes, begin + message))
        longest = max(longest, begin + message)
    return longest


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 4), st.integers(1, 5))
def test_a_plan_takes_what_its_tasks_take_one_by_one(seed: int, length: int, count: int, microbatches: int) -> None:
    rng = random.Random(seed)
    devices = random_devices(rng, min(count, length), microbatches)
    made = arrange(dag(seed, length), devices, Machine(microbatches=microbatches))
    found = simulate(made)
    for i, starts in one_task_one_node(made).items():
        if made.tasks[i].kind == "R":
            continue  # messages that are waited for one after the other count as one
        np.testing.assert_allclose(found.starts(i), starts, rtol=1e-9, atol=1e-9, err_msg=made.tasks[i].id)
    work_us = sum(t.us for t in made.tasks if t.kind not in "PRX") * microbatches
    assert found.makespan_us >= work_us / len(devices) - 1e-9
    assert found.makespan_us >= max(found.busy_us) - 1e-9
    assert found.makespan_us >= longest_chain_us(made) - 1e-9
    assert math.isclose(sum(found.busy_us), work_us, abs_tol=1e-6)


def test_tasks_that_follow_each_other_are_one_node() -> None:
    made = arrange(dag(3, 8), random_devices(random.Random(0), 2, 4), Machine(microbatches=4))
    assert lay_out(made).pattern.nodes < len([t for t in made.tasks if t.kind != "X"])


@pytest.mark.parametrize("microbatches", [1, 3])
def test_a_plan_that_runs_on_one_device_is_its_work(microbatches: int) -> None:
    made = arrange(dag(4, 5), (Device(flops_per_s=1e6),), Machine(microbatches=microbatches))
    assert simulate(made).makespan_us == pytest.approx(sum(t.us for t in made.tasks) * microbatches)
