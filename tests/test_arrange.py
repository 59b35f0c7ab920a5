"""Plans on devices: the whole step as simulated, what fits the memory, and what the order of turns saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import UNIT, chain, dag

from reclra_compile.arrange import arrange
from reclra_compile.errors import PlacementError
from reclra_compile.ir import Device, Plan
from reclra_compile.machine import Machine
from reclra_compile.placement.memory import peaks
from reclra_compile.schedule.turns import together, turned
from reclra_compile.simulate.events import period_us, simulate
from reclra_compile.verify import verify


def unit_devices(count: int, microbatches: int, memory: int = 0) -> tuple[Device, ...]:
    """Devices on which one product of one microbatch takes a microsecond; links are free."""
    rate = UNIT / microbatches * 1e6
    return tuple(Device(f"d{k}", "unit", flops_per_s=rate, memory_bytes=memory) for k in range(count))


def on(plan: Plan, count: int, microbatches: int, memory: int = 0) -> Plan:
    return arrange(plan, unit_devices(count, microbatches, memory), Machine(microbatches=microbatches))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("microbatches", [1, 2, 4, 8])
def test_output_fed_stages_take_two_m_plus_p_minus_one(count: int, microbatches: int) -> None:
    made = on(chain(count), count, microbatches)
    assert len({d for _, d in made.placement.regions}) == count
    assert simulate(made).makespan_us == 2 * microbatches + count - 1


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize("microbatches", [1, 2, 4, 8])
def test_backprop_takes_three_times_m_plus_p_minus_one(count: int, microbatches: int) -> None:
    """Less one: the first stage, which ends the step, has no input gradient to make."""
    made = on(chain(count, "backprop"), count, microbatches)
    assert simulate(made).makespan_us == 3 * (microbatches + count - 1) - 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 4), st.integers(1, 6))
def test_any_plan_is_sound_on_any_devices(seed: int, length: int, count: int, microbatches: int) -> None:
    plan = dag(seed, length)
    count = min(count, length)
    made = on(plan, count, microbatches)
    verify(made)
    assert made == on(plan, count, microbatches)
    assert Plan.parse(str(made)) == made
    work = sum(t.us for t in made.tasks) * microbatches
    assert simulate(made).makespan_us >= work / count - 1e-6
    assert arrange(made, unit_devices(count, microbatches), Machine(microbatches=microbatches)) == made


def test_less_memory_means_fewer_microbatches_in_flight() -> None:
    plan, count, microbatches = chain(8, batch=64), 8, 16
    free = on(plan, count, microbatches)
    most = max(free.placement.peak_bytes)
    least = max(peaks(replace(free, tasks=turned(free.tasks, together(free.tasks)))))
    assert least < most
    limit = (least + most) // 2
    limited = on(plan, count, microbatches, memory=limit)
    assert max(limited.placement.peak_bytes) <= limit
    assert simulate(limited).makespan_us > simulate(free).makespan_us
    assert on(plan, count, microbatches, memory=most).tasks == free.tasks


def test_what_fits_nowhere_is_said_with_numbers() -> None:
    with pytest.raises(PlacementError) as failed:
        on(chain(4), 2, 1, memory=10)
    assert failed.value.faults[0].code == "N005"
    assert "10 B" in str(failed.value)


def test_the_order_of_microbatches_does_not_change_the_work() -> None:
    plan = chain(4)
    one, many = on(plan, 4, 1), on(plan, 4, 8)
    assert sum(t.flops for t in one.tasks) == sum(t.flops for t in many.tasks)
    assert [t.id for t in one.tasks] == [t.id for t in many.tasks]
    assert {t.turn for t in one.tasks} == {0} < {t.turn for t in many.tasks}


def stale(plan: Plan, count: int, microbatches: int) -> Plan:
    return arrange(plan, unit_devices(count, microbatches), Machine(microbatches=microbatches, staleness=1))


@pytest.mark.parametrize("microbatches", [1, 2, 4, 16])
def test_a_stale_batch_never_overtakes_the_update_before_the_last(microbatches: int) -> None:
    """On each device the first forward task of batch t comes after the last update of batch t − 2."""
    made = stale(chain(12), 12, microbatches)
    assert max(t.turn for t in made.tasks) <= microbatches
    step = simulate(made, 5)
    for d in range(12):
        here = [k for k, t in enumerate(made.tasks) if t.device == d and t.us]
        forward = next(k for k in here if made.tasks[k].kind == "F")
        begins, ends = step.starts(forward)[::microbatches], step.ends(here[-1])[microbatches - 1 :: microbatches]
        assert all(begin >= end - 1e-9 for begin, end in zip(begins[2:], ends, strict=False))


def test_stale_steps_overlap_with_one_microbatch_too() -> None:
    made, plain = stale(chain(6), 6, 1), on(chain(6), 6, 1)
    assert simulate(plain).makespan_us == simulate(made).makespan_us == 7
    assert period_us(made) < period_us(plain)


def test_of_orders_about_as_fast_in_a_row_the_smallest_is_taken() -> None:
    """All forward passes first would be as fast for backprop, and hold all microbatches."""
    made = on(chain(4, "backprop", batch=64), 4, 16)
    flying = [1 + max(t.turn for t in made.tasks if t.device == d) for d in range(4)]
    assert flying == [4, 3, 2, 1]
